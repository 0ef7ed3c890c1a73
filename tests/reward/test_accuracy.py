"""Figures of a reward model on held-out labels, by hand."""

import itertools

import numpy as np
import pytest

from dsmath.reward.accuracy import auc, find_first_errors, summarize
from dsmath.reward.groups import Group, Labelled
from dsmath.reward.models import RewardModel


def _solution(label: float = np.nan, steps: tuple[float, ...] = (), whole: bool = True) -> Labelled:
    ends = np.arange(len(steps), dtype=np.int32)
    return Labelled(np.ones(max(1, len(steps)), np.int32), label, ends, np.array(steps, np.float32), whole)


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(40) < 0.4, rng.integers(0, 6, 40) / 5
    pairs = [(r > w) + 0.5 * (r == w) for r, w in itertools.product(scores[labels], scores[~labels])]
    assert auc(labels, scores) == pytest.approx(np.mean(pairs))
    assert auc(np.ones(3, bool), np.zeros(3)) is None


def test_outcomes_are_judged_by_threshold_and_by_pairs_within_a_question():
    groups = [
        Group([1], [_solution(1), _solution(0), _solution(0)]),
        Group([2], [_solution(1), _solution(1), _solution(np.nan)]),
    ]
    scores = [[np.array([0.6]), np.array([0.7]), np.array([0.1])], [np.array([0.4]), np.array([0.9]), np.array([0.0])]]
    found = summarize(RewardModel("outcome", "sigmoid", None, None), groups, scores, 0.5)
    assert found["heldout_labels"] == 5
    assert found["heldout_right"] == pytest.approx(3 / 5)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["pair_accuracy"] == pytest.approx(1 / 2)  # the second question has no pair
    assert "accuracy" not in summarize(RewardModel("outcome", "pairwise", None, None), groups, scores, 0.5)


def test_first_errors_are_found_or_not():
    labels = [(1, 0, 1), (0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 0)]
    judged = [(1, 0, 0), (1, 0, 0), (1, 1, 1), (1, 0, 1), (1, 1, 1)]
    found = find_first_errors(*([np.array(steps, bool) for steps in side] for side in (labels, judged)))
    assert found["first_error_found"] == pytest.approx(1 / 3)
    assert found["right_found"] == pytest.approx(1 / 2)
    assert found["first_error_f1"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert (found["solutions_with_error"], found["solutions_without_error"]) == (3, 2)
    assert find_first_errors([np.array([True])], [np.array([True])])["first_error_f1"] is None


def test_steps_count_each_and_only_whole_solutions_have_a_first_error():
    groups = [Group([1], [_solution(steps=(1, 0.5, 0.25)), _solution(steps=(0,), whole=False)])]
    scores = [[np.array([0.9, 0.6, 0.2]), np.array([0.7])]]
    found = summarize(RewardModel("process", "sigmoid", None, None), groups, scores, 0.5)
    assert found["accuracy"] == pytest.approx(3 / 4)  # a soft label is right from the threshold on
    assert found["solutions_with_error"] == 1
    assert found["first_error_found"] == 1
