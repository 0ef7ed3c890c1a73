"""The parts of an RL step that touch the model: passes, the batch that is learned from, the update that it leads to."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import rl
from dsmath.model.heads import ValueModel, headless
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rl import loop, paradigm
from dsmath.rl.coefficients import EDGES
from dsmath.rl.exploration import Stage
from dsmath.rl.rewards import Rewards
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.train.state import create_state, make_accumulate, make_apply, start_from

PAD, EOS = 0, 2
Q, G, L = 6, 4, 8
_logprobs_pass, _values_pass, _apply = map(functools.cache, (loop.make_logprobs, loop.make_values, make_apply))
_accumulates = {}  # by config: tests of the same one share what is compiled


def _config(method: str = "grpo_os", **changes):
    config = rl.get_config(f"nano,{method}")
    config.num_groups, config.group_size, config.decoding.max_new_tokens = Q, G, L
    for field, value in changes.items():
        config.update({field: value} if not isinstance(value, dict) else {field: config[field].to_dict() | value})
    return config


@pytest.fixture(scope="module")
def run(make_model_config):
    """A new policy on eight devices and an exploration stage of it."""
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model, optimizer = Transformer(make_model_config(tied=False)), optax.sgd(0.5)
    params = create_state(model, optimizer, mesh, seed=0).params
    prompts = [list(range(4, 6 + place)) for place in range(Q)]
    limits = fit(
        model.config,
        mesh,
        slots=32,
        memory_gib=1.0,
        cache_dtype="float32",
        block_steps=4,
        prefill_tokens=64,
        group_size=G,
        longest_prompt=9,
        max_new_tokens=L,
    )
    samples = Engine(model, mesh, limits, pad_id=PAD).sample(
        params,
        prompts,
        range(Q),
        jax.random.key(0),
        decoding=Decoding(1.0, 1.0, L),
        group_size=G,
        stop_ids=(EOS,),
    )
    rewards = (samples.tokens[..., 0] % 2).astype(np.float32)  # an odd first token is good
    numbers = np.arange(Q)
    stage = Stage(numbers, numbers, samples, Rewards(rewards, rewards > 0), None, {}, Q, 0)
    return mesh, model, optimizer, params, prompts, stage


def _decode(ids):
    return " ".join(map(str, ids))


def _batch(run, config, stage=None):
    mesh, model, _, params, prompts, whole = run
    stage = stage or whole
    batch, figures = loop.make_step_batch(stage, prompts, config, _decode, PAD)
    if paradigm.uses_reference(config):
        batch["ref_logprobs"] = loop.over(loop.cut(batch, 0, mesh), _logprobs_pass(model, mesh, 64), params)
    return batch, figures


def _update(run, config, batch, microbatch_tokens=0):
    mesh, model, optimizer, params, _, _ = run
    state = start_from(params, model, optimizer, mesh, seed=0)
    key = config.to_json()
    if key not in _accumulates:
        _accumulates[key] = make_accumulate(loop.make_loss(model, paradigm.make_objective(config), config), mesh)
    parts = loop.cut(batch, microbatch_tokens, mesh)
    state, metrics = loop.update(state, parts, _accumulates[key], _apply(optimizer, mesh))
    finished, histogram = loop.finish_metrics(metrics)
    return state, finished | {"gradient_coefficients": histogram}


def test_the_first_update_starts_at_zero_divergence_without_a_gap_to_the_rollout(run):
    config = _config()
    batch, _ = _batch(run, config)
    _, metrics = _update(run, config, batch)
    np.testing.assert_allclose(float(metrics["loss"]), -batch["advantages"].mean(), atol=1e-5)
    assert float(metrics["kl"]) == pytest.approx(0, abs=1e-6)
    assert float(metrics["clip_fraction"]) == 0
    assert float(metrics["rollout_gap"]) < 1e-4
    assert 2 < float(metrics["entropy"]) < np.log(64)
    # On policy the coefficient is the advantage, the KL's part being zero.
    np.testing.assert_allclose(metrics["gradient_coefficient"], np.abs(batch["advantages"]).mean(), rtol=1e-4)
    counts = np.asarray(metrics["gradient_coefficients"])
    expected, _ = np.histogram(np.broadcast_to(batch["advantages"], batch["mask"].shape)[batch["mask"] > 0], EDGES)
    np.testing.assert_allclose(counts, expected / (Q * G), atol=1e-5)


def test_a_gap_to_the_rollout_shows(run):
    config = _config()
    batch, _ = _batch(run, config)
    batch["rollout_logprobs"] = batch["rollout_logprobs"] + 0.25
    assert float(_update(run, config, batch)[1]["rollout_gap"]) == pytest.approx(0.25, abs=1e-3)


def test_an_update_makes_good_outputs_likelier_and_bad_ones_less_likely(run):
    mesh, model, _, _, _, _ = run
    config = _config()
    batch, _ = _batch(run, config)
    state, _ = _update(run, config, batch)
    after = loop.over(loop.cut(batch, 0, mesh), _logprobs_pass(model, mesh, 64), state.params)
    change = ((after - batch["ref_logprobs"]) * batch["mask"]).sum(-1) / batch["mask"].sum(-1)
    good, bad = batch["advantages"][..., 0] > 0, batch["advantages"][..., 0] < 0
    assert good.sum() > 4
    assert bad.sum() > 4
    assert change[good].mean() > 0.01
    assert change[bad].mean() < -0.01


def test_microbatches_change_nothing(run):
    config = _config()
    batch, _ = _batch(run, config)
    whole, metrics = _update(run, config, batch)
    parts, part_metrics = _update(run, config, batch, microbatch_tokens=G * L + 16)
    assert len(loop.cut(batch, G * L + 16, run[0])) > 1
    for name in metrics:
        np.testing.assert_allclose(part_metrics[name], metrics[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for one, other in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_old_logprobs_of_the_policy_itself_change_nothing(run):
    config = _config()
    batch, _ = _batch(run, config)
    _, metrics = _update(run, config, batch)
    _, other = _update(run, config, batch | {"old_logprobs": batch["ref_logprobs"]})
    np.testing.assert_allclose(other["grad_norm"], metrics["grad_norm"], rtol=1e-4)
    np.testing.assert_allclose(other["loss"], metrics["loss"], atol=1e-5)


def test_equal_rewards_teach_nothing(run):
    config = _config()
    stage = dataclasses.replace(run[5], rewards=run[5].rewards._replace(outputs=np.ones((Q, G), np.float32)))
    batch, _ = _batch(run, config, stage)
    assert float(_update(run, config, batch)[1]["grad_norm"]) < 1e-4


def test_an_entropy_bonus_moves_the_policy(run):
    config = _config()
    batch, _ = _batch(run, config)
    batch["advantages"] = np.zeros_like(batch["advantages"])
    _, metrics = _update(run, _config(entropy_bonus=0.1), batch)
    np.testing.assert_allclose(metrics["loss"], -0.1 * metrics["entropy"], rtol=1e-4)
    assert float(metrics["grad_norm"]) > 1e-3


def test_truncated_outputs_can_be_left_out(run):
    truncated = run[5].samples.truncated
    assert 0 < truncated.sum() < truncated.size
    batch, _ = _batch(run, _config(mask_truncated=True))
    assert (batch["mask"].sum(-1)[truncated] == 0).all()
    assert (batch["mask"].sum(-1)[~truncated] > 0).all()
    assert (batch["segments"] > 0).sum() == run[5].samples.lengths[~truncated].sum()  # nor are they computed


def test_groups_of_cut_outputs_alone_and_empty_outputs_change_nothing(run):
    stage = run[5]
    cut = stage.samples._replace(truncated=np.ones_like(stage.samples.truncated))
    config = _config(mask_truncated=True)
    batch, _ = _batch(run, config, dataclasses.replace(stage, samples=cut))
    assert batch["mask"].sum() == 0
    _, metrics = _update(run, config, batch)
    assert float(metrics["loss"]) == 0
    assert float(metrics["grad_norm"]) == 0
    empty = stage.samples._replace(lengths=np.zeros_like(stage.samples.lengths), mask=np.zeros_like(stage.samples.mask))
    batch, _ = _batch(run, _config(), dataclasses.replace(stage, samples=empty))
    assert float(_update(run, _config(), batch)[1]["grad_norm"]) == 0


def test_online_rft_learns_from_every_right_sample(run):
    batch, figures = _batch(run, _config("online_rft"))
    assert batch["weights"].tolist() == run[5].rewards.correct.tolist()
    assert figures["kept"] == run[5].rewards.correct.mean()


def test_rft_learns_from_right_samples_of_distinct_reasoning_and_counts_all(run):
    stage = run[5]
    tokens = stage.samples.tokens.copy()
    first, second = np.flatnonzero(stage.rewards.correct[0])[:2] if stage.rewards.correct[0].sum() > 1 else (0, 1)
    tokens[0, second] = tokens[0, first]
    lengths = stage.samples.lengths.copy()
    lengths[0, second] = lengths[0, first]
    correct = stage.rewards.correct.copy()
    correct[0, [first, second]] = True
    copied = dataclasses.replace(
        stage,
        samples=stage.samples._replace(tokens=tokens, lengths=lengths),
        rewards=stage.rewards._replace(correct=correct),
    )
    config = _config("rft")
    batch, figures = _batch(run, config, copied)
    assert batch["weights"][0, first] == 1
    assert batch["weights"][0, second] == 0
    assert batch["weights"].sum() == correct.sum() - 1 == figures["kept"] * Q * G
    _, metrics = _update(run, config, batch)
    mean = (-_logprobs(run, batch) * batch["mask"]).sum(-1) / np.maximum(batch["mask"].sum(-1), 1)
    np.testing.assert_allclose(metrics["loss"], mean.sum() / (Q * G), rtol=1e-4)
    np.testing.assert_allclose(metrics["gradient_coefficient"], 1, rtol=1e-5)  # of the samples that are kept
    assert 2 < metrics["entropy"] < np.log(64)  # a mean over these, though all count in the loss


def _logprobs(run, batch):
    mesh, model, _, params, _, _ = run
    return loop.over(loop.cut(batch, 0, mesh), _logprobs_pass(model, mesh, 64), params)


def test_dpo_starts_at_the_log_of_two_and_then_prefers_the_chosen(run):
    config = _config("dpo", dpo={"pairs": 2})
    batch, figures = _batch(run, config)
    assert batch["completions"].shape[1] == 4
    assert (
        figures["pairs"]
        == np.minimum(run[5].rewards.correct.sum(1), 2).clip(max=G - run[5].rewards.correct.sum(1)).sum()
    )
    state, metrics = _update(run, config, batch)
    np.testing.assert_allclose(metrics["loss"], np.log(2), rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_coefficient"], 0.05, rtol=1e-4)  # beta sigma(0)
    mesh, model = run[:2]
    after = loop.over(loop.cut(batch, 0, mesh), _logprobs_pass(model, mesh, 64), state.params)
    gain = ((after - batch["ref_logprobs"]) * batch["mask"]).sum(-1)
    paired = batch["mask"].sum(-1)[:, :2] > 0
    assert (gain[:, :2] - gain[:, 2:])[paired].mean() > 0


def test_without_a_weight_of_the_divergence_an_update_is_that_of_a_reference_that_costs_nothing(run):
    config = _config(beta=0.0)
    batch, _ = _batch(run, config)
    assert "ref_logprobs" not in batch
    state, metrics = _update(run, config, batch)
    assert "kl" not in metrics
    with_reference, others = _update(run, config, batch | {"ref_logprobs": _logprobs(run, batch) - 1.0})
    assert float(others["kl"]) > 0.1
    for name in metrics:
        np.testing.assert_allclose(metrics[name], others[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(with_reference.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def critic(run):
    """PPO's config, and a critic: the model, its optimizer, its first state, and what adds up its gradients."""
    mesh, model = run[:2]
    config = _config("ppo", ppo={"whiten": False, "decay": 1.0}, beta=0.5)
    critic, optimizer = ValueModel(headless(model.config)), optax.adam(0.01)
    accumulate = make_accumulate(loop.make_value_loss(critic, config), mesh)
    return config, critic, optimizer, create_state(critic, optimizer, mesh, seed=1), accumulate


