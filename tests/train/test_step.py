"""One training step is the same function on every mesh and with any number of micro-batches."""

import jax
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.train.rows import to_global
from dsmath.train.state import create_state, make_accumulate, make_apply, make_train_step
from dsmath.train.supervised import next_token_loss

STEPS, ROWS, LENGTH = 20, 8, 16


def _batch(step: int) -> dict[str, np.ndarray]:
    """A packed batch whose rows hold unequal numbers of learned tokens."""
    rng = np.random.default_rng(step)
    tokens = rng.integers(0, 64, (ROWS, LENGTH + 1)).astype(np.int32)
    cut = rng.integers(2, LENGTH - 1, (ROWS, 1))
    index = np.arange(LENGTH)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "positions": np.where(index < cut, index, index - cut).astype(np.int32),
        "segment_ids": np.where(index < cut, 1, 2).astype(np.int32),
        "loss_mask": (rng.random((ROWS, LENGTH)) < np.linspace(0.1, 1, ROWS)[:, None]).astype(np.float32),
    }


@pytest.fixture(scope="module")
def train(make_model_config):
    """(mesh shape, micro-batches) -> losses [steps] and the final parameters, on the host."""

    def train(shape: dict[str, int], num_microbatches: int = 1, steps: int = STEPS):
        mesh = make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])
        # Without clipping or normalising by moments an error of the gradient's scale would show.
        model, optimizer = Transformer(make_model_config()), optax.sgd(0.1, momentum=0.9)
        state = create_state(model, optimizer, mesh, seed=1)
        step = make_train_step(next_token_loss(model, logits_chunk=5), optimizer, mesh, num_microbatches)
        losses = []
        for index in range(steps):
            state, metrics = step(state, _batch(index))
            losses.append(float(metrics["loss"]))
        assert int(state.step) == steps
        return losses, jax.device_get(state.params)

    return train


@pytest.fixture(scope="module")
def one_device(train):
    return train({"data": 1})


@pytest.mark.parametrize(
    ("shape", "num_microbatches"),
    [
        ({"data": 8}, 1),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 1),
        ({"fsdp": 4, "tensor": 2}, 2),
        ({"fsdp": 2, "sequence": 2, "tensor": 2}, 1),
        ({"data": 1}, 4),
    ],
    ids=str,
)
def test_training_equals_one_device(train, one_device, shape, num_microbatches):
    losses, params = train(shape, num_microbatches)
    expected_losses, expected = one_device
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(leaf - wanted) <= 1e-5 * np.linalg.norm(wanted)


def _with_shares(model):
    """Next-token loss and, as an array, the shares of learned targets by their first bits."""
    loss_function = next_token_loss(model, logits_chunk=5)

    def with_shares(params, batch):
        loss, sums = loss_function(params, batch)
        kinds = jax.nn.one_hot(batch["targets"] // 16, 4) * batch["loss_mask"][..., None]
        return loss, sums | {"shares": kinds.sum(axis=(0, 1))}

    return with_shares


def test_micro_batches_of_any_shape_add_up_to_one_step(make_model_config):
    mesh = make_mesh({"fsdp": 2, "tensor": 2}, jax.devices()[:4])
    model, optimizer = Transformer(make_model_config()), optax.sgd(0.1, momentum=0.9)
    loss_function = _with_shares(model)
    step = make_train_step(loss_function, optimizer, mesh)
    accumulate, apply = make_accumulate(loss_function, mesh), make_apply(optimizer, mesh)
    expected, state = (create_state(model, optimizer, mesh, seed=1) for _ in range(2))
    for index in range(2):
        batch = _batch(index)
        expected, wanted = step(expected, batch)
        parts = [{name: x[rows] for name, x in batch.items()} for rows in (slice(0, 4), slice(4, 6), slice(6, 8))]
        totals, old = accumulate(state.params, parts), state
        state, metrics = apply(state, totals)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.params))
        assert metrics.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_allclose(metrics[name], wanted[name], rtol=1e-5, err_msg=name)
        assert metrics["shares"].sum() == pytest.approx(1)
    assert int(state.step) == 2
    for leaf, other, total in zip(*map(jax.tree.leaves, (state.params, expected.params, totals[0])), strict=True):
        assert np.linalg.norm(leaf - other) <= 1e-6 * np.linalg.norm(other)
        assert leaf.sharding.is_equivalent_to(total.sharding, leaf.ndim)


