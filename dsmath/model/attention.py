"""Rotary positions and attention: over whole sequences, and of samples that share a prefix."""

import math

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dsmath.model import cudnn, splash, xla
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
      segment_ids: int32 [..., length].
    Returns:
      bool [..., length, length].
    """
    length = segment_ids.shape[-1]
    same = segment_ids[..., :, None] == segment_ids[..., None, :]
    causal = jnp.tril(jnp.ones((length, length), bool))
    # Padding looks at padding: a row without any key would give NaN.
    return same & causal


def check(implementation: str, length: int, head_dim: int) -> None:
    """Refuses rows, or heads, that an implementation does not take.

    Args:
      implementation: see `ModelConfig.attention`.
      length: tokens of a row on one device.
      head_dim: of the model.
    Raises:
      InputError: names the field.
    """
    if implementation == "splash":
        splash.check(length, head_dim)


def attend(query: Array, key: Array, value: Array, segment_ids: Array, implementation: str) -> Array:
    """Causal scaled dot-product attention within segments, softmax in float32.

    Args:
      query: [batch, length, heads, head_dim].
      key, value: [batch, length, kv_heads, head_dim]; heads is a multiple of kv_heads.
      segment_ids: int32 [batch, length]; segment 0 is padding.
      implementation: see `ModelConfig.attention`.
    Returns:
      [batch, length, heads, head_dim].
    """
    if implementation == "splash":
        return splash.attend(query, key, value, segment_ids)
    if implementation == "cudnn_documents":
        return cudnn.attend_documents(query, key, value, segment_ids)
    if implementation == "cudnn":
        return cudnn.attend(query, key, value, causal_mask(segment_ids))
    return xla.attend(query, key, value, segment_ids)


def attend_after_prefix(
    query: Array,
    key: Array,
    value: Array,
    segments: Array,
    prefix: tuple[Array, Array],
    prefix_mask: Array,
) -> Array:
    """As `attend`, of rows whose every token also looks at the prefix that its question's rows share.

    Args:
      query: [questions, rows, length, heads, head_dim].
      key, value: [questions, rows, length, kv_heads, head_dim].
      segments: int32 [questions, rows, length]; segment 0 is padding.
      prefix: keys and values [questions, prefix_length, kv_heads, head_dim].
      prefix_mask: bool [questions, prefix_length], the prefix's tokens.
    Returns:
      [questions, rows, length, heads, head_dim].
    """

    def flatten(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:])

    def join(shared: Array, own: Array) -> Array:
        shared = jnp.broadcast_to(shared[:, None], (*own.shape[:2], *shared.shape[1:]))
        return flatten(jnp.concatenate([shared, own], axis=2))

    key_segments = join(jnp.where(prefix_mask, xla.EVERY, 0), segments)
    keys, values = (join(*pair) for pair in zip(prefix, (key, value), strict=True))
    return xla.attend(flatten(query), keys, values, flatten(segments), key_segments).reshape(query.shape)


@struct.dataclass
class Stored:
    """Keys and values as they wait for later tokens, laid out for one query at a time.

    Attributes:
      key: [..., kv_heads, head_dim, length].
      value: [..., kv_heads, length, head_dim].
      key_scale, value_scale: of int8, float32 [..., kv_heads, length]; None for floats.
    """

    key: Array
    value: Array
    key_scale: Array | None
    value_scale: Array | None


def store(key: Array, value: Array, dtype: jnp.dtype) -> Stored:
    """Turns keys and values [..., length, kv_heads, head_dim] into what is stored.

    int8 has one scale a token and head: an error of at most 1/254 of the largest number of that head's vector.
    """
    key, value = (
        jnp.moveaxis(key, -3, -1),
        jnp.moveaxis(value, -3, -2),
    )  # [..., heads, head_dim, length], [..., heads, length, head_dim]
    if dtype != jnp.int8:
        return Stored(key.astype(dtype), value.astype(dtype), None, None)
    (key, key_scale), (value, value_scale) = _quantize(key, -2), _quantize(value, -1)
    return Stored(key, value, key_scale, value_scale)


def _quantize(x: Array, axis: int) -> tuple[Array, Array]:
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(x).max(axis=axis, keepdims=True), 1e-30) / 127
    return jnp.round(x / scale).astype(jnp.int8), scale.squeeze(axis)


def write(stored: Stored, new: Stored, index: Array) -> Stored:
    """Writes one token a sample at the sample's own index; an index out of range writes nothing.

    Args:
      stored: [questions, group, …], with room.
      new: of length 1.
      index: int32 [questions, group].
    """

    def put(old: Array | None, new: Array | None, axis: int) -> Array | None:
        def put_one(old: Array, new: Array, index: Array) -> Array:
            place = (slice(None),) * (old.ndim + axis) + (index,)
            return old.at[place].set(new.squeeze(axis), mode="drop")

        return None if old is None else jax.vmap(jax.vmap(put_one))(old, new, index)

    return Stored(
        key=put(stored.key, new.key, -1),
        value=put(stored.value, new.value, -2),
        key_scale=put(stored.key_scale, new.key_scale, -1),
        value_scale=put(stored.value_scale, new.value_scale, -1),
    )


def attend_with_prefix(query: Array, prefix: Stored, prefix_mask: Array, suffix: Stored, suffix_mask: Array) -> Array:
    """Tokens of each sample against their question's shared keys and the sample's own.

    The group's samples read the question's keys once: they are one matrix product, not group_size of them.
    The softmax runs over both parts together, so the result is that of plain attention.

    Args:
      query: [questions, group, length, heads, head_dim].
      prefix: of the questions, [questions, …, prefix_length, …].
      prefix_mask: bool [questions, prefix_length].
      suffix: of the samples, [questions, group, …, suffix_length, …].
      suffix_mask: bool [questions, group, length, suffix_length], the sample's tokens that each query may look at; one
        at least.
    Returns:
      [questions, group, length, heads, head_dim].
    """
    questions, group, length, heads, head_dim = query.shape
    kv_heads = prefix.value.shape[1]
    shared = heads // kv_heads
    rows = length * shared  # of a sample, that meet the same keys
    query = query.reshape(questions, group, length, kv_heads, shared, head_dim) * head_dim**-0.5
    query = jnp.moveaxis(query, 3, 2).reshape(questions, group, kv_heads, rows, head_dim)
    together = query.swapaxes(1, 2).reshape(questions, kv_heads, group * rows, head_dim)

    lowest = jnp.finfo(jnp.float32).min
    on_prefix = _scale(_product(together, prefix.key), prefix.key_scale)
    on_prefix = jnp.where(prefix_mask[:, None, None], on_prefix, lowest)
    on_suffix = _scale(_product(query, suffix.key), suffix.key_scale)
    suffix_mask = jnp.repeat(suffix_mask, shared, axis=2)  # [questions, group, rows, suffix_length]
    on_suffix = jnp.where(suffix_mask[:, :, None], on_suffix, lowest)

    def by_sample(x: Array) -> Array:
        """[questions, kv_heads, group * rows, …] -> [questions, group, kv_heads, rows, …]."""
        return x.reshape(questions, kv_heads, group, rows, x.shape[-1]).swapaxes(1, 2)

    # One softmax over two arrays, divided at the end: joining them would copy both.
    highest = jnp.maximum(
        by_sample(on_prefix.max(axis=-1, keepdims=True)), on_suffix.max(axis=-1, keepdims=True, initial=lowest)
    )
    to_prefix = jnp.exp(on_prefix - highest.swapaxes(1, 2).reshape(questions, kv_heads, group * rows, 1))
    to_suffix = jnp.exp(on_suffix - highest)
    total = by_sample(to_prefix.sum(axis=-1, keepdims=True)) + to_suffix.sum(axis=-1, keepdims=True)
    to_prefix = _scale(to_prefix, prefix.value_scale).astype(query.dtype)
    to_suffix = _scale(to_suffix, suffix.value_scale).astype(query.dtype)
    out = (by_sample(_product(to_prefix, prefix.value)) + _product(to_suffix, suffix.value)) / total
    out = out.astype(query.dtype).reshape(questions, group, kv_heads, length, shared, head_dim)
    return jnp.moveaxis(out, 2, 3).reshape(questions, group, length, heads, head_dim)


def _scale(scores: Array, scale: Array | None) -> Array:
    """scores [..., rows, tokens] times the scales [..., tokens] of int8."""
    return scores if scale is None else scores * scale[..., None, :]


def _product(x: Array, stored: Array) -> Array:
    return jnp.matmul(x, stored.astype(x.dtype), preferred_element_type=jnp.float32)
