"""Group-relative advantages."""

import jax.numpy as jnp
from jax import Array

EPSILON = 1e-6  # ours: the paper divides by the bare standard deviation


def outcome(rewards: Array, epsilon: float = EPSILON) -> Array:
    """Group-relative advantages under outcome supervision, the same for every token of an output.

    Args:
      rewards: float32 [num_groups, group_size].
      epsilon: added to the (population) standard deviation.
    Returns:
      float32 [num_groups, group_size]; zero where a group's rewards are all equal.
    Source: DeepSeekMath §4.1.2.
    """
    equal = rewards.max(axis=1, keepdims=True) == rewards.min(axis=1, keepdims=True)
    centered = jnp.where(equal, 0.0, rewards - rewards.mean(axis=1, keepdims=True))
    return centered / (rewards.std(axis=1, keepdims=True) + epsilon)
