"""The splash kernel, interpreted, against plain attention: packed segments, grouped heads, any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.model.attention import attend
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer, init_params
from dsmath.runs.errors import InputError

KINDS = ("xla", "splash")
BATCH, LENGTH, HEADS, KV_HEADS, SIZE = 2, 256, 2, 2, 128


@pytest.fixture(scope="module")
def arrays():
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(BATCH, LENGTH, HEADS, SIZE), (BATCH, LENGTH, KV_HEADS, SIZE), (BATCH, LENGTH, KV_HEADS, SIZE)]
    query, key, value = (jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))
    segments = np.ones((BATCH, LENGTH), np.int32)
    segments[0, 100:], segments[1, 240:] = 2, 0
    return query, key, value, segments


def _loss(implementation, segments):
    real = jnp.asarray(segments > 0)[..., None, None]
    return lambda *x: jnp.square(jnp.where(real, attend(*x, segments, implementation), 0.0)).sum()


@pytest.mark.parametrize("shape", [None, {"data": 2, "sequence": 2, "tensor": 2}], ids=str)
def test_splash_equals_plain_attention_and_its_gradients(arrays, shape):
    *tensors, segments = arrays
    gradient = lambda implementation: jax.value_and_grad(_loss(implementation, segments), argnums=(0, 1, 2))  # noqa: E731
    expected = jax.jit(gradient("xla"))(*tensors)
    if shape is None:
        got = jax.jit(gradient("splash"))(*tensors)
    else:
        with jax.set_mesh(make_mesh(shape)):
            got = jax.jit(gradient("splash"))(*tensors)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-3)


def test_a_length_that_the_kernel_cannot_divide_is_refused(arrays):
    query, key, value, segments = (x[:, :100] for x in arrays)
    with pytest.raises(InputError, match=r"config\.model\.attention='splash': the 100 tokens of a device"):
        attend(query, key, value, segments, "splash")


def test_parameters_of_a_model_with_splash_can_be_made(make_model_config):
    plain, splash = (init_params(Transformer(make_model_config(attention=kind)), jax.random.key(0)) for kind in KINDS)
    jax.tree.map(np.testing.assert_array_equal, splash, plain)
