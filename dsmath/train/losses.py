"""Losses over arrays. Each returns a sum and its denominator, so that shards and micro-batches add up exactly."""

import jax
import jax.numpy as jnp
from jax import Array


def token_logprobs(logits: Array, targets: Array) -> Array:
    """The log-probability of each target.

    Args:
      logits: float32 [batch, length, vocab].
      targets: int32 [batch, length].
    Returns:
      float32 [batch, length].
    """
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def cross_entropy(logits: Array, targets: Array, mask: Array) -> tuple[Array, Array]:
    """Negative log-likelihood, summed over the learned tokens.

    Args:
      logits: float32 [batch, length, vocab].
      targets: int32 [batch, length].
      mask: float32 [batch, length], 1 where the target is learned.
    Returns:
      the sum, and the number of learned tokens.
    """
    return -(token_logprobs(logits, targets) * mask).sum(), mask.sum()


def entropy(logits: Array) -> Array:
    """The entropy of each next-token distribution in nats: [..., vocab] -> [...]."""
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    return -(jnp.exp(logprobs) * logprobs).sum(axis=-1)
