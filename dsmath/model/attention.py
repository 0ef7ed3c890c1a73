"""Rotary positions and attention: over whole sequences, and of samples that share a prefix."""

import jax
import jax.numpy as jnp
from jax import Array


def rotate(x: Array, positions: Array, theta: float) -> Array:
    """Applies rotary position embedding (the half-split layout of Hugging Face's Llama).

    Args:
      x: [batch, length, heads, head_dim].
      positions: int32 [batch, length].
      theta: base of the frequencies.
    Source: Su et al. 2021; DeepSeekMath's architecture table (theta 10000).
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)  # [half]
    angles = positions[..., None, None].astype(jnp.float32) * frequencies  # [batch, length, 1, half]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def causal_mask(segment_ids: Array) -> Array:
    """True where a query may look: at itself and before, within its own segment; segment 0 is padding.

    Args:
      segment_ids: int32 [batch, length].
    Returns:
      bool [batch, length, length].
    """
    length = segment_ids.shape[1]
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    causal = jnp.tril(jnp.ones((length, length), bool))
    # Padding looks at padding: a row without any key would give NaN.
    return same & causal


def attend(query: Array, key: Array, value: Array, mask: Array, implementation: str) -> Array:
    """Scaled dot-product attention, softmax in float32.

    Args:
      query: [batch, length, heads, head_dim].
      key, value: [batch, length, kv_heads, head_dim]; heads is a multiple of kv_heads.
      mask: bool [batch, length, length].
      implementation: "xla" or "cudnn".
    Returns:
      [batch, length, heads, head_dim].
    """
    return jax.nn.dot_product_attention(query, key, value, mask=mask[:, None], implementation=implementation)


def attend_with_prefix(
    query: Array,
    prefix: tuple[Array, Array],
    prefix_mask: Array,
    suffix: tuple[Array, Array],
    suffix_mask: Array,
) -> Array:
    """Tokens of each sample against their question's shared keys and the sample's own.

    The group's samples read the question's keys once: they are one matrix product, not group_size of them.
    The softmax runs over both parts together, so the result is that of plain attention.

    Args:
      query: [questions, group, length, heads, head_dim].
      prefix: keys and values [questions, prefix_length, kv_heads, head_dim].
      prefix_mask: bool [questions, prefix_length].
      suffix: keys and values [questions, group, suffix_length, kv_heads, head_dim].
      suffix_mask: bool [length, suffix_length], the sample's tokens that each query may look at.
    Returns:
      [questions, group, length, heads, head_dim].
    """
    shape = query.shape
    kv_heads, prefix_length = prefix[0].shape[2], prefix[0].shape[1]
    query = query.reshape(*shape[:3], kv_heads, shape[3] // kv_heads, shape[4]) * shape[4] ** -0.5
    on_prefix = jnp.einsum("qgtkhd,qpkd->qkhgtp", query, prefix[0], preferred_element_type=jnp.float32)
    on_suffix = jnp.einsum("qgtkhd,qgskd->qkhgts", query, suffix[0], preferred_element_type=jnp.float32)
    lowest = jnp.finfo(jnp.float32).min
    on_prefix = jnp.where(prefix_mask[:, None, None, None, None, :], on_prefix, lowest)
    on_suffix = jnp.where(suffix_mask, on_suffix, lowest)
    weights = jax.nn.softmax(jnp.concatenate([on_prefix, on_suffix], axis=-1), axis=-1).astype(query.dtype)
    to_prefix, to_suffix = jnp.split(weights, [prefix_length], axis=-1)
    out = jnp.einsum("qkhgtp,qpkd->qgtkhd", to_prefix, prefix[1])
    out += jnp.einsum("qkhgts,qgskd->qgtkhd", to_suffix, suffix[1])
    return out.reshape(shape)
