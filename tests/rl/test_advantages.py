"""Group-relative advantages, by hand and by their invariances."""

import numpy as np
import pytest

from dsmath.rl.advantages import at_ends, gae, outcome, process, shape_rewards, whiten

REWARDS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


def test_hand_values_use_the_population_standard_deviation():
    rewards = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [3, 1, 1, 3]], np.float32)
    expected = [[3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)], [1, 1, -1, -1], [1, -1, -1, 1]]
    np.testing.assert_allclose(outcome(rewards), expected, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.3, 1e6])
def test_equal_rewards_give_exactly_zero(value):
    advantages = np.asarray(outcome(np.full((2, 7), value, np.float32)))
    np.testing.assert_array_equal(advantages, 0)


def test_a_groups_advantages_have_mean_zero_and_deviation_one():
    advantages = np.asarray(outcome(REWARDS))
    np.testing.assert_allclose(advantages.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(advantages.std(axis=1), 1, atol=1e-4)


def test_a_shift_and_a_positive_scale_change_nothing():
    np.testing.assert_allclose(outcome(REWARDS + 2), outcome(REWARDS), atol=1e-5)
    np.testing.assert_allclose(outcome(REWARDS * 3), outcome(REWARDS), atol=1e-5)
    np.testing.assert_allclose(outcome(-REWARDS), -np.asarray(outcome(REWARDS)), atol=1e-5)


def test_groups_do_not_touch_each_other():
    changed = REWARDS.copy()
    changed[0] *= 100
    np.testing.assert_array_equal(outcome(changed)[1:], outcome(REWARDS)[1:])


STEP_REWARDS = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
ENDS = np.array([[[1, 4, 6, 9], [0, 2, -1, -1], [5, -1, -1, -1]]] * 2, np.int32)


def test_process_advantages_by_hand():
    """A group of two outputs: steps that end at 1 and 3 with rewards 1 and 0, and one that ends at 2 with reward 2."""
    rewards = np.array([[[1.0, 0.0], [2.0, 9.0]]], np.float32)  # the 9 is no step
    ends = np.array([[[1, 3], [2, -1]]], np.int32)
    unit = 1.5**0.5  # of 1, 0, 2: mean 1, deviation sqrt(2/3)
    expected = [[[-unit, -unit, -unit, -unit, 0], [unit, unit, unit, 0, 0]]]
    np.testing.assert_allclose(process(rewards, ends, 5), expected, atol=1e-5)


def test_rewards_of_steps_fall_to_their_last_tokens_and_two_may_share_one():
    rewards, ends = np.array([[[1.0, 2.0, 4.0], [3.0, 9.0, 9.0]]], np.float32), np.array([[[0, 3, 3], [1, -1, -1]]])
    np.testing.assert_array_equal(at_ends(rewards, ends, 4), [[[1, 0, 0, 6], [0, 3, 0, 0]]])


def test_process_with_one_step_an_output_equals_outcome():
    ends = np.full((5, 8, 1), 6, np.int32)
    advantages = np.asarray(process(REWARDS[..., None], ends, 7))
    np.testing.assert_allclose(advantages, np.repeat(np.asarray(outcome(REWARDS))[..., None], 7, axis=2), atol=1e-5)


def test_a_shift_of_step_rewards_changes_nothing_and_equal_ones_give_zero():
    np.testing.assert_allclose(process(STEP_REWARDS + 3, ENDS, 10), process(STEP_REWARDS, ENDS, 10), atol=1e-4)
    np.testing.assert_array_equal(process(np.full_like(STEP_REWARDS, 0.3), ENDS, 10), 0)
    np.testing.assert_array_equal(process(STEP_REWARDS, np.full_like(ENDS, -1), 10), 0)  # no step at all


def test_without_scaling_rewards_are_centered_alone():
    np.testing.assert_allclose(outcome(REWARDS, scale=False), REWARDS - REWARDS.mean(axis=1, keepdims=True), atol=1e-6)
    ratio = (
        np.asarray(process(STEP_REWARDS, ENDS, 10)) * STEP_REWARDS[ENDS >= 0].reshape(2, -1).std(axis=1)[:, None, None]
    )
    np.testing.assert_allclose(process(STEP_REWARDS, ENDS, 10, scale=False), ratio, rtol=1e-4, atol=1e-5)


def test_the_deviation_of_the_batch_is_one_for_all_groups():
    advantages = np.asarray(outcome(REWARDS, batch_deviation=True))
    np.testing.assert_allclose(advantages * REWARDS.std(), outcome(REWARDS, scale=False), atol=1e-5)


def test_ppos_rewards_hold_the_score_at_the_last_token_and_the_divergence_everywhere():
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], np.float32)
    logprobs, reference = np.full((2, 4), -1.0, np.float32), np.full((2, 4), -1.5, np.float32)
    rewards = shape_rewards(np.array([2.0, -1.0], np.float32), logprobs, reference, mask, beta=0.1)
    np.testing.assert_allclose(rewards, [[-0.05, -0.05, 1.95, 0], [-1.05, 0, 0, 0]], atol=1e-6)
    rewards = shape_rewards(np.array([2.0, -1.0], np.float32), logprobs, None, mask, beta=0.0)
    np.testing.assert_array_equal(rewards, [[0, 0, 2, 0], [-1, 0, 0, 0]])


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0)])
def test_gae_is_the_sum_of_discounted_surprises(discount, decay):
    rng = np.random.default_rng(2)
    rewards, values = rng.normal(size=(2, 3, 6)).astype(np.float32)
    lengths = [6, 1, 4]
    mask = (np.arange(6) < np.array(lengths)[:, None]).astype(np.float32)
    advantages, returns = gae(rewards, values, mask, discount=discount, decay=decay)
    for row, length in enumerate(lengths):
        following = [*values[row, 1:length], 0.0]
        surprise = rewards[row, :length] + discount * np.array(following) - values[row, :length]
        for t in range(length):
            expected = sum((discount * decay) ** (j - t) * surprise[j] for j in range(t, length))
            np.testing.assert_allclose(advantages[row, t], expected, atol=1e-5)
            np.testing.assert_allclose(returns[row, t], expected + values[row, t], atol=1e-5)
        np.testing.assert_array_equal(advantages[row, length:], 0)


