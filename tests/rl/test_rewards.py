"""Rewards by the rule, by a model's scores, of outputs and of steps."""

import numpy as np
import pytest

from dsmath.rl.rewards import Rewards, combine, decode_samples, find_correct, summarize
from dsmath.rollout.samples import Samples

EOS, PAD = 2, 0
TEXTS = {10: "so \\boxed{4}", 11: "so \\boxed{5}", 12: "no answer"}


def _decode(ids):
    return "".join(TEXTS[token] for token in ids if token != EOS)


def _samples(words):
    """One word or more, and <eos>, a sample; a sample of the word 12 is cut."""
    lengths = np.array([[len(w) + (12 not in w) for w in group] for group in words], np.int32)
    tokens = np.full((*lengths.shape, 4), PAD, np.int32)
    for place in np.ndindex(lengths.shape):
        tokens[place][: lengths[place]] = ([*words[place[0]][place[1]], EOS])[: lengths[place]]
    zeros = np.zeros(tokens.shape, np.float32)
    return Samples(tokens, zeros, zeros, lengths, tokens[..., 0] == 12)


WORDS = [[[10], [11], [11], [12]], [[11], [11], [11], [11]], [[12], [12], [11], [12]]]


def test_the_rule_rewards_right_answers_and_the_figures_tell():
    samples = _samples(WORDS)
    texts = decode_samples(samples, _decode)
    assert texts[0] == ["so \\boxed{4}", "so \\boxed{5}", "so \\boxed{5}", "no answer"]
    rewards = combine("rule", find_correct(texts, ["4", "5", "6"]), None, None, {})
    assert rewards.outputs.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert rewards.outputs.dtype == np.float32
    expected = {
        "reward": 5 / 12,
        "reward_std": 3**0.5 / 4 / 3,
        "accuracy": 5 / 12,
        "solved": 2 / 3,
        "zero_variance_groups": 2 / 3,
        "nonfinite_rewards": 0,
        "truncated": 4 / 12,
        "empty": 4 / 12,
        "length": 20 / 12,
        "length_max": 2,
    }
    found = summarize(rewards, samples)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


CORRECT = np.array([[True, False]])


def test_an_outcome_models_score_is_the_reward_and_can_be_mixed_with_the_rule():
    scores = np.array([[0.25, 0.75]], np.float32)
    assert combine("outcome_model", CORRECT, scores, None, {}).outputs.tolist() == [[0.25, 0.75]]
    mixed = combine("mixed", CORRECT, scores, None, {"rule": 2.0, "model": 4.0})
    assert mixed.outputs.tolist() == [[3.0, 3.0]]
    assert mixed.correct.tolist() == CORRECT.tolist()
    assert mixed.scores.tolist() == scores.tolist()


def test_a_process_models_scores_reward_steps_and_the_rule_falls_to_the_last():
    ends, scores = np.array([[[1, 3, -1], [0, 1, 2]]], np.int32), np.array([[[0.5, 0.25, 9], [1, 0.5, 0]]], np.float32)
    rewards = combine("process_model", CORRECT, scores, ends, {})
    assert rewards.steps.tolist() == [[[0.5, 0.25, 0], [1, 0.5, 0]]]
    assert rewards.outputs.tolist() == [[0.375, 0.5]]
    mixed = combine("mixed", CORRECT, scores, ends, {"rule": 2.0, "model": 1.0})
    assert mixed.steps.tolist() == [[[0.5, 2.25, 0], [1, 0.5, 0]]]


def test_equal_and_broken_groups_are_told_by_steps_too():
    ends = np.array([[[0, -1]], [[0, 1]], [[0, 1]]], np.int32)
    steps = np.array([[[0.5, 9]], [[0.5, 0.25]], [[0.5, np.nan]]], np.float32)
    rewards = Rewards(steps.mean(axis=2), np.zeros((3, 1), bool), steps, ends)
    assert rewards.are_equal().tolist()[:2] == [True, False]
    assert rewards.are_finite().tolist() == [True, True, False]
    assert rewards.take(np.array([1])).steps.tolist() == [[[0.5, 0.25]]]
