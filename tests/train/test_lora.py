"""Adapters: they start as nothing, learn alone, and merge into plain weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.runs.errors import InputError
from dsmath.train import lora
from dsmath.train.state import create_state, make_accumulate, make_apply
from dsmath.train.supervised import next_token_loss

RANK = 2


@pytest.fixture(scope="module")
def trained(make_model_config):
    """(model, base, adapters before, adapters after, losses) of a few steps on a mesh."""
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    model, optimizer = Transformer(make_model_config()), optax.adam(1e-2)
    base = create_state(model, optax.identity(), mesh, seed=0).params
    state = create_state(model, optimizer, mesh, seed=1, lora_rank=RANK)
    before = jax.device_get(state.params)
    accumulate = make_accumulate(next_token_loss(model, logits_chunk=8), mesh, frozen=base)
    apply, losses = make_apply(optimizer, mesh), []
    for _ in range(12):
        halves = [{name: x[half] for name, x in _batch().items()} for half in (slice(0, 4), slice(4, 8))]
        state, metrics = apply(state, accumulate(state.params, halves))
        losses.append(float(metrics["loss"]))
    return model, jax.device_get(base), before, jax.device_get(state.params), losses


def _batch():
    rows = np.random.default_rng(0).integers(0, 64, (8, 17)).astype(np.int32)
    return {
        "tokens": rows[:, :-1],
        "targets": rows[:, 1:],
        "positions": np.broadcast_to(np.arange(16, dtype=np.int32), (8, 16)),
        "segment_ids": np.ones((8, 16), np.int32),
        "loss_mask": np.ones((8, 16), np.float32),
    }


def _logits(model, params):
    batch = _batch()
    hidden, _ = model.apply(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    return np.asarray(model.apply(params, hidden, method="logits"))


def test_new_adapters_change_nothing(trained):
    model, base, before, _, _ = trained
    np.testing.assert_array_equal(_logits(model, lora.join(base, before)), _logits(model, base))


def test_adapters_learn_and_merge_into_weights_that_compute_the_same(trained):
    model, base, _, after, losses = trained
    assert losses[-1] < losses[0] - 0.05
    adapted = _logits(model, lora.join(base, after))
    assert np.abs(adapted - _logits(model, base)).max() > 0.01
    merged = lora.merge(base, after)
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    np.testing.assert_allclose(_logits(model, merged), adapted, atol=1e-4)


def test_every_matrix_of_the_layers_has_adapters_and_nothing_else(trained):
    _, base, before, _, _ = trained
    blocks = before["params"]["blocks"]
    assert before["params"].keys() == {"blocks"}
    for part, names in {"attention": "q k v out", "mlp": "gate up down"}.items():
        assert blocks[part].keys() == {f"{name}_lora_{side}" for name in names.split() for side in "ab"}
    for part, name in (("attention", "q"), ("attention", "out"), ("mlp", "down")):
        down, up = (blocks[part][f"{name}_lora_{side}"] for side in "ab")
        assert down.shape[:-1] + up.shape[2:] == base["params"]["blocks"][part][name].shape
        assert down.shape[-1] == up.shape[1] == RANK


def test_gradients_of_adapters_are_those_of_the_merged_weights(trained):
    model, base, _, after, _ = trained

    def loss(params):
        return next_token_loss(model, logits_chunk=16)(params, _batch())[0]

    direct = jax.grad(lambda adapters: loss(lora.join(base, adapters)))(after)
    merged = jax.grad(lambda adapters: loss(lora.merge(base, adapters)))(after)
    for one, other in zip(jax.tree.leaves(direct), jax.tree.leaves(merged), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * float(jnp.abs(other).max()))


def test_a_rank_below_one_is_refused(make_model_config):
    with pytest.raises(InputError, match=r"config\.lora\.rank: 0"):
        lora.init_adapters(Transformer(make_model_config()), 0, jax.random.key(0))
