"""Flash attention on TPU: JAX's splash kernel, which never holds the matrix of scores, under any mesh."""

import jax
from jax import Array
from jax.experimental.pallas.ops.tpu import splash_attention as library
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from dsmath.model.backend import backend
from dsmath.model.sharding import partition_spec
from dsmath.runs.errors import InputError

_BLOCKS = (512, 256, 128)  # of queries and of keys; the last is the smallest that the kernel takes


def check(length: int, head_dim: int) -> None:
    """Refuses a length, of a row on one device, or a head size that the kernel's blocks do not divide."""
    if length % _BLOCKS[-1] or head_dim % _BLOCKS[-1]:
        raise InputError(
            f"config.model.attention='splash': the {length} tokens of a device and the head size {head_dim} must be "
            f"multiples of {_BLOCKS[-1]}; take 'xla'"
        )


def attend(query: Array, key: Array, value: Array, segment_ids: Array) -> Array:
    """Causal attention within segments; arguments as in `attention.attend`.

    Queries are spread over the mesh's sequence axis, and every device there sees all keys. Off TPU the kernel is
    interpreted: exact, and slow.

    Raises:
      InputError: a length or a head size that the kernel's blocks do not divide.
    """
    length, heads, head_dim = query.shape[1:]
    mesh = jax.sharding.get_abstract_mesh()
    shards = 1 if mesh.empty else mesh.shape["sequence"]
    check(length // shards, head_dim)
    query = query * head_dim**-0.5
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # [batch, heads, length, head_dim]
    if mesh.empty:
        kernel = _make_kernel(length, heads, 1, 1)
        out = jax.vmap(kernel)(query, key, value, library.SegmentIds(segment_ids, segment_ids))
        return out.swapaxes(1, 2)
    kernel = _make_kernel(length, heads, mesh.shape["tensor"], shards)
    return _spread(kernel, mesh, query, key, value, segment_ids).swapaxes(1, 2)


def _spread(kernel, mesh: AbstractMesh, query: Array, key: Array, value: Array, segment_ids: Array) -> Array:
    """The compiler cannot divide a kernel by itself: each device runs it on its part."""
    queries = partition_spec(("batch", "heads", "length", "head_dim"))
    keys = partition_spec(("batch", "kv_heads", None, "head_dim"))
    mask_spec = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec("tensor", "sequence")))
    segments = (partition_spec(("batch", "length")), partition_spec(("batch", None)))

    def run(kernel, query, key, value, query_segments, key_segments):
        return jax.vmap(kernel)(query, key, value, library.SegmentIds(query_segments, key_segments))

    spread = jax.shard_map(
        run, in_specs=(mask_spec, queries, keys, keys, *segments), out_specs=queries, check_vma=False
    )
    return spread(kernel, query, key, value, segment_ids, segment_ids)


def _make_kernel(length: int, heads: int, head_shards: int, query_shards: int):
    causal = library.CausalMask((length, length), shard_count=query_shards)
    block = next(size for size in _BLOCKS if length // query_shards % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    return library.make_splash_mha(
        library.MultiHeadMask([causal] * heads),
        block_sizes=library.BlockSizes(**{f"block_{name}": block for name in names}),
        head_shards=head_shards,
        q_seq_shards=query_shards,
        interpret=backend() != "tpu",
    )