def test_tokens_of_a_tool_are_passed_over():
    """An output with a tool's tokens inside has the numbers of the output without them; the last has the score."""
    rng = np.random.default_rng(3)
    logprobs, reference, values = rng.normal(size=(3, 1, 4)).astype(np.float32)
    score, places = np.array([2.0], np.float32), [0, 1, 4, 6]

    def run(*arrays, mask):
        rewards = shape_rewards(score, *arrays[:2], mask, beta=0.1)
        return rewards, *gae(rewards, arrays[2], mask, discount=0.9, decay=0.8)

    def spread(x):
        wide = rng.normal(size=(1, 9)).astype(np.float32)
        wide[:, places] = x
        return wide

    mask = np.zeros((1, 9), np.float32)
    mask[:, places] = 1
    together = run(logprobs, reference, values, mask=np.ones((1, 4), np.float32))
    apart = run(*map(spread, (logprobs, reference, values)), mask=mask)
    for expected, found in zip(together, apart, strict=True):
        np.testing.assert_allclose(np.asarray(found)[:, places], expected, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(found)[mask == 0], 0)


def test_whitened_advantages_have_mean_zero_and_deviation_one_over_the_tokens():
    mask = (np.arange(6) < np.array([[6], [2], [0]])).astype(np.float32)
    whitened = np.asarray(whiten(np.random.default_rng(4).normal(3, 2, (3, 6)).astype(np.float32), mask))
    np.testing.assert_allclose([whitened[mask > 0].mean(), whitened[mask > 0].std()], [0, 1], atol=1e-5)
    np.testing.assert_array_equal(whitened[mask == 0], 0)
    np.testing.assert_array_equal(whiten(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)), 0)
