"""What losses are made of, over arrays of logits."""

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


def entropy(logits: Array) -> Array:
    """The entropy of each next-token distribution in nats: [..., vocab] -> [...]."""
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    return -(jnp.exp(logprobs) * logprobs).sum(axis=-1)
