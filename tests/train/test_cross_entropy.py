"""The chunked cross-entropy against the plain one: loss, gradients, memory, on any mesh."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.train.cross_entropy import chunked_cross_entropy
from dsmath.train.losses import token_logprobs

BATCH, LENGTH, WIDTH, VOCAB = 4, 12, 8, 16


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    output = rng.normal(size=(WIDTH, VOCAB)).astype(np.float32)
    targets = rng.integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    mask = (rng.random((BATCH, LENGTH)) < 0.7).astype(np.float32)
    return hidden, output, targets, mask


def _plain(hidden, output, targets, mask):
    return -(token_logprobs((hidden @ output).astype(jnp.float32), targets) * mask).sum()


def _chunked(chunk):
    return lambda *arrays: 0.5 * chunked_cross_entropy(*arrays, chunk)


def _assert_same(got, expected, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(2 * np.asarray(one, np.float32), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk", [1, 5, 12, 100])
def test_loss_and_gradients_are_those_of_the_plain_loss(arrays, chunk):
    expected = jax.value_and_grad(_plain, argnums=(0, 1))(*arrays)
    _assert_same(jax.jit(jax.value_and_grad(_chunked(chunk), argnums=(0, 1)))(*arrays), expected)
    _assert_same(_chunked(chunk)(*arrays), expected[0])  # without gradients too


@pytest.mark.parametrize(
    "shape",
    [{"data": 8}, {"fsdp": 4, "tensor": 2}, {"data": 2, "sequence": 2, "tensor": 2}, {"fsdp": 2, "sequence": 4}],
    ids=str,
)
def test_every_mesh_gives_the_same(arrays, shape):
    hidden, output, targets, mask = (np.concatenate([x, x]) if x.shape[0] == BATCH else x for x in arrays)
    expected = jax.value_and_grad(_plain, argnums=(0, 1))(hidden, output, targets, mask)
    with jax.set_mesh(make_mesh(shape)):
        got = jax.jit(jax.value_and_grad(_chunked(2), argnums=(0, 1)))(hidden, output, targets, mask)
    _assert_same(got, expected)


@pytest.mark.parametrize("shape", [None, {"fsdp": 2, "sequence": 2, "tensor": 2}], ids=str)
def test_bfloat16_hidden_states_keep_a_float32_loss_and_gradient_of_the_matrix(arrays, shape):
    hidden, *rest = arrays
    gradient = jax.jit(jax.value_and_grad(_chunked(5), argnums=(0, 1)))
    with jax.set_mesh(make_mesh(shape)) if shape else contextlib.nullcontext():
        loss, (to_hidden, to_output) = gradient(hidden.astype(jnp.bfloat16), *rest)
    assert (loss.dtype, to_hidden.dtype, to_output.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    _assert_same(loss, _plain(*arrays), tolerance=0.02)


def test_the_logits_of_all_tokens_never_stand_in_memory():
    tokens, vocab = 64, 4096
    shapes = [(2, tokens, WIDTH), (WIDTH, vocab), (2, tokens), (2, tokens)]
    arrays = [jax.ShapeDtypeStruct(s, t) for s, t in zip(shapes, ("f4", "f4", "i4", "f4"), strict=True)]
    logits = 2 * tokens * vocab * 4

    def temporary_bytes(function) -> int:
        gradient = jax.jit(jax.grad(function, argnums=(0, 1)))
        return gradient.lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(_plain) > logits
    assert temporary_bytes(_chunked(4)) < logits / 2


def test_tokens_that_are_not_learned_change_nothing(arrays):
    hidden, output, targets, mask = arrays
    changed = np.where(mask[..., None] > 0, hidden, 7.0).astype(np.float32)
    function = jax.jit(_chunked(5))
    np.testing.assert_allclose(function(changed, output, targets, mask), function(hidden, output, targets, mask))
