"""Attention of each sample's newest token on NVIDIA: a kernel that reads what a sample holds, not what it has room for.

Samples that are decoded together are of any length. Plain attention reads all of them up to the longest one's room;
the kernel stops at each one's own length, and does all of it in one pass: the question's shared part, the sample's
own, one softmax. Source: Dao et al. 2022.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec

from dsmath.model.attention import Stored
from dsmath.model.backend import backend
from dsmath.model.config import ModelConfig

_ROW_AXES = ("data", "fsdp", "sequence")  # mesh axes over which the questions are spread
_BLOCK = 64  # tokens that a program reads at a time
MULTIPLE = 16  # rows and columns of the smallest product that the matrix units take
_WARPS, _STAGES = 4, 3


def serves(config: ModelConfig, *rooms: int) -> bool:
    """Whether a model decodes by the kernel from arrays with room for so many tokens each, multiples of `MULTIPLE`."""
    return config.is_cudnn and all(room % MULTIPLE == 0 for room in rooms)


def attend(
    query: Array, prefix: Stored, prefix_lengths: Array, past: Stored, new: Stored, lengths: Array
) -> tuple[Array, Stored]:
    """Plain attention of one token a sample over its question's tokens, its own before and itself; it is stored, too.

    Args:
      query: [questions, group, 1, heads, head_dim].
      prefix: of the questions, [questions, …, room, …]; `serves` says which rooms can be read.
      prefix_lengths: int32 [questions], tokens of each question; 0 is allowed.
      past: of the samples, [questions, group, …, room, …]; changed in place where its buffer is free.
      new: of the samples' newest tokens, [questions, group, …, 1, …].
      lengths: int32 [questions, group], tokens of each sample before; the new one is written there if there is room.
    Returns:
      [questions, group, 1, heads, head_dim], and the samples' tokens with the new ones.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return _on_device(query, prefix, prefix_lengths, past, new, lengths)
    # The compiler cannot divide a kernel by itself: each device runs it on its questions and heads.
    rows, samples = PartitionSpec(_ROW_AXES, "tensor"), PartitionSpec(_ROW_AXES, None, "tensor")
    queries, counts = PartitionSpec(_ROW_AXES, None, None, "tensor"), PartitionSpec(_ROW_AXES)
    spread = jax.shard_map(
        _on_device,
        in_specs=(queries, rows, counts, samples, samples, counts),
        out_specs=(queries, samples),
        check_vma=False,
    )
    return spread(query, prefix, prefix_lengths, past, new, lengths)


def _on_device(
    query: Array, prefix: Stored, prefix_lengths: Array, past: Stored, new: Stored, lengths: Array
) -> tuple[Array, Stored]:
    questions, group, _, heads, head_dim = query.shape
    kv_heads = past.value.shape[2]
    shared = heads // kv_heads  # queries that meet the same keys
    rows = max(MULTIPLE, pl.next_power_of_2(shared))

    # Programs of the same question and head stand side by side: the second one finds the question's part in the cache.
    def place(program: Array) -> tuple[Array, Array, Array]:
        return program // (kv_heads * group), program % group, program // group % kv_heads

    def of_question(program: Array, ndim: int) -> tuple:
        question, _, head = place(program)
        return question, head, *(0,) * (ndim - 2)

    def of_sample(program: Array, ndim: int) -> tuple:
        return *place(program), *(0,) * (ndim - 3)

    def whole(x: Array, leading: int, where: Callable) -> pl.BlockSpec:
        return pl.BlockSpec((None,) * leading + x.shape[leading:], functools.partial(where, ndim=x.ndim))

    query = query.reshape(questions, group, kv_heads, shared, head_dim)
    new = jax.tree.map(lambda x: x.reshape(questions, group, kv_heads, -1), new)
    queries = pl.BlockSpec((None, None, None, rows, head_dim), functools.partial(of_sample, ndim=5))
    pasts = jax.tree.map(lambda x: whole(x, 3, of_sample), past)
    before = 3 + len(jax.tree.leaves((prefix, new)))  # arrays before the past's
    out, own = pl.pallas_call(
        functools.partial(_kernel, shared=shared, scale=head_dim**-0.5),
        grid=(questions * kv_heads * group,),
        in_specs=[
            pl.BlockSpec((None,), lambda program: place(program)[:1]),
            pl.BlockSpec((None, None), lambda program: place(program)[:2]),
            queries,
            jax.tree.map(lambda x: whole(x, 2, of_question), prefix),
            jax.tree.map(lambda x: whole(x, 3, of_sample), new),
            pasts,
        ],
        out_specs=(queries, pasts),
        out_shape=(
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), past),
        ),
        input_output_aliases={before + number: 1 + number for number in range(len(jax.tree.leaves(past)))},
        compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=backend() != "gpu",
        name="flash_decoding",
    )(prefix_lengths, lengths, query, prefix, new, past)
    return out.reshape(questions, group, 1, heads, head_dim), own


