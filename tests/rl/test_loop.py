"""The parts of an RL step: questions, batches, scores, and the update that they lead to."""

import jax
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.reward.rules import answer_rewards
from dsmath.rl import advantages
from dsmath.rl.loop import choose_questions, grpo_loss, make_logprobs, score
from dsmath.rollout.batches import make_batch
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.samples import Samples
from dsmath.train.state import create_state, make_train_step

PAD, EOS = 0, 2


def _choose(step: int, seed: int = 0) -> list[int]:
    return choose_questions(step, num_questions=10, batch_size=4, seed=seed)


def test_each_epoch_holds_every_question_once():
    order = [question for step in range(15) for question in _choose(step)]
    epochs = [order[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_the_questions_of_a_stage_depend_on_seed_and_step_alone():
    assert _choose(7) == _choose(7)
    assert _choose(7) != _choose(7, seed=1)


def test_a_stage_may_be_longer_than_an_epoch():
    chosen = choose_questions(0, num_questions=3, batch_size=7, seed=0)
    assert sorted(chosen[:3]) == sorted(chosen[3:6]) == [0, 1, 2]


def test_make_batch_keeps_the_mask_of_what_the_policy_chose():
    tokens = np.array([[[7, EOS, PAD], [7, 8, 9]], [[EOS, PAD, PAD], [5, 6, EOS]]], np.int32)
    lengths = np.array([[2, 3], [1, 3]], np.int32)
    mask = np.array([[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 0, 1]]], np.float32)  # a tool said one token
    samples = Samples(tokens, np.zeros(tokens.shape, np.float32), mask, lengths, lengths > 3)
    batch = make_batch([[4, 5], list(range(4, 21))], samples, PAD)
    assert batch["prompts"].shape == (2, 32)
    assert batch["prompt_lengths"].tolist() == [2, 17]
    assert batch["completions"] is tokens
    assert batch["mask"] is mask


def test_score_gives_the_rewards_and_the_figures():
    texts = {10: "so \\boxed{4}", 11: "so \\boxed{5}", 12: "no answer"}
    words = np.array([[[10], [11], [11], [12]], [[11], [11], [11], [11]], [[12], [12], [11], [12]]], np.int32)
    tokens = np.concatenate([words, np.full((3, 4, 1), EOS, np.int32)], axis=2)
    lengths = np.where(words[..., 0] == 12, 1, 2).astype(np.int32)
    zeros = np.zeros(tokens.shape, np.float32)
    samples = Samples(tokens, zeros, zeros, lengths, lengths == 1)

    def decode(ids: np.ndarray) -> str:
        return "".join(texts[int(token)] for token in ids if token != EOS)

    scores = score(samples, ["4", "5", "6"], decode, answer_rewards)
    assert scores.rewards.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert scores.rewards.dtype == np.float32
    expected = {
        "reward": 5 / 12,
        "reward_std": 3**0.5 / 4 / 3,
        "solved": 2 / 3,
        "zero_variance_groups": 2 / 3,
        "truncated": 4 / 12,
        "length": 20 / 12,
    }
    assert scores.figures.keys() == expected.keys()
    for name, value in expected.items():
        assert scores.figures[name] == pytest.approx(value, abs=1e-6), name


@pytest.fixture(scope="module")
def stage(make_model_config):
    """An exploration stage of a new policy on eight devices: everything that an update needs."""
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model, optimizer = Transformer(make_model_config(tied=False)), optax.sgd(0.5)

    def new_state():
        return create_state(model, optimizer, mesh, seed=0)

    params = new_state().params
    prompts = [list(range(4, 6 + place)) for place in range(8)]
    limits = fit(
        model.config,
        mesh,
        slots=32,
        memory_gib=1.0,
        cache_dtype="float32",
        block_steps=4,
        prefill_tokens=64,
        group_size=4,
        longest_prompt=9,
        max_new_tokens=8,
    )
    samples = Engine(model, mesh, limits, pad_id=PAD).sample(
        params,
        prompts,
        range(8),
        jax.random.key(0),
        decoding=Decoding(1.0, 1.0, 8),
        group_size=4,
        stop_ids=(EOS,),
    )
    batch = make_batch(prompts, samples, PAD)
    rewards = (samples.tokens[..., 0] % 2).astype(np.float32)  # an odd first token is good
    batch["advantages"] = np.asarray(advantages.outcome(rewards))
    batch["rollout_logprobs"] = samples.logprobs
    batch["ref_logprobs"] = make_logprobs(model, mesh, 64)(params, batch)
    return mesh, model, optimizer, new_state, batch


def _update(stage, num_microbatches=1, changes=None):
    mesh, model, optimizer, new_state, batch = stage
    step = make_train_step(
        grpo_loss(model, clip_eps=0.2, beta=0.04, logits_chunk=64), optimizer, mesh, num_microbatches
    )
    return step(new_state(), batch | (changes or {}))


def test_the_first_update_starts_at_zero_divergence_without_a_gap_to_the_rollout(stage):
    _, metrics = _update(stage)
    mask, group_advantages = stage[4]["mask"], stage[4]["advantages"]
    np.testing.assert_allclose(float(metrics["loss"]), -group_advantages.mean(), atol=1e-5)
    assert float(metrics["kl"]) == pytest.approx(0, abs=1e-6)
    assert float(metrics["clip_fraction"]) == 0
    assert float(metrics["rollout_gap"]) < 1e-4
    assert 2 < float(metrics["entropy"]) < np.log(64)
    assert 0 < mask.mean() <= 1


def test_a_gap_to_the_rollout_shows(stage):
    shifted = stage[4]["rollout_logprobs"] + 0.25
    assert float(_update(stage, changes={"rollout_logprobs": shifted})[1]["rollout_gap"]) == pytest.approx(
        0.25, abs=1e-3
    )


def test_an_update_makes_good_outputs_likelier_and_bad_ones_less_likely(stage):
    mesh, model, _, _, batch = stage
    state, _ = _update(stage)
    change = np.asarray(make_logprobs(model, mesh, 64)(state.params, batch)) - np.asarray(batch["ref_logprobs"])
    change = (change * batch["mask"]).sum(-1) / batch["mask"].sum(-1)
    good, bad = batch["advantages"] > 0, batch["advantages"] < 0
    assert good.sum() > 4
    assert bad.sum() > 4
    assert change[good].mean() > 0.01
    assert change[bad].mean() < -0.01


def test_microbatches_change_nothing(stage):
    whole, metrics = _update(stage)
    parts, part_metrics = _update(stage, num_microbatches=4)
    for name in metrics:
        np.testing.assert_allclose(part_metrics[name], metrics[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for one, other in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_old_logprobs_of_the_policy_itself_change_nothing(stage):
    _, metrics = _update(stage)
    _, other = _update(stage, changes={"old_logprobs": stage[4]["ref_logprobs"]})
    np.testing.assert_allclose(other["grad_norm"], metrics["grad_norm"], rtol=1e-4)
    np.testing.assert_allclose(other["loss"], metrics["loss"], atol=1e-5)


def test_equal_rewards_teach_nothing(stage):
    zeros = np.zeros_like(stage[4]["advantages"])
    _, metrics = _update(stage, changes={"advantages": zeros})
    assert float(metrics["grad_norm"]) < 1e-4
