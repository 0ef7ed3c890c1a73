"""Attention by XLA's own matrix products, on every device: the scores are not kept for the backward pass."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from dsmath.model.backend import backend
from dsmath.model.sharding import fitting_spec

KEPT = "attended"  # the name, for policies of rematerialization, of what spares the forward pass a second time
EVERY = -1  # the segment of a key that all queries of its row may look at
_CACHED = 2**20  # bytes of scores that a CPU takes at a time: they stay in a core's cache
_HELD = 2**30  # bytes of scores that another device takes at a time: they stand in its memory
_QUERIES, _KEYS = ("batch", "kv_heads", None, "length"), ("batch", "kv_heads", None)


@jax.custom_vjp
def attend(query: Array, key: Array, value: Array, segment_ids: Array, key_segments: Array | None = None) -> Array:
    """Causal attention within segments, softmax in float32; arguments as in `attention.attend`.

    Queries are spread over the mesh's sequence axis, and every device there sees all keys. Heads are taken few at a
    time, as many as a CPU's cache or another device's memory has room for. The backward pass forms the scores again,
    from the logarithm of their sum. Source: Dao et al. 2022, algorithm 4, with blocks as long as a row.

    Args:
      query, key, value, segment_ids: there may be more keys than queries, whose own are then the last.
      key_segments: int32 [batch, keys], of `EVERY` or a segment; None: the queries'.
    """
    return _forward(query, key, value, segment_ids, key_segments)[0]


def _forward(
    query: Array, key: Array, value: Array, segment_ids: Array, key_segments: Array | None
) -> tuple[Array, tuple[Array, ...]]:
    query, key, value = _by_head(query, key.shape[2]), key.swapaxes(1, 2), value.swapaxes(1, 2)
    segments = segment_ids, segment_ids if key_segments is None else key_segments
    out, log_sum = _on_devices(_attend_head, (_QUERIES, _QUERIES))(query, key, value, *segments)
    out, log_sum = checkpoint_name(out, KEPT), checkpoint_name(log_sum, KEPT)
    return _by_token(out), (query, key, value, *segments, out, log_sum)


def _backward(kept: tuple[Array, ...], cotangent: Array) -> tuple[Array, Array, Array, None, None]:
    query, key, value, segment_ids, key_segments, out, log_sum = kept
    cotangent = _by_head(cotangent, key.shape[1])
    run = _on_devices(_differentiate_head, (_QUERIES, _KEYS, _KEYS))
    to_query, to_key, to_value = run(query, key, value, segment_ids, key_segments, out, log_sum, cotangent)
    return _by_token(to_query), to_key.swapaxes(1, 2), to_value.swapaxes(1, 2), None, None


attend.defvjp(_forward, _backward)


def _by_head(x: Array, kv_heads: int) -> Array:
    """[batch, length, heads, head_dim] -> [batch, kv_heads, group, length, head_dim]: who shares keys is together."""
    batch, length, heads, head_dim = x.shape
    return x.reshape(batch, length, kv_heads, heads // kv_heads, head_dim).transpose(0, 2, 3, 1, 4)


def _by_token(x: Array) -> Array:
    """The way back."""
    batch, kv_heads, group, length, head_dim = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, length, kv_heads * group, head_dim)


def bytes_at_once() -> int:
    """Bytes of scores that a device takes at a time, or those of one head where they are more."""
    return _CACHED if backend() == "cpu" else _HELD


# ------------------------------------------------------------------------------------------------ one head of one row
def _attend_head(query: Array, key: Array, value: Array, seen: Array) -> tuple[Array, Array]:
    """What the queries that share a head's keys get, and the logarithm of their scores' sum.

    Args:
      query: [group, queries, head_dim].
      key, value: [keys, head_dim].
      seen: bool [queries, keys], one key of each query at least.
    Returns:
      [group, queries, head_dim] and float32 [group, queries, 1].
    """
    scores = _scores(query, key, seen)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    out = _product("gqk,kd->gqd", weights.astype(value.dtype), value) / total
    return out.astype(query.dtype), highest + jnp.log(total)


def _differentiate_head(
    query: Array, key: Array, value: Array, seen: Array, out: Array, log_sum: Array, cotangent: Array
) -> tuple[Array, Array, Array]:
    """The gradients of query, key and value."""
    weights = jnp.exp(_scores(query, key, seen) - log_sum)
    to_weights = _product("gqd,kd->gqk", cotangent, value)
    expected = (cotangent.astype(jnp.float32) * out).sum(axis=-1, keepdims=True)
    to_scores = (weights * (to_weights - expected) * query.shape[-1] ** -0.5).astype(query.dtype)
    to_query = _product("gqk,kd->gqd", to_scores, key)
    to_key = _product("gqk,gqd->kd", to_scores, query)
    to_value = _product("gqk,gqd->kd", weights.astype(value.dtype), cotangent)
    return to_query.astype(query.dtype), to_key.astype(key.dtype), to_value.astype(value.dtype)


def _scores(query: Array, key: Array, seen: Array) -> Array:
    scores = _product("gqd,kd->gqk", query, key) * query.shape[-1] ** -0.5
    return jnp.where(seen, scores, jnp.finfo(jnp.float32).min)


def _product(axes: str, x: Array, y: Array) -> Array:
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)


# ------------------------------------------------------------------------------------------------ all heads of all rows
def _on_devices(head: Callable, outputs: tuple[tuple, ...]) -> Callable:
    """(query, key, value, their segments, others of the queries' layout) -> the head function's results, for all heads.

    Left to itself, the compiler would gather rows that a loop goes through.

    Args:
      head: of one head of one row.
      outputs: `_QUERIES` or `_KEYS`, the layout of each result; what is of keys is a sum over queries.
    """

    def run(
        query: Array, key: Array, value: Array, segment_ids: Array, key_segments: Array, *others: Array
    ) -> tuple[Array, ...]:
        first = key_segments.shape[1] - segment_ids.shape[1]  # a query's own key stands so much later than itself
        places = jnp.broadcast_to(first + jnp.arange(segment_ids.shape[1], dtype=jnp.int32), segment_ids.shape)
        arrays = (query, key, value, segment_ids, places, key_segments, *others)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return _each_head(head, *arrays)
        # Whole where the devices do not divide it: a model is initialized with one short row.
        queries, keys = (fitting_spec(axes, query.shape, mesh) for axes in (_QUERIES, _KEYS))
        tokens = PartitionSpec(queries[0], queries[3])
        is_split = queries[3] is not None and mesh.shape[queries[3]] > 1

        def on_device(*arrays: Array) -> tuple[Array, ...]:
            results = _each_head(head, *arrays)
            add_up = lambda x: jax.lax.psum(x, queries[3]) if is_split else x  # noqa: E731
            return tuple(add_up(x) if axes is _KEYS else x for x, axes in zip(results, outputs, strict=True))

        inputs = (queries, keys, keys, tokens, tokens, PartitionSpec(queries[0]), *(queries for _ in others))
        specs = tuple(keys if axes is _KEYS else queries for axes in outputs)
        return jax.shard_map(on_device, in_specs=inputs, out_specs=specs, check_vma=False)(*arrays)

    return run


def _each_head(
    head: Callable,
    query: Array,
    key: Array,
    value: Array,
    segments: Array,
    places: Array,
    key_segments: Array,
    *others: Array,
) -> tuple[Array, ...]:
    """The head function's results for all heads of a device's rows, each [batch, kv_heads, …]."""
    rows, kv_heads, group, queries = query.shape[:4]

    def run(
        query: Array, key: Array, value: Array, segments: Array, places: Array, key_segments: Array, *others: Array
    ):
        before = places[:, None] >= jnp.arange(len(key), dtype=jnp.int32)
        # Padding looks at padding: a query without any key would give NaN.
        is_own = (segments[:, None] == key_segments) | (key_segments == EVERY)
        return head(query, key, value, before & is_own, *others)

    of_heads = [jnp.repeat(x, kv_heads, axis=0) for x in (segments, places, key_segments)]
    query, key, value, *others = (x.reshape(rows * kv_heads, *x.shape[2:]) for x in (query, key, value, *others))
    arrays = (query, key, value, *of_heads, *others)
    most = max(1, bytes_at_once() // (4 * group * queries * key.shape[1]))
    if most >= len(query):
        results = jax.vmap(run)(*arrays)
    else:
        together = next(size for size in range(most, 0, -1) if len(query) % size == 0)
        results = jax.lax.map(lambda x: run(*x), arrays, batch_size=together)
    return tuple(x.reshape(rows, kv_heads, *x.shape[1:]) for x in results)
