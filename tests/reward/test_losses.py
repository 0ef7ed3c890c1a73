"""The losses of reward models, against their formulas written out."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.reward import losses

SCORES = np.array([[0.3, -1.2, 2.0, 0.1], [0.5, 0.4, -0.3, 9.0]], np.float32)
LABELS = np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]], np.float32)
KNOWN = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]], np.float32)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_minus_the_log_probability_of_hard_and_soft_labels(soft):
    labels = np.where(LABELS > 0, 0.75, 0.125).astype(np.float32) if soft else LABELS
    loss, sums = losses.cross_entropy(SCORES, labels, KNOWN)
    expected, right = 0.0, 0
    for score, label, known in zip(SCORES.flat, labels.flat, KNOWN.flat, strict=True):
        if known:
            p = _sigmoid(float(score))
            expected -= label * math.log(p) + (1 - label) * math.log(1 - p)
            right += (p > 0.5) == (label > 0.5)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert {name: float(value) for name, value in sums.items()} == {"accuracy": right, "denominator": 7}
    gradient = jax.grad(lambda scores: losses.cross_entropy(scores, labels, KNOWN)[0])(jnp.asarray(SCORES))
    np.testing.assert_allclose(gradient, (jax.nn.sigmoid(SCORES) - labels) * KNOWN, atol=1e-6)


def test_pairwise_is_the_mean_over_a_questions_pairs_and_a_question_without_a_pair_counts_nothing():
    loss, sums = losses.pairwise(SCORES, LABELS, KNOWN)
    pairs = list(itertools.product([0, 3], [1, 2]))  # of the first question; the second one's wrong solution is unknown
    expected = -sum(math.log(_sigmoid(float(SCORES[0, i] - SCORES[0, j]))) for i, j in pairs) / 4
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert float(sums["accuracy"]) == pytest.approx(2 / 4)
    assert float(sums["denominator"]) == 1

    expected = np.zeros_like(SCORES)
    for i, j in pairs:
        pull = (1 - _sigmoid(float(SCORES[0, i] - SCORES[0, j]))) / 4
        expected[0, i] -= pull
        expected[0, j] += pull
    gradient = jax.grad(lambda scores: losses.pairwise(scores, LABELS, KNOWN)[0])(jnp.asarray(SCORES))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_pairwise_tells_differences_alone():
    shifted = SCORES + np.array([[3.0], [-2.0]], np.float32)
    np.testing.assert_allclose(
        losses.pairwise(shifted, LABELS, KNOWN)[0], losses.pairwise(SCORES, LABELS, KNOWN)[0], rtol=1e-5
    )
