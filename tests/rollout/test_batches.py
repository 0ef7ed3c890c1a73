"""Packed groups and micro-batches: the numbers of plain forward passes over prompt and completion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsmath.model.heads import ScalarHead
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.batches import (
    PACKED,
    check_microbatch,
    completion_logprobs,
    completion_values,
    make_batch,
    merge,
    row_shape,
    size_of,
    split,
)
from dsmath.rollout.samples import Samples
from dsmath.runs.errors import InputError
from dsmath.train.losses import entropy, token_logprobs
from dsmath.train.state import abstract_params, create_state, make_accumulate

PAD, LONGEST = 0, 40
PROMPTS = [[5, 6, 7], [9], list(range(20, 36)), [8, 8], [11, 12, 13, 14, 15]]
LENGTHS = np.array(
    [
        [30, 40, 0, 12, 9, 1],
        [1, 1, 2, 1, 1, 1],
        [40, 40, 40, 39, 40, 40],
        [0, 0, 0, 0, 0, 0],
        [25, 23, 33, 40, 3, 40],
    ],
    np.int32,
)


def _samples(lengths: np.ndarray, width: int = LONGEST, seed: int = 0) -> Samples:
    """Samples of these lengths; a tool spoke a fifth of their tokens."""
    rng = np.random.default_rng(seed)
    there = np.arange(width) < lengths[..., None]
    tokens = np.where(there, rng.integers(1, 64, there.shape), PAD).astype(np.int32)
    mask = (there & (rng.random(there.shape) < 0.8)).astype(np.float32)
    return Samples(tokens, np.zeros(there.shape, np.float32), mask, lengths, lengths == width)


@pytest.fixture(scope="module")
def model(make_model_config):
    return Transformer(make_model_config(tied=False))


@pytest.fixture(scope="module")
def params(model):
    """Of the decoder, and of a head that is not zero."""
    params = create_state(model, optax.identity(), make_mesh({"data": 1}, jax.devices()[:1]), seed=0).params
    head = {"weight": jax.random.normal(jax.random.key(1), (model.config.width,))}
    return jax.device_get({"params": {**params["params"], "head": head}})


@pytest.fixture(scope="module")
def batch():
    """Five groups with an empty completion, full ones, and one of nothing but empty ones."""
    batch = make_batch(PROMPTS, _samples(LENGTHS), PAD)
    rng = np.random.default_rng(1)
    batch["advantages"] = rng.normal(size=LENGTHS.shape).astype(np.float32)
    batch["ref_logprobs"] = rng.normal(size=batch["mask"].shape).astype(np.float32)
    return batch


def _plain(model, params, batch) -> dict[str, jax.Array]:
    """Log-probabilities, entropies and values [questions, group, length] with each completion in a row of its own."""
    questions, group, length = batch["completions"].shape
    starts = np.repeat(batch["prompt_lengths"], group)
    rows = np.zeros((questions * group, batch["prompts"].shape[1] + length), np.int32)
    for row, (start, completion) in enumerate(zip(starts, batch["completions"].reshape(-1, length), strict=True)):
        rows[row, :start] = batch["prompts"][row // group, :start]
        rows[row, start : start + length] = completion
    positions = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    hidden, _ = model.apply(params, rows, positions, np.ones_like(rows))
    places = starts[:, None] + np.arange(length)
    before = jnp.take_along_axis(hidden, places[..., None] - 1, axis=1)
    logits = model.apply(params, before, method="logits")
    score = functools.partial(ScalarHead().apply, {"params": params["params"]["head"]})
    found = {
        "logprobs": token_logprobs(logits, np.take_along_axis(rows, places, axis=1)),
        "entropies": entropy(logits),
        "before": score(before),
        "token": score(jnp.take_along_axis(hidden, places[..., None], axis=1)),
    }
    there = np.arange(length) < batch["lengths"][..., None]
    return {name: jnp.where(there, x.reshape(there.shape), 0.0) for name, x in found.items()}


def _packed(model, params, batch, chunk: int) -> dict[str, jax.Array]:
    logprobs, entropies = completion_logprobs(model, params, batch, chunk)
    values = {at: completion_values(model, params, batch, at) for at in ("before", "token")}
    return {"logprobs": logprobs, "entropies": entropies, **values}


@pytest.fixture(scope="module")
def plain(model, params, batch):
    """What plain passes give, and the gradient of a weighted sum of it."""
    return _with_gradient(_plain, model, params, batch)


def _with_gradient(compute, model, params, batch, *arguments):
    def total(params):
        found = compute(model, params, batch, *arguments)
        weights = jax.random.normal(jax.random.key(2), batch["mask"].shape) * batch["mask"]
        return sum((weights * x).sum() for x in found.values()), found

    return jax.device_get(jax.jit(jax.grad(total, has_aux=True))(params))


@pytest.mark.parametrize("logits_chunk", [50, pytest.param(160, marks=pytest.mark.slow)])
def test_packed_completions_have_the_numbers_and_gradients_of_plain_passes(model, params, batch, plain, logits_chunk):
    assert batch["rows"].shape == (5, 2, 160)
    assert 0 < batch["mask"].sum() < LENGTHS.sum()
    gradient, found = _with_gradient(_packed, model, params, batch, logits_chunk)
    assert plain[1].keys() == found.keys()
    for name, expected in plain[1].items():
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)
        assert np.abs(expected[LENGTHS > 0][:, 0]).min() > 0, name
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(plain[0]), strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


def test_rows_hold_every_completion_once_and_little_else():
    lengths = np.random.default_rng(3).integers(0, 41, (6, 16)).astype(np.int32)
    samples = _samples(lengths)
    batch = make_batch([[4]] * 6, samples, PAD)
    assert batch["rows"].shape[2] == 160
    rows = batch["rows"].reshape(6, -1)
    for question, sample in np.ndindex(lengths.shape):
        length = lengths[question, sample]
        places = batch["places"][question, sample, :length]
        np.testing.assert_array_equal(rows[question, places], samples.tokens[question, sample, :length])
        np.testing.assert_array_equal(batch["offsets"].reshape(6, -1)[question, places], np.arange(length))
        assert len(np.unique(batch["segments"].reshape(6, -1)[question, places])) <= 1
        assert len(np.unique(places // 160)) <= 1
    assert (batch["segments"] > 0).sum() == lengths.sum()
    needed = (batch["segments"] > 0).any(axis=2).sum(axis=1)
    assert (needed == np.ceil(lengths.sum(axis=1) / 160)).all()
    again = make_batch([[4]] * 6, samples, PAD)
    assert all((again[name] == batch[name]).all() for name in batch)


def test_empty_completions_take_no_room():
    batch = make_batch([[4], [4]], _samples(np.zeros((2, 8), np.int32)), PAD)
    assert batch["rows"].shape == (2, 1, 160)
    assert not batch["segments"].any()


@pytest.mark.parametrize(
    ("group", "longest", "shape"), [(16, 40, (4, 160)), (4, 8, (1, 32)), (64, 1024, (64, 1024)), (5, 60, (2, 180))]
)
def test_full_completions_take_the_most_rows(group, longest, shape):
    assert row_shape(group, longest) == shape
    batch = make_batch([[4]], _samples(np.full((1, group), longest, np.int32), longest), PAD)
    assert batch["rows"].shape == (1, *shape)


def test_sizes_are_few():
    assert [size_of(count) for count in (1, 2, 3, 4, 5, 6, 7, 9, 13, 48, 49)] == [1, 2, 3, 4, 6, 6, 8, 12, 16, 48, 64]
    assert len({size_of(count) for count in range(1, 1025)}) == 20


def _loss(model):
    """(params, batch) -> a loss of log-probabilities and entropies, and a histogram."""

    def loss_function(params, batch):
        logprobs, entropies = completion_logprobs(model, params, batch, 50)
        terms = logprobs * batch["advantages"][..., None] + entropies * batch["ref_logprobs"]
        counts = jnp.histogram(logprobs, bins=4, range=(-20, 0), weights=batch["mask"])[0]
        return (terms * batch["mask"]).sum(), {"denominator": batch["mask"].sum(), "counts": counts}

    return loss_function


@pytest.fixture(scope="module")
def accumulated(model, batch, params):
    """(mesh shape, max_tokens) -> gradients and sums of all micro-batches, and how many there were."""

    @functools.cache
    def prepare(shape):
        mesh = make_mesh(dict(shape), jax.devices()[: int(np.prod([size for _, size in shape]))])
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(model, mesh))
        decoder = {name: leaf for name, leaf in params["params"].items() if name != "head"}
        return mesh, jax.device_put({"params": decoder}, shardings), make_accumulate(_loss(model), mesh)

    @functools.cache
    def accumulate(shape, max_tokens):
        mesh, placed, add = prepare(shape)
        parts = split(batch, max_tokens, mesh.shape["data"] * mesh.shape["fsdp"])
        totals = add(placed, parts)
        for total, leaf in zip(*map(jax.tree.leaves, (totals[0], placed)), strict=True):
            assert total.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
        return jax.device_get(totals), len(parts)

    return lambda shape, max_tokens: accumulate(tuple(shape.items()), max_tokens)


@pytest.mark.parametrize(
    ("max_tokens", "count"),
    [pytest.param(336, 5, marks=pytest.mark.slow), pytest.param(600, 3, marks=pytest.mark.slow), (1200, 2)],
)
def test_any_split_gives_the_loss_and_the_gradients_of_the_whole(accumulated, max_tokens, count):
    _compare(accumulated, {"data": 1}, max_tokens, count, 1e-6)


@pytest.mark.parametrize(
    ("shape", "max_tokens", "count"),
    [
        ({"data": 2, "fsdp": 2, "tensor": 2}, 0, 1),
        ({"fsdp": 2, "sequence": 2, "tensor": 2}, 700, 2),
        pytest.param({"sequence": 4, "tensor": 2}, 0, 1, marks=pytest.mark.slow),
        pytest.param({"data": 8}, 0, 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_any_mesh_gives_the_gradients_of_one_device(accumulated, shape, max_tokens, count):
    _compare(accumulated, shape, max_tokens, count, 1e-5)


def _compare(accumulated, shape, max_tokens, count, bound):
    (expected, sums), _ = accumulated({"data": 1}, 0)
    (gradients, found), parts = accumulated(shape, max_tokens)
    assert parts == count
    for name in sums:
        np.testing.assert_allclose(found[name], sums[name], rtol=1e-5, err_msg=name)
    assert sums["counts"].sum() == sums["denominator"]
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) <= bound * np.linalg.norm(other)


def test_micro_batches_hold_whole_groups_within_the_limit_and_go_back_into_order(model, params, batch):
    parts = split(batch, 600, 1)
    assert [part["rows"].shape[:2] for part in parts] == [(1, 2), (1, 2), (3, 1)]
    for part in parts:
        questions, rows, _ = part["rows"].shape
        assert questions * (rows * 160 + part["prompts"].shape[1]) <= 600
        for name, array in part.items():
            for place, group in enumerate(part["groups"]):
                if name != "groups" and group >= 0:
                    np.testing.assert_array_equal(
                        array[place], batch[name][group][:rows] if name in PACKED else batch[name][group]
                    )
    compute = jax.jit(lambda batch: completion_logprobs(model, params, batch, 160)[0])
    np.testing.assert_allclose(merge(parts, [compute(part) for part in parts]), compute(batch), atol=1e-6)


def test_groups_that_fill_up_hold_nothing(batch):
    (part,) = split(batch, 0, 4)
    assert part["groups"].tolist() == [2, 4, 0, 1, 3, -1, -1, -1]
    assert part["prompt_lengths"][5:].tolist() == [1, 1, 1]
    assert not part["mask"][5:].any()
    assert not part["segments"][5:].any()
    np.testing.assert_array_equal(merge([part], [part["advantages"]]), batch["advantages"])


def test_many_steps_have_few_shapes():
    rng, shapes, filled, needed = np.random.default_rng(4), set(), 0, 0
    for step in range(100):
        lengths = np.minimum(rng.geometric(rng.uniform(0.03, 0.2), (32, 16)), 40).astype(np.int32)
        batch = make_batch([[4] * 20] * 32, _samples(lengths, seed=step), PAD)
        parts = split(batch, 4096, 2)
        shapes |= {part["rows"].shape for part in parts}
        filled += sum(part["rows"].size for part in parts)
        needed += lengths.sum()
        assert all(part["rows"].shape[0] % 2 == 0 for part in parts)
        assert sorted(group for part in parts for group in part["groups"] if group >= 0) == list(range(32))
    assert len(shapes) <= 30
    assert filled < 1.7 * needed < 0.7 * 100 * 32 * 16 * 40


def test_a_limit_below_a_group_is_refused_with_the_least_that_works(batch):
    with pytest.raises(InputError, match=r"config\.microbatch_tokens: 335 .* at least 336, or 0"):
        split(batch, 335, 2)
    split(batch, 336, 2)
    with pytest.raises(InputError, match=r"config\.microbatch_tokens: -1"):
        check_microbatch(-1, 4, 8, 16)