def test_micro_batches_compile_once_a_shape_and_add_up_in_place(make_model_config, caplog):
    mesh = make_mesh({"fsdp": 2, "tensor": 2}, jax.devices()[:4])
    model, optimizer = Transformer(make_model_config()), optax.sgd(0.1)
    accumulate, apply = make_accumulate(next_token_loss(model, logits_chunk=5), mesh), make_apply(optimizer, mesh)
    state, batch = create_state(model, optimizer, mesh, seed=1), _batch(0)
    parts = [{name: x[rows] for name, x in batch.items()} for rows in (slice(0, 4), slice(4, 6), slice(6, 8))]
    with jax.log_compiles():
        for parts_of_step in (parts, parts[1:], parts[:2]):
            state, _ = apply(state, accumulate(state.params, parts_of_step))
    for name, times in (("add", 2), ("update", 1)):
        assert sum(f"Compiling jit({name})" in message for message in caplog.messages) == times, name
    lowered = accumulate.lower(state.params, to_global(parts[0], mesh), state.params)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state.params))
    assert lowered.compile().memory_analysis().alias_size_in_bytes == held


def test_training_learns_what_repeats(make_model_config):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model, optimizer = Transformer(make_model_config(tied=False)), optax.adam(1e-2)
    state = create_state(model, optimizer, mesh, seed=1)
    step = make_train_step(next_token_loss(model, logits_chunk=5), optimizer, mesh)
    losses = []
    for _ in range(30):
        state, metrics = step(state, _batch(0))
        losses.append(float(metrics["loss"]))
    assert abs(losses[0] - np.log(64)) < 1  # new parameters know nothing
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_is_the_mean_over_learned_tokens_and_a_batch_without_any_changes_nothing(make_model_config):
    mesh = make_mesh({"data": 8})
    model, optimizer = Transformer(make_model_config()), optax.sgd(0.1)
    state = create_state(model, optimizer, mesh, seed=1)
    before = jax.device_get(state.params)
    step = make_train_step(next_token_loss(model, logits_chunk=5), optimizer, mesh)
    batch = _batch(0)

    state, metrics = step(state, batch | {"loss_mask": np.zeros_like(batch["loss_mask"])})
    assert float(metrics["loss"]) == 0
    assert float(metrics["grad_norm"]) == 0
    for leaf, wanted in zip(jax.tree.leaves(state.params), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(leaf, wanted)

    single = np.zeros_like(batch["loss_mask"])
    single[3, 7] = 1
    hidden, _ = jax.jit(model.apply)(before, *(batch[name] for name in ("tokens", "positions", "segment_ids")))
    logits = np.asarray(model.apply(before, hidden, method="logits"))[3, 7]
    _, metrics = step(state, batch | {"loss_mask": single})
    expected = np.log(np.exp(logits).sum()) - logits[batch["targets"][3, 7]]
    np.testing.assert_allclose(float(metrics["loss"]), expected, rtol=1e-5)


def test_the_seed_decides_the_parameters_and_the_mesh_does_not(make_model_config):
    model, optimizer = Transformer(make_model_config()), optax.sgd(0.1)
    one = create_state(model, optimizer, make_mesh({"data": 8}), seed=1)
    other_mesh = create_state(model, optimizer, make_mesh({"fsdp": 4, "tensor": 2}), seed=1)
    other_seed = create_state(model, optimizer, make_mesh({"data": 8}), seed=2)
    np.testing.assert_array_equal(one.params["params"]["embedding"], other_mesh.params["params"]["embedding"])
    assert np.abs(one.params["params"]["embedding"] - other_seed.params["params"]["embedding"]).max() > 0.1
    np.testing.assert_array_equal(one.rng, jax.random.key_data(jax.random.key(1)))
