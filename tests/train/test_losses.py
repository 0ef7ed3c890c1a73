"""The losses over arrays, against numpy."""

import numpy as np
import pytest

from dsmath.train.losses import entropy, token_logprobs


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (2, 5, 7)).astype(np.float32)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def test_token_logprobs_pick_the_target_of_the_log_softmax(logits):
    targets = np.array([[0, 1, 2, 3, 4], [6, 5, 4, 3, 2]], np.int32)
    expected = np.take_along_axis(_log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(token_logprobs(logits, targets), expected, atol=1e-5)


def test_token_logprobs_stay_finite_for_large_logits():
    logits = np.array([[[1e4, 0.0]]], np.float32)
    np.testing.assert_allclose(token_logprobs(logits, np.array([[1]])), [[-1e4]])


def test_entropy_is_that_of_the_distribution(logits):
    logprobs = _log_softmax(logits)
    np.testing.assert_allclose(entropy(logits), -(np.exp(logprobs) * logprobs).sum(-1), atol=1e-5)
    np.testing.assert_allclose(entropy(np.zeros((1, 8), np.float32)), [np.log(8)], rtol=1e-6)