@pytest.mark.parametrize("process", [False, True])
def test_ppos_advantages_are_the_critics(run, critic, process):
    mesh, stage = run[0], run[5]
    config, critic, optimizer, first, accumulate = critic
    if process:
        ends = np.stack([np.zeros((Q, G), np.int32), stage.samples.lengths - 1], axis=-1)
        steps = np.stack([np.full((Q, G), 0.25), stage.rewards.outputs], axis=-1).astype(np.float32)
        stage = dataclasses.replace(stage, rewards=stage.rewards._replace(steps=steps, ends=ends))
    old = np.where(stage.samples.mask > 0, stage.samples.logprobs, 0)
    stage = dataclasses.replace(stage, old_logprobs=old)
    batch, _ = _batch(run, config, stage)
    batch["ref_logprobs"] = batch["ref_logprobs"] - 0.1  # a divergence of 0.1 at every token
    params = jax.tree.map(jnp.copy, first.params)
    params["params"]["head"]["weight"] = params["params"]["head"]["weight"] + 0.1
    values = loop.over(loop.cut(batch, 0, mesh), _values_pass(critic, mesh, "before"), params)
    arrays, figures = loop.estimate_advantages(batch, stage, values, config)
    mask, lengths = batch["mask"], stage.samples.lengths
    after = lengths[..., None] - np.arange(L)  # tokens from here on
    expected = stage.rewards.outputs[..., None] - 0.05 * after
    if process:
        expected[..., 0] += 0.25
    np.testing.assert_allclose(arrays["returns"] * mask, expected * mask, atol=1e-3)
    np.testing.assert_allclose(arrays["advantages"] * mask, (expected - values) * mask, atol=1e-3)
    assert figures["explained_variance"] < 1
    np.testing.assert_allclose(figures["kl"], 0.1, atol=1e-3)
    del batch["ref_logprobs"]
    free, figures = loop.estimate_advantages(batch, stage, values, _config("ppo", ppo=config.ppo.to_dict(), beta=0.0))
    np.testing.assert_allclose(free["returns"] * mask, (expected + 0.05 * after) * mask, atol=1e-3)
    assert "kl" not in figures

    state, losses = jax.tree.map(jnp.copy, first), []
    for _ in range(5):
        parts = loop.cut(batch | arrays, 0, mesh)
        state, metrics = loop.update(state, parts, accumulate, _apply(optimizer, mesh))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]