def _kernel(
    prefix_length,
    length,
    query,
    prefix: Stored,
    new: Stored,
    past: Stored,
    out,
    own: Stored,
    *,
    shared: int,
    scale: float,
):
    """One sample and one head of keys; arguments are references to their part of the arrays."""
    rows, head_dim = query.shape
    room = past.value.shape[0]
    is_query = (jnp.arange(rows) < shared)[:, None]
    queries = triton.load(query, mask=is_query, other=0.0)
    # The sample begins with its newest token, which is in no memory that other threads would have to wait for.
    key, value = (x[...].astype(jnp.float32) for x in (new.key, new.value))
    if new.key_scale is not None:
        key, value = key * new.key_scale[...], value * new.value_scale[...]
    highest = (queries.astype(jnp.float32) * key[None]).sum(axis=-1) * scale
    seen = jnp.broadcast_to(value[None], (rows, head_dim)), highest, jnp.ones((rows,), jnp.float32)
    at = length[...]
    seen = _read(queries, prefix, prefix_length[...], scale, seen)
    summed, _, total = _read(queries, past, jnp.minimum(at, room), scale, seen)
    triton.store(out, (summed / total[:, None]).astype(out.dtype), mask=is_query)

    there = jnp.minimum(at, room - 1)
    has_room = jnp.broadcast_to(at < room, (head_dim,))
    triton.store(own.key.at[:, there], new.key[...], mask=has_room)
    triton.store(own.value.at[there, :], new.value[...], mask=has_room)
    if new.key_scale is not None:
        triton.store(own.key_scale.at[pl.ds(there, 1)], new.key_scale[...], mask=has_room[:1])
        triton.store(own.value_scale.at[pl.ds(there, 1)], new.value_scale[...], mask=has_room[:1])


def _read(queries: Array, stored: Stored, length: Array, scale: float, seen: tuple[Array, ...]) -> tuple[Array, ...]:
    """Goes on with the values' weighted sum, the highest score and the sum of weights over `length` more tokens."""
    block = math.gcd(_BLOCK, stored.value.shape[0])

    def step(number: Array, seen: tuple[Array, ...]) -> tuple[Array, ...]:
        summed, highest, total = seen
        tokens = pl.ds(number * block, block)
        # No mask on the loads, which would take them apart: what lies behind the length is finite, and its weight 0.
        scores = _product(queries, stored.key[:, tokens]) * scale
        if stored.key_scale is not None:
            scores *= stored.key_scale[tokens][None]
        is_held = number * block + jnp.arange(block) < length
        scores = jnp.where(is_held[None], scores, jnp.finfo(jnp.float32).min)
        higher = jnp.maximum(highest, scores.max(axis=-1))
        weights, kept = jnp.exp(scores - higher[:, None]), jnp.exp(highest - higher)
        total = total * kept + weights.sum(axis=-1)
        if stored.value_scale is not None:
            weights *= stored.value_scale[tokens][None]
        summed = summed * kept[:, None] + _product(weights.astype(queries.dtype), stored.value[tokens, :])
        return summed, higher, total

    return jax.lax.fori_loop(0, pl.cdiv(length, block), step, seen)


def _product(x: Array, stored: Array) -> Array:
    return triton.dot(x, stored.astype(x.dtype))
