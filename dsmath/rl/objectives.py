"""Objectives of reinforcement learning, over arrays."""

import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient


def kl_k3(logprobs: Array, ref_logprobs: Array) -> Array:
    """The per-token estimate of KL(policy || reference) for sampled tokens; never negative.

    Args:
      logprobs, ref_logprobs: float32, any shape.
    Source: DeepSeekMath §4.1.1, eq. 4.
    """
    difference = ref_logprobs - logprobs
    return jnp.exp(difference) - difference - 1.0


def grpo(
    logprobs: Array,
    old_logprobs: Array | None,
    ref_logprobs: Array,
    advantages: Array,
    mask: Array,
    *,
    clip_eps: float,
    beta: float,
) -> tuple[Array, dict[str, Array]]:
    """The GRPO loss: minus eq. 3, summed over outputs, each output's tokens averaged.

    Args:
      logprobs: float32 [..., length], of the policy that learns.
      old_logprobs: float32 [..., length] of the policy that sampled; None where it is the same policy (one
        update an exploration stage), so that the ratio is 1 and only its gradient counts.
      ref_logprobs: float32 [..., length], of the reference.
      advantages: float32 [..., length].
      mask: float32 [..., length], 1 on the tokens of the output.
      clip_eps: the ratio is clipped to 1 ± this.
      beta: weight of the KL term.
    Returns:
      the sum over outputs, and sums of metrics whose common denominator is the number of outputs that hold a
      token: `kl`, `clip_fraction` (0 by construction at the first update) and `denominator`.
    Source: DeepSeekMath §4.1.1, eq. 3.
    """
    old_logprobs = stop_gradient(logprobs) if old_logprobs is None else old_logprobs
    ratio = jnp.exp(logprobs - old_logprobs)
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    kl = kl_k3(logprobs, ref_logprobs)

    lengths = mask.sum(axis=-1)

    def mean_over_tokens(x: Array) -> Array:
        return (x * mask).sum(axis=-1) / jnp.maximum(lengths, 1.0)  # [...]

    loss = -mean_over_tokens(surrogate - beta * kl).sum()
    metrics = {
        "kl": mean_over_tokens(kl).sum(),
        "clip_fraction": mean_over_tokens((clipped * advantages < ratio * advantages).astype(jnp.float32)).sum(),
        "denominator": (lengths > 0).sum().astype(jnp.float32),
    }
    return loss, metrics
