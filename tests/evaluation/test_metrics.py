"""Metrics over sampled answers."""

import itertools

import numpy as np
import pytest
from scipy import stats

from dsmath.evaluation.metrics import (
    accuracy_interval,
    bootstrap_interval,
    group_answers,
    maj_at_k,
    maj_at_ks,
    majority_vote,
    pass_at_k,
    share_interval,
    sign_test,
)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 1, 6), (6, 0, 2), (4, 4, 2), (7, 3, 5)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n, c, k):
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 5, 2), (4, -1, 2), (4, 2, 0)])
def test_pass_at_k_rejects_impossible_counts(n, c, k):
    with pytest.raises(ValueError, match="not between"):
        pass_at_k(n, c, k)


def test_equivalent_answers_are_one_vote():
    assert majority_vote(["3", "1/2", "3", "0.5", "\\frac{1}{2}"]) == "1/2"
    assert group_answers(["3", None, "1/2", "3.0", "0.5"]) == [0, None, 1, 0, 1]


def test_none_never_votes():
    assert majority_vote([None, None, None, "7"]) == "7"
    assert majority_vote([None, None]) is None
    assert majority_vote([]) is None


def test_of_tied_answers_the_one_seen_first_is_named():
    assert majority_vote(["4", "5", "5", "4"]) == "4"
    assert majority_vote(["5", "4", "4", "5"]) == "5"


def test_tied_answers_win_alike_whatever_their_order():
    assert maj_at_k(["4", "5", "5", "4", "6"], "4", 5) == maj_at_k(["6", "5", "4", "4", "5"], "4", 5) == 0.5
    assert maj_at_k(["1", "2", "3"], "3", 3) == pytest.approx(1 / 3)
    assert maj_at_k([None, None], "3", 2) == 0.0


@pytest.mark.parametrize("k", range(1, 7))
def test_maj_at_k_is_the_mean_over_all_subsets_and_all_orders(k):
    answers = ["1", "2", "1.0", None, "2", "1"]
    votes = [majority_vote(chosen) for chosen in itertools.permutations(answers, k)]
    assert maj_at_k(answers, "1", k) == pytest.approx(sum(vote in ("1", "1.0") for vote in votes) / len(votes))


def test_maj_at_k_over_many_samples_is_seeded_and_close():
    answers = ["1"] * 40 + ["2"] * 24
    assert maj_at_k(answers, "1", 9, seed=3) == maj_at_k(answers, "1", 9, seed=3)
    # P(at least 5 of 9 are right), hypergeometric, is 0.777
    assert maj_at_k(answers, "1", 9, subsets=4000) == pytest.approx(0.777, abs=0.03)
    assert maj_at_k(answers, "1", 64) == 1.0
    assert maj_at_k(answers, "1", 1, subsets=64) == pytest.approx(40 / 64)


def test_maj_at_ks_gives_each_k():
    assert maj_at_ks([0, 1, 1], [False, True, True], [1, 3]) == {1: pytest.approx(2 / 3), 3: 1.0}


def test_maj_at_k_rejects_more_votes_than_samples():
    with pytest.raises(ValueError, match="not between"):
        maj_at_k(["1"], "1", 2)


def test_the_interval_is_wilsons():
    assert accuracy_interval(8, 10) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert accuracy_interval(0, 5)[0] == pytest.approx(0.0, abs=1e-12)
    for correct, total in ((0, 0), (3, 2)):
        with pytest.raises(ValueError, match="no accuracy"):
            accuracy_interval(correct, total)


def test_the_bootstrap_agrees_with_scipys():
    rng = np.random.default_rng(0)
    for values in (rng.random(80) < 0.3, rng.integers(0, 5, 60) / 4, rng.integers(-1, 2, 90)):
        peer = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
        assert bootstrap_interval(values) == pytest.approx((peer.low, peer.high), abs=0.02)
    assert bootstrap_interval([1, 1, 1]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [bootstrap_interval(rng.random(120) < 0.6, resamples=1000, seed=seed) for seed in range(300)]
    assert 0.90 <= np.mean([low <= 0.6 <= high for low, high in found]) <= 0.985


def test_the_sign_test_counts_gains_and_losses_alone():
    assert sign_test([1] * 8 + [-1] * 2 + [0] * 50) == pytest.approx(0.109375)
    assert sign_test([0.25, 0.5, -0.5]) == 1.0 and sign_test([0, 0]) == 1.0


def test_a_share_without_mistakes_is_not_certain():
    assert share_interval([True] * 12) == accuracy_interval(12, 12)
    assert share_interval([False] * 12) == accuracy_interval(0, 12)
    assert share_interval([True] * 6 + [False] * 6) == bootstrap_interval([1] * 6 + [0] * 6)
