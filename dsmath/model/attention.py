"""Rotary positions and attention: over whole sequences, and of samples that share a prefix."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from dsmath.model import splash
from dsmath.model.config import RopeScaling


def rotary_frequencies(half: int, theta: float, scaling: RopeScaling) -> Array:
    """Angles a position, float32 [half].

    Args:
      half: half of the head's size.
      theta: base of the frequencies.
      scaling: of a stretched context.
    Source: Su et al. 2021; DeepSeekMath's architecture table (theta 10000).
    """
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind == "llama3":
        # 1 for wavelengths that the original context held many times, 0 for those that it held less than once.
        turns = scaling.original_length * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        return (1 - kept) * frequencies / scaling.factor + kept * frequencies
    return frequencies


def rotate(x: Array, positions: Array, frequencies: Array) -> Array:
    """Applies rotary position embedding (the half-split layout of Hugging Face's Llama).

    Args:
      x: [batch, length, heads, head_dim].
      positions: int32 [batch, length].
      frequencies: float32 [head_dim / 2], of `rotary_frequencies`.
    """
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


def attend(query: Array, key: Array, value: Array, segment_ids: Array, implementation: str) -> Array:
    """Causal scaled dot-product attention within segments, softmax in float32.

    Args:
      query: [batch, length, heads, head_dim].
      key, value: [batch, length, kv_heads, head_dim]; heads is a multiple of kv_heads.
      segment_ids: int32 [batch, length]; segment 0 is padding.
      implementation: "xla", "cudnn" or "splash".
    Returns:
      [batch, length, heads, head_dim].
    """
    if implementation == "splash":
        return splash.attend(query, key, value, segment_ids)
    mask = causal_mask(segment_ids)[:, None]
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)


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
