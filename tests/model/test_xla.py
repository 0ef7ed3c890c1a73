"""Attention by XLA's products against JAX's own, which keeps the scores and is differentiated by JAX."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.model import attention, xla
from dsmath.model.sharding import make_mesh


def _inputs(batch: int, length: int, heads: int, kv_heads: int, head_dim: int = 8, dtype=jnp.float32) -> tuple:
    """Query, key, value, and segments of uneven lengths with padding at the end."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(batch, length, number, head_dim) for number in (heads, kv_heads, kv_heads)]
    tensors = [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]
    ends = np.random.default_rng(0).integers(1, length, size=(batch, 3))
    segments = (np.arange(length) >= np.sort(ends)[:, :, None]).sum(axis=1) + 1
    return *tensors, jnp.asarray(np.where(segments == 4, 0, segments), jnp.int32)


def _reference(query, key, value, segment_ids):
    mask = attention.causal_mask(segment_ids)[:, None]
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="xla")


def _with_gradients(attend):
    """-> (output, gradients of a sum that weighs its numbers differently)"""

    def loss(query, key, value, segment_ids):
        out = attend(query, key, value, segment_ids)
        return (jnp.sin(jnp.arange(out.size)).reshape(out.shape) * out).sum(), out

    def run(*inputs):
        (_, out), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*inputs)
        return out, *gradients

    return jax.jit(run)


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("together", ["all", "some", "one"])
def test_values_and_gradients_are_those_of_jax(monkeypatch, heads, kv_heads, together):
    inputs = _inputs(3, 16, heads, kv_heads)
    of_head = 4 * (heads // kv_heads) * 16 * 16  # bytes of scores
    monkeypatch.setattr(xla, "_CACHED", {"all": 2**20, "some": 3 * of_head, "one": 1}[together])
    for got, expected in zip(_with_gradients(xla.attend)(*inputs), _with_gradients(_reference)(*inputs), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("shape", [{"data": 8}, {"sequence": 8}, {"fsdp": 2, "sequence": 2, "tensor": 2}])
@pytest.mark.parametrize("together", [2**20, 1])
def test_every_mesh_gives_what_one_device_gives(monkeypatch, shape, together):
    monkeypatch.setattr(xla, "_CACHED", together)
    inputs = _inputs(8, 16, 4, 2)
    expected = _with_gradients(_reference)(*inputs)
    with jax.set_mesh(make_mesh(shape)):
        got = _with_gradients(xla.attend)(*inputs)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("shape", [None, {"data": 2, "sequence": 2, "tensor": 2}])
@pytest.mark.parametrize("together", [2**20, 1])
def test_rows_look_at_the_tokens_of_their_prefix_and_hand_it_their_gradients(monkeypatch, shape, together):
    monkeypatch.setattr(xla, "_CACHED", together)
    questions, rows, length, prefix_length = 2, 3, 16, 7
    query, key, value, segments = _inputs(questions * rows, length, 4, 2)
    own = [x.reshape(questions, rows, *x.shape[1:]) for x in (query, key, value, segments)]
    prefix = [x[:questions, :prefix_length] for x in (value, key)]
    prefix_mask = jnp.arange(prefix_length) < jnp.asarray([[prefix_length], [3]])

    def loss(run, query, key, value, *prefix):
        out = run(query, key, value, own[3], prefix, prefix_mask)
        out = jnp.where((own[3] > 0)[..., None, None], out, 0)  # at padding it means nothing
        return (jnp.sin(jnp.arange(out.size)).reshape(out.shape) * out).sum(), out

    def reference(query, key, value, segments, prefix, prefix_mask):
        mask = jnp.broadcast_to(prefix_mask[:, None, None], (questions, rows, length, prefix_length))
        mask = jnp.concatenate([mask, attention.causal_mask(segments)], axis=-1)
        shared = [jnp.repeat(x[:, None], rows, axis=1) for x in prefix]
        keys, values = (jnp.concatenate(pair, axis=2) for pair in zip(shared, (key, value), strict=True))
        attend = functools.partial(jax.nn.dot_product_attention, implementation="xla")
        return jax.vmap(attend)(query, keys, values, mask=mask[:, :, None])

    def run(function):
        arguments = (*own[:3], *prefix)
        return jax.jit(jax.value_and_grad(functools.partial(loss, function), argnums=range(5), has_aux=True))(
            *arguments
        )

    (_, expected), gradients = run(reference)
    with contextlib.nullcontext() if shape is None else jax.set_mesh(make_mesh(shape)):
        (_, out), got = run(attention.attend_after_prefix)
    for ours, theirs in zip((out, *got), (expected, *gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-6)


def test_rows_and_tokens_that_the_devices_do_not_divide_are_whole_on_each():
    inputs = _inputs(3, 5, 2, 1)
    with jax.set_mesh(make_mesh({"data": 2, "sequence": 2, "tensor": 2})):
        got = _with_gradients(xla.attend)(*inputs)
    for ours, theirs in zip(got, _with_gradients(_reference)(*inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_bfloat16_is_as_near_to_float32_as_jax_is():
    exact = _with_gradients(_reference)(*_inputs(2, 64, 4, 2, head_dim=32))
    inputs = _inputs(2, 64, 4, 2, head_dim=32)
    rounded = (*(x.astype(jnp.bfloat16) for x in inputs[:3]), inputs[3])
    for ours, theirs, right in zip(
        _with_gradients(xla.attend)(*rounded), _with_gradients(_reference)(*rounded), exact, strict=True
    ):
        assert ours.dtype == jnp.bfloat16
        assert jnp.abs(ours - right).mean() < 1.2 * jnp.abs(theirs - right).mean()


def test_the_backward_pass_keeps_no_scores():
    query, key, value, segments = _inputs(2, 128, 4, 2)
    _, pullback = jax.vjp(lambda *x: xla.attend(*x, segments), query, key, value)
    assert max(leaf.size for leaf in jax.tree.leaves(pullback)) <= query.size
