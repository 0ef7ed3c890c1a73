"""Attention as a plan compiles it: on CPU devices, for accelerators whose kernels the CPU does not have."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import Array

from dsmath.model import attention
from dsmath.model.backend import made_for
from dsmath.model.sharding import partition_spec


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Lets `attention.attend` be traced for CPU devices whatever its implementation.

    In place of the kernels "cudnn" and "splash" stands a function that takes, keeps and exchanges what they do, and
    computes next to nothing: no scores, no operations of attention. "xla" is itself, with as many scores at a time as
    an accelerator takes; of float16, which stands for bfloat16 here (`stages.for_cpu`) and which it does not have on
    CPUs, it is bfloat16 again.
    """
    plain = attention.attend

    def attend(query: Array, key: Array, value: Array, segment_ids: Array, implementation: str) -> Array:
        if implementation == "xla":
            dtype = jnp.bfloat16 if query.dtype == jnp.float16 else query.dtype
            arrays = (x.astype(dtype) for x in (query, key, value))
            return plain(*arrays, segment_ids, implementation).astype(query.dtype)
        queries = partition_spec(("batch", "length", "heads", "head_dim"))
        keys = partition_spec(("batch", None, "kv_heads", "head_dim"))  # a device sees all keys of its rows
        spread = jax.shard_map(_stand_in, in_specs=(queries, keys, keys), out_specs=queries, check_vma=False)
        return spread(query, key, value)

    attention.attend = attend
    try:
        with made_for("tpu"):  # not for a CPU's cache
            yield
    finally:
        attention.attend = plain


@jax.custom_vjp
def _stand_in(query: Array, key: Array, value: Array) -> Array:
    """[batch, length, heads, head_dim]; every argument is needed, and no product is formed."""
    shared = (key + value)[:, -1:]
    return query * jnp.repeat(shared, query.shape[2] // key.shape[2], axis=2)


def _forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    out = _stand_in(query, key, value)
    return out, (query, key, value, out)


def _backward(kept: tuple[Array, ...], cotangent: Array) -> tuple[Array, Array, Array]:
    query, key, value, out = kept
    batch, length, _, head_dim = query.shape
    grouped = (cotangent * out).reshape(batch, length, key.shape[2], -1, head_dim).sum((1, 3))[:, None]
    return cotangent * query, grouped * value, grouped * key


_stand_in.defvjp(_forward, _backward)
