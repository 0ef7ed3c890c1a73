"""Group-relative advantages, by hand and by their invariances."""

import numpy as np
import pytest

from dsmath.rl.advantages import outcome

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
