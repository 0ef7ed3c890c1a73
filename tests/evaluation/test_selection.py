"""Samples chosen by their scores."""

import itertools

import numpy as np
import pyarrow
import pytest

from dsmath.evaluation.metrics import group_answers, maj_at_ks
from dsmath.evaluation.selection import aggregate, best_of_ks, check, summarize
from dsmath.runs.errors import InputError


def test_the_best_of_k_is_the_mean_over_all_choices():
    rng = np.random.default_rng(0)
    scores, correct = rng.integers(0, 4, 7) / 3, rng.random(7) < 0.5
    for k, share in best_of_ks(scores, correct, [1, 2, 3, 7]).items():
        chosen = itertools.combinations(range(7), k)
        assert share == pytest.approx(np.mean([correct[max(some, key=lambda i: (scores[i], -i))] for some in chosen]))


def test_votes_weigh_and_equivalent_answers_share_theirs():
    answers, weights = ["1", "1", "0.5", "\\frac{1}{2}", None], [0.4, 0.4, 0.5, 0.4, 9.0]
    votes, correct = group_answers(answers), [True, True, False, False, False]
    assert maj_at_ks(votes, correct, [5]) == {5: 0.5}  # a tie of two
    assert maj_at_ks(votes, correct, [5], weights=weights) == {5: 0.0}
    assert maj_at_ks(votes, [False, False, True, True, False], [5], weights=weights) == {5: 1.0}


def test_steps_have_one_score():
    steps = np.array([0.5, 0.25, 0.5])
    assert [aggregate(steps, how) for how in ("min", "product", "last")] == [0.25, 0.0625, 0.5]
    with pytest.raises(InputError, match=r"config\.aggregate: 'mean' is none of min, product, last"):
        check("mean")


@pytest.mark.parametrize(("loss", "scores"), [("sigmoid", [0.9, 0.3, 0.4]), ("pairwise", [5.0, -4.0, -3.0])])
def test_one_good_sample_outvotes_two_bad_ones(loss, scores):
    columns = {"vote": [0, 1, 1], "correct": [True, False, False], "score": scores}
    found = summarize(pyarrow.table(columns), 3, [1, 3], loss)
    assert found["best_of"] == {"1": pytest.approx(1 / 3), "3": 1.0}
    assert found["weighted_maj"] == {"1": pytest.approx(1 / 3), "3": 1.0}
