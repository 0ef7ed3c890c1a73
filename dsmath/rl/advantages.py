"""Advantages: relative to a group's rewards, and by a critic."""

import jax
import jax.numpy as jnp
from jax import Array

EPSILON = 1e-6  # ours: the paper divides by the bare standard deviation


def outcome(rewards: Array, epsilon: float = EPSILON, scale: bool = True, batch_deviation: bool = False) -> Array:
    """Group-relative advantages under outcome supervision, the same for every token of an output.

    Args:
      rewards: float32 [num_groups, group_size].
      epsilon: added to the (population) standard deviation.
      scale: whether to divide by it; False is Dr. GRPO's (Liu et al. 2025).
      batch_deviation: the standard deviation is that of all rewards, not of the group's ("Tricks or Traps?", arXiv
        2508.08221).
    Returns:
      float32 [num_groups, group_size]; zero where a group's rewards are all equal.
    Source: DeepSeekMath §4.1.2.
    """
    equal = rewards.max(axis=1, keepdims=True) == rewards.min(axis=1, keepdims=True)
    centered = jnp.where(equal, 0.0, rewards - rewards.mean(axis=1, keepdims=True))
    deviation = rewards.std() if batch_deviation else rewards.std(axis=1, keepdims=True)
    return centered / (deviation + epsilon) if scale else centered


def process(rewards: Array, ends: Array, length: int, epsilon: float = EPSILON, scale: bool = True) -> Array:
    """Group-relative advantages under process supervision: a token's is the sum over the steps that end at or after it.

    Args:
      rewards: float32 [num_groups, group_size, steps], of each step.
      ends: int32 of the same shape, the place of each step's last token in its output; -1 where there is no step.
      length: of the outputs.
      epsilon: added to the (population) standard deviation.
      scale: whether to divide by it.
    Returns:
      float32 [num_groups, group_size, length]; zero after an output's last step, and where all step rewards of a group
      are equal.
    Source: DeepSeekMath §4.1.3.
    """
    is_step = ends >= 0
    count = jnp.maximum(is_step.sum(axis=(1, 2), keepdims=True), 1)
    mean = jnp.where(is_step, rewards, 0.0).sum(axis=(1, 2), keepdims=True) / count
    highest = jnp.where(is_step, rewards, -jnp.inf).max(axis=(1, 2), keepdims=True)
    lowest = jnp.where(is_step, rewards, jnp.inf).min(axis=(1, 2), keepdims=True)
    centered = jnp.where(is_step & (highest > lowest), rewards - mean, 0.0)
    if scale:
        deviation = jnp.sqrt(
            jnp.square(jnp.where(is_step, rewards - mean, 0.0)).sum(axis=(1, 2), keepdims=True) / count
        )
        centered /= deviation + epsilon
    return jax.lax.cumsum(at_ends(centered, ends, length), axis=2, reverse=True)


def shape_rewards(scores: Array, logprobs: Array, ref_logprobs: Array, mask: Array, beta: float) -> Array:
    """PPO's rewards by token: minus the divergence from the reference everywhere, the score at the last token.

    Args:
      scores: float32 [outputs], of the reward.
      logprobs, ref_logprobs: float32 [outputs, length], of the policy that sampled and of the reference; the latter
        None where there is none.
      mask: float32 [outputs, length], 1 on the tokens that the policy chose.
      beta: weight of the divergence.
    Returns:
      float32 [outputs, length].
    Source: DeepSeekMath §4.1.1, eq. 2.
    """
    is_last = jnp.arange(mask.shape[1]) == last_chosen(mask)[:, -1:]
    penalty = 0.0 if ref_logprobs is None else beta * (logprobs - ref_logprobs)
    return (scores[:, None] * is_last - penalty) * mask


def gae(rewards: Array, values: Array, mask: Array, *, discount: float, decay: float) -> tuple[Array, Array]:
    """Generalised advantage estimation over outputs that end.

    Args:
      rewards, values: float32 [outputs, length], of each token; a value is that of the text before its token.
      mask: float32 [outputs, length], 1 on the tokens that the policy chose; between them the others are passed over.
      discount: gamma.
      decay: lambda; 1 is the plain return minus the value.
    Returns:
      advantages and returns (the critic's targets), float32 [outputs, length]; 0 where the mask is.
    Source: Schulman et al. 2016, eq. 16; DeepSeekMath §4.1.1.
    """

    def step(later: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        reward, value, chosen = now
        advantage = reward + discount * later[1] - value + discount * decay * later[0]
        return (jnp.where(chosen > 0, advantage, later[0]), jnp.where(chosen > 0, value, later[1])), advantage

    end = jnp.zeros(mask.shape[0])
    _, advantages = jax.lax.scan(step, (end, end), (rewards.T, values.T, mask.T), reverse=True)
    return advantages.T * mask, (advantages.T + values) * mask


def at_ends(rewards: Array, ends: Array, length: int) -> Array:
    """Rewards of steps as rewards of tokens: each falls to the last token of its step.

    Args:
      rewards: float32 [num_groups, group_size, steps].
      ends: int32 of the same shape; -1 where there is no step.
      length: of the outputs.
    Returns:
      float32 [num_groups, group_size, length].
    """
    groups, outputs, _ = jnp.indices(ends.shape, sparse=True)
    places = jnp.where(ends >= 0, ends, length)  # what lies behind the outputs is dropped; -1 would be the last token
    tokens = jnp.zeros((*ends.shape[:2], length), jnp.float32)
    return tokens.at[groups, outputs, places].add(rewards, mode="drop")


def last_chosen(mask: Array) -> Array:
    """The last token at or before each place that the policy chose.

    Args:
      mask: float32 [..., length], 1 on the tokens that the policy chose.
    Returns:
      int32 of that shape, the token's place; -1 where there is none.
    """
    return jax.lax.cummax(jnp.where(mask > 0, jnp.arange(mask.shape[-1]), -1), axis=mask.ndim - 1)


def whiten(advantages: Array, mask: Array, epsilon: float = EPSILON) -> Array:
    """Advantages of all tokens with mean 0 and (population) standard deviation 1: PPO's usual; the paper is silent.

    Args:
      advantages, mask: float32, any one shape.
      epsilon: added to the standard deviation.
    Returns:
      float32 of that shape; 0 where the mask is.
    Source: Engstrom et al. 2020, "Implementation matters in deep policy gradients".
    """
    count = jnp.maximum(mask.sum(), 1.0)
    centered = (advantages - (advantages * mask).sum() / count) * mask
    return centered / (jnp.sqrt(jnp.square(centered).sum() / count) + epsilon)
