"""A budget of memory decides how much is decoded at once."""

import jax
import jax.numpy as jnp
import pytest

from dsmath.model.generation import empty_cache
from dsmath.model.sharding import make_mesh
from dsmath.rollout.memory import fit, halvings, row_bytes, token_bytes
from dsmath.runs.errors import InputError

WORK = {
    "slots": 64,
    "cache_dtype": "float32",
    "block_steps": 8,
    "prefill_tokens": 256,
    "group_size": 16,
    "longest_prompt": 100,
    "max_new_tokens": 200,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_arithmetic_is_that_of_the_arrays(make_model_config, dtype):
    config = make_model_config()
    cache = empty_cache(config, 3, 4, 32, 16, jnp.dtype(dtype))
    taken = sum(leaf.nbytes for leaf in jax.tree.leaves(cache))
    assert taken == 3 * (32 + 4 * 16) * token_bytes(config, dtype)


def test_a_small_budget_lowers_the_rows_then_the_width(make_model_config):
    config, mesh = make_model_config(), make_mesh({}, jax.devices()[:1])
    plenty = fit(config, mesh, memory_gib=1.0, **WORK)
    assert (plenty.rows, plenty.width) == (16, 4)
    of_row = row_bytes(config, plenty) / 2**30
    assert fit(config, mesh, memory_gib=3.5 * of_row, **WORK).rows == 3
    narrow = fit(config, mesh, memory_gib=0.6 * of_row, **WORK)
    assert (narrow.rows, narrow.width) == (1, 2)
    with pytest.raises(InputError, match="memory_gib"):
        fit(config, mesh, memory_gib=0.01 * of_row, **WORK)


def test_the_budget_is_each_devices(make_model_config):
    config = make_model_config()
    one, eight = make_mesh({}, jax.devices()[:1]), make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    of_row = row_bytes(config, fit(config, one, memory_gib=1.0, **WORK)) / 2**30
    # Four devices share the rows, two the heads of each.
    assert fit(config, eight, memory_gib=of_row, **WORK | {"slots": 4096}).rows == 8


def test_buckets_halve_down_to_what_is_worth_a_program():
    assert halvings(1024, 32) == (256, 512, 1024)
    assert halvings(200, 8) == (104, 200)
    assert halvings(40, 8) == (40,)
    assert halvings(41, 8) == (48,)
