"""Metrics over sampled answers."""

import itertools

import pytest

from dsmath.evaluation.metrics import accuracy_interval, group_answers, maj_at_k, maj_at_ks, majority_vote, pass_at_k


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


def test_a_tie_goes_to_the_answer_seen_first():
    assert majority_vote(["4", "5", "5", "4"]) == "4"
    assert majority_vote(["5", "4", "4", "5"]) == "5"


@pytest.mark.parametrize("k", range(1, 7))
def test_maj_at_k_is_the_mean_over_all_subsets(k):
    answers = ["1", "2", "1.0", None, "2", "1"]
    subsets = [[answers[index] for index in chosen] for chosen in itertools.combinations(range(6), k)]
    expected = sum(majority_vote(subset) in ("1", "1.0") for subset in subsets) / len(subsets)
    assert maj_at_k(answers, "1", k) == pytest.approx(expected)


def test_maj_at_k_over_many_samples_is_seeded_and_close():
    answers = ["1"] * 40 + ["2"] * 24
    assert maj_at_k(answers, "1", 9, seed=3) == maj_at_k(answers, "1", 9, seed=3)
    # P(at least 5 of 9 are right), hypergeometric, is 0.777
    assert maj_at_k(answers, "1", 9, subsets=4000) == pytest.approx(0.777, abs=0.03)
    assert maj_at_k(answers, "1", 64) == 1.0
    assert maj_at_k(answers, "1", 1, subsets=64) == pytest.approx(40 / 64)


def test_maj_at_ks_gives_each_k():
    answers = ["1", "2", "2"]
    assert maj_at_ks(answers, "2", [1, 3]) == {1: pytest.approx(2 / 3), 3: 1.0}


def test_maj_at_k_rejects_more_votes_than_samples():
    with pytest.raises(ValueError, match="not between"):
        maj_at_k(["1"], "1", 2)


def test_the_interval_is_wilsons():
    assert accuracy_interval(8, 10) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert accuracy_interval(0, 5)[0] == pytest.approx(0.0, abs=1e-12)
    for correct, total in ((0, 0), (3, 2)):
        with pytest.raises(ValueError, match="no accuracy"):
            accuracy_interval(correct, total)
