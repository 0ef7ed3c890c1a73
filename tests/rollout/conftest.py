"""A tiny model, engines around it, and a codec of one letter a token."""

import functools

import jax
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.train.state import abstract_params, create_state

PAD = 0
ONE = (("data", 1),)


class Letters:
    """Every token is a letter."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 40 for letter in text]

    def decode(self, ids) -> str:
        return "".join(chr(int(token) + 40) for token in ids)


@pytest.fixture(scope="session")
def letters():
    return Letters()


@functools.cache
def mesh_of(shape: tuple[tuple[str, int], ...]):
    shape = dict(shape)
    return make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])


@pytest.fixture(scope="session")
def model(make_model_config):
    return Transformer(make_model_config())


@pytest.fixture(scope="session")
def params(model):
    """Parameters whose distributions are flat enough to draw many different tokens."""
    params = jax.device_get(create_state(model, optax.identity(), mesh_of(ONE), seed=3).params)
    params["params"]["final_norm"]["scale"] = params["params"]["final_norm"]["scale"] * 0.3
    return params


@pytest.fixture(scope="session")
def engine_of(model, params):
    """(mesh, changes of the limits) -> an engine, made once, and the parameters as training shards them."""
    from dsmath.rollout.engine import Engine
    from dsmath.rollout.requests import Limits

    limits = {
        "rows": 10,
        "width": 3,
        "prompt_buckets": (16, 32),
        "new_buckets": (12,),
        "block_steps": 4,
        "prefill_tokens": 64,
        "max_stop_ids": 2,
        "cache_dtype": "float32",
    }

    @functools.cache
    def build(mesh, **changes):
        mesh = mesh_of(mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(model, mesh))
        engine = Engine(model, mesh, Limits(**(limits | changes)), pad_id=PAD, codec=Letters())
        return engine, jax.device_put(params, shardings)

    return lambda mesh=ONE, **changes: build(mesh, **changes)  # the cache tells a default from the same value given
