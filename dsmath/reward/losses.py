"""The losses of reward models, over arrays of scores. Each gives a sum, and sums of metrics with their denominator."""

import jax
import jax.numpy as jnp
from jax import Array

Sums = dict[str, Array]


def cross_entropy(scores: Array, labels: Array, known: Array) -> tuple[Array, Sums]:
    """The binary cross-entropy of scores behind a sigmoid, of whole solutions or of steps.

    Args:
      scores: float32, any shape, before the sigmoid.
      labels: float32 of the same shape: 1 right, 0 wrong, or the share in between of a soft label.
      known: float32 of the same shape, 0 where there is no label.
    Returns:
      the sum, and sums of `accuracy`, for which a label of at least 0.5 is right, and `denominator`, the number of
      labels.
    Source: Cobbe et al. 2021 (outcome); Math-Shepherd (Wang et al. 2023) §3.2.
    """
    loss = jax.nn.softplus(scores) - labels * scores
    right = (scores > 0) == (labels >= 0.5)
    return (loss * known).sum(), {"accuracy": (right * known).sum(), "denominator": known.sum()}


def pairwise(scores: Array, labels: Array, known: Array) -> tuple[Array, Sums]:
    """Minus the log-probability, by Bradley and Terry, that a question's right solutions beat its wrong ones.

    Args:
      scores: float32 [questions, group_size].
      labels: float32 of the same shape, right above 0.5.
      known: float32 of the same shape, 0 where there is no label.
    Returns:
      the sum of the questions' means over their pairs, and sums of `accuracy`, the share of pairs in order, and
      `denominator`, the questions that have a pair.
    Source: Ouyang et al. 2022, eq. 1.
    """
    right = known * (labels > 0.5)
    pairs = right[:, :, None] * (known - right)[:, None, :]  # [questions, right, wrong]
    margins = scores[:, :, None] - scores[:, None, :]
    count = pairs.sum(axis=(1, 2))
    weights = pairs / jnp.maximum(count, 1.0)[:, None, None]
    sums = {"accuracy": ((margins > 0) * weights).sum(), "denominator": (count > 0).sum().astype(jnp.float32)}
    return (jax.nn.softplus(-margins) * weights).sum(), sums
