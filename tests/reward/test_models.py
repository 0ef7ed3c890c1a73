"""Reward models: where they start, what they score, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.reward import models
from dsmath.reward.groups import Group, Labelled, make_batch
from dsmath.reward.training import make_scores, make_update, with_replay
from dsmath.rollout.batches import split
from dsmath.runs.errors import InputError
from dsmath.train.checkpoint import Checkpointer, read_model, read_params
from dsmath.train.state import abstract_params, start_from

SHAPE = {"group_size": 3, "max_tokens": 8, "steps": 2, "pad_id": 0}


def _mesh(**shape):
    return make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])


def _groups(count: int, seed: int = 0) -> list[Group]:
    """Questions with random solutions; one is right where its first token is large."""
    rng = np.random.default_rng(seed)

    def solution() -> Labelled:
        tokens = rng.integers(1, 300, rng.integers(3, 9)).astype(np.int32)
        ends = np.array([1, len(tokens) - 1], np.int32)
        right = float(tokens[0] > 150)
        return Labelled(tokens, right, ends, np.array([right, 1.0], np.float32), True)

    return [Group(rng.integers(1, 300, 4).tolist(), [solution() for _ in range(3)]) for _ in range(count)]


@pytest.fixture(scope="module")
def start(solver):
    mesh = _mesh(data=1)
    model, params = models.base_model(solver), models.base_params(solver, mesh)
    head = params["params"]["head"]["weight"]
    assert not head.any()
    params["params"]["head"]["weight"] = jax.random.normal(jax.random.key(0), head.shape)
    return model, params


def test_a_reward_model_starts_from_the_base_without_its_output_matrix(solver):
    mesh = _mesh(data=1)
    plain = Transformer(read_model(solver))
    base = read_params(solver, abstract_params(plain, mesh))["params"]
    params = models.base_params(solver, mesh)["params"]
    assert "output" in base
    assert params.keys() == base.keys() - {"output"} | {"head"}
    jax.tree.map(np.testing.assert_array_equal, params["blocks"], base["blocks"])
    expected = abstract_params(models.base_model(solver), mesh)["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda leaf: leaf.shape, expected)


def test_scores_are_those_of_a_plain_pass_over_prompt_and_solution(start):
    model, params = start
    groups = _groups(3)

    def score(kind: str, loss: str):
        compute = make_scores(models.RewardModel(kind, loss, model, None), _mesh(data=1), batch_size=2, **SHAPE)
        return list(compute(params, groups))

    plain = jax.jit(model.apply)
    outcomes, steps = score("outcome", "pairwise"), score("process", "sigmoid")
    for row, group in enumerate(groups):
        for column, solution in enumerate(group.solutions):
            held = [*group.prompt, *solution.tokens.tolist()]
            tokens = jnp.array([held + [0] * (16 - len(held))])  # one shape, one program
            hidden, _ = plain(params, tokens, jnp.arange(16)[None], (tokens > 0).astype(jnp.int32))
            values = np.asarray((hidden @ params["params"]["head"]["weight"])[0, len(group.prompt) : len(held)])
            np.testing.assert_allclose(outcomes[row][column], values[-1:], atol=1e-4)
            np.testing.assert_allclose(steps[row][column], 1 / (1 + np.exp(-values[solution.ends])), atol=1e-4)


def test_parts_of_a_batch_have_its_loss_and_the_groups_that_fill_them_teach_nothing(start):
    model, params = start
    batch = make_batch(_groups(5), **SHAPE)
    parts = split(batch, _tokens_of(batch, 6), shards=2)
    assert any((part["groups"] < 0).any() for part in parts)
    for kind, loss in (("process", "sigmoid"), ("outcome", "pairwise")):
        compute = jax.jit(models.make_loss(model, kind, loss))
        sums = [jax.device_get(compute(params, part)) for part in (batch, *parts)]
        whole, added = sums[0], jax.tree.map(lambda *of_parts: sum(of_parts), *sums[1:])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, added)


def _tokens_of(batch: dict[str, np.ndarray], groups: int) -> int:
    return groups * (batch["rows"][0].size + batch["prompts"].shape[1])


def test_scores_are_found_in_micro_batches_too(start, monkeypatch):
    model, params = start
    groups, mesh, sizes = _groups(5), _mesh(data=1), []

    def split_and_note(batch, max_tokens, shards):
        parts = split(batch, max_tokens, shards)
        sizes.extend(part["rows"][..., 0, 0].size for part in parts)
        return parts

    monkeypatch.setattr("dsmath.reward.training.batches.split", split_and_note)
    reward_model = models.RewardModel("process", "sigmoid", model, None)
    limit = _tokens_of(make_batch(groups, **SHAPE), 2)
    found = [
        list(make_scores(reward_model, mesh, batch_size=5, **SHAPE, **limits)(params, groups))
        for limits in ({}, {"microbatch_tokens": limit})
    ]
    assert len(sizes) > 2
    assert sizes[0] > max(sizes[1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *found)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "loss"), [("process", "sigmoid"), ("outcome", "pairwise")])
def test_updates_in_small_parts_on_a_mesh_are_those_of_the_whole(solver, kind, loss):
    batch, ends = make_batch(_groups(5), **SHAPE), []
    for shape, tokens in (({"data": 1}, 0), ({"data": 2, "fsdp": 2, "tensor": 2}, _tokens_of(batch, 4))):
        on = _mesh(**shape)
        model, optimizer = models.base_model(solver), optax.sgd(0.1)
        state = start_from(models.base_params(solver, on), model, optimizer, on, seed=0)
        update = make_update(model, kind, loss, optimizer, on, tokens)
        for _ in range(2):
            state, metrics = update(state, batch)
        ends.append((jax.device_get(metrics), jax.device_get(state.params)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *ends)
    assert ends[0][0]["grad_norm"] > 0


def test_a_reward_model_learns_and_can_go_on_with_replay(solver):
    mesh, optimizer = _mesh(data=1), optax.adam(3e-3)
    model = models.base_model(solver)
    state = start_from(models.base_params(solver, mesh), model, optimizer, mesh, seed=0)
    update = make_update(model, "outcome", "sigmoid", optimizer, mesh, 0)
    groups, accuracies = _groups(16), []
    for _ in range(30):
        state, metrics = update(state, make_batch(groups, **SHAPE))
        accuracies.append(float(metrics["accuracy"]))
    assert accuracies[-1] > 0.9 > accuracies[0]
    mixed = with_replay(_groups(14, seed=1), groups, 0.1, np.random.default_rng(0))
    assert len(mixed) == 16
    assert sum(any(group is old for old in groups) for group in mixed) == 2
    state, metrics = update(state, make_batch(mixed, **SHAPE))
    assert int(state.step) == 31


def test_what_is_no_reward_model_or_reads_other_tokens_is_refused(solver, checkpoint, start, tmp_path):
    mesh, tokenizer = _mesh(data=1), Tokenizer.load(solver)
    with pytest.raises(InputError, match=r"config\.reward_model=.*no reward_model\.json there"):
        models.read(solver, mesh, tokenizer, learns=False)
    model, params = start
    tokenizer.save(tmp_path)
    models.write_kind(tmp_path, "process", "sigmoid")
    with Checkpointer(tmp_path, model.config, save_every=1, keep_last=1) as checkpointer:
        checkpointer.save(start_from(params, model, optax.identity(), mesh, seed=0), {}, loss=1.0)
    found = models.read(tmp_path, mesh, tokenizer, learns=True)
    assert (found.kind, found.loss) == ("process", "sigmoid")
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    with pytest.raises(InputError, match=r"config\.reward_model=.*tokenizer is not that of"):
        models.read(tmp_path, mesh, Tokenizer.load(checkpoint), learns=True)
    models.write_kind(tmp_path, "process", "pairwise")
    with pytest.raises(InputError, match=r"reward_model\.json: loss: 'pairwise' is none of sigmoid"):
        models.read(tmp_path, mesh, tokenizer, learns=True)