def test_the_reward_of_a_step_that_ends_in_a_tools_output_falls_to_the_policys_last_token_before(run):
    length, ends = 80, np.array([[[14, 39, 55, 75, -1]]], np.int32)
    mask = np.ones((1, 1, length), np.float32)
    mask[..., 50:60] = mask[..., 76:] = 0
    steps = np.array([[[1.0, 1.0, 1.0, 1.0, 0.0]]], np.float32)
    stage = dataclasses.replace(run[5], rewards=Rewards(np.ones((1, 1)), np.ones((1, 1), bool), steps, ends))
    config = _config("ppo", ppo={"whiten": False, "discount": 1.0, "decay": 1.0}, beta=0.0)
    batch = {"mask": mask, "old_logprobs": np.zeros_like(mask)}
    arrays, _ = loop.estimate_advantages(batch, stage, np.zeros_like(mask), config)
    expected = np.zeros(length)  # rewards that are still to come
    for end in (14, 39, 49, 75):
        expected[: end + 1] += 1
    np.testing.assert_allclose(arrays["returns"][0, 0], expected * mask[0, 0])
    assert arrays["returns"][0, 0, 0] == 4.0
    # A step of what a tool said alone, before the policy's first token, has nobody to be rewarded.
    batch["mask"] = np.where(np.arange(length) < 20, 0, mask).astype(np.float32)
    arrays, _ = loop.estimate_advantages(batch, stage, np.zeros_like(mask), config)
    assert arrays["returns"].max() == 3.0


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("grpo_os", {}),
        ("grpo_os", {"sequence_ratio": True, "entropy_bonus": 0.1, "aggregation": "constant"}),
        ("online_rft", {}),
        ("dpo", {}),
    ],
)
def test_what_a_tool_said_teaches_nothing(run, method, changes):
    stage = run[-1]
    said = np.random.default_rng(0).random(stage.samples.mask.shape) < 0.4
    said[..., 0] = False  # a sample begins with the policy's own
    mask = stage.samples.mask * ~said
    stage = dataclasses.replace(stage, samples=stage.samples._replace(mask=mask))
    config = _config(method, **changes)
    batch, _ = _batch(run, config, stage)
    objective = paradigm.make_objective(config)
    logprobs = np.random.default_rng(1).normal(-2.0, 0.5, batch["mask"].shape).astype(np.float32)
    batch["entropies"] = np.ones_like(logprobs)
    loss, gradient = jax.value_and_grad(lambda x: objective(x, batch)[0])(logprobs)
    assert 0 < batch["mask"].mean() < 1
    assert not np.asarray(gradient)[batch["mask"] == 0].any()
    assert np.asarray(gradient)[batch["mask"] == 1].any()
    # Nor does it matter what anyone thinks of it.
    for name in ("ref_logprobs", "old_logprobs"):
        if name in batch:
            batch[name] = np.where(batch["mask"] > 0, batch[name], -50.0)
    assert objective(np.where(batch["mask"] > 0, logprobs, -50.0), batch)[0] == pytest.approx(loss)
