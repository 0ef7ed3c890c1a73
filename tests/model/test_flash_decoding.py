"""The decoding kernel, interpreted off NVIDIA, against plain attention over a prefix and a sample's own tokens."""

import contextlib
import dataclasses

import jax
import numpy as np
import optax
import pytest

from dsmath.model import attention, flash_decoding
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Limits
from dsmath.train.state import create_state

QUESTIONS, GROUP, PREFIX, ROOM, SIZE = 2, 2, 32, 48, 16


def _arrays(heads: int, kv_heads: int, dtype: str):
    keys = iter(jax.random.split(jax.random.key(0), 5))
    query = jax.random.normal(next(keys), (QUESTIONS, GROUP, 1, heads, SIZE))
    shapes = [(QUESTIONS, PREFIX), (QUESTIONS, GROUP, ROOM), (QUESTIONS, GROUP, 1)]
    stored = [
        attention.store(
            *(jax.random.normal(key, (*shape, kv_heads, SIZE)) for key in jax.random.split(next(keys))), dtype
        )
        for shape in shapes
    ]
    prefix, past, new = stored
    return query, prefix, np.array([0, 21], np.int32), past, new, np.array([[0, 47], [16, 32]], np.int32)


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2)])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("shape", [None, {"fsdp": 2, "tensor": 2}], ids=str)
def test_the_kernel_equals_plain_attention(heads, kv_heads, dtype, shape):
    query, prefix, prefix_lengths, past, new, lengths = _arrays(heads, kv_heads, dtype)
    own = attention.write(past, new, lengths)
    masks = np.arange(PREFIX) < prefix_lengths[:, None], np.arange(ROOM) <= lengths[..., None, None]
    expected = attention.attend_with_prefix(query, prefix, masks[0], own, masks[1])
    run = jax.jit(flash_decoding.attend)
    with contextlib.nullcontext() if shape is None else jax.set_mesh(make_mesh(shape, jax.devices()[:4])):
        got, stored = run(query, prefix, prefix_lengths, past, new, lengths)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, stored, own)


def test_a_sample_without_room_changes_nothing_of_what_is_stored():
    query, prefix, prefix_lengths, past, new, lengths = _arrays(2, 2, "float32")
    _, stored = jax.jit(flash_decoding.attend)(
        query, prefix, prefix_lengths, past, new, np.full_like(lengths, ROOM + 1)
    )
    jax.tree.map(np.testing.assert_array_equal, stored, past)


@pytest.mark.slow
def test_an_engine_with_the_kernel_gives_the_logprobs_of_one_without(make_model_config):
    config = make_model_config(head_dim=16, dtype="bfloat16")
    mesh = make_mesh({}, jax.devices()[:1])
    params = create_state(Transformer(config), optax.identity(), mesh, seed=0).params
    limits = Limits(
        rows=2,
        width=2,
        prompt_buckets=(16, 32),
        new_buckets=(16, 32),
        block_steps=4,
        prefill_tokens=64,
        max_stop_ids=1,
        cache_dtype="bfloat16",
    )
    prompts, decoding = [[1, 2, 3], [4] * 20], Decoding(temperature=0, top_p=1, max_new_tokens=20)
    found = {}
    for kind in ("xla", "cudnn"):
        engine = Engine(Transformer(dataclasses.replace(config, attention=kind)), mesh, limits, pad_id=0)
        key = jax.random.key(0)
        found[kind] = engine.sample(params, prompts, [1, 2], key, decoding=decoding, group_size=2, stop_ids=())
    assert engine.programs.count_compiled() == 5  # reshard, create, a fill a bucket, one program for every length
    np.testing.assert_array_equal(found["cudnn"].tokens[:, :, 0], found["xla"].tokens[:, :, 0])
    np.testing.assert_allclose(found["cudnn"].logprobs[:, :, 0], found["xla"].logprobs[:, :, 0], atol=0.05)
