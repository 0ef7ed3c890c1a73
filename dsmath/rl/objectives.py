"""Objectives of reinforcement learning, over arrays. Each gives a sum, and sums of metrics with their denominator."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from dsmath.runs.errors import InputError

Sums = dict[str, Array]
AGGREGATIONS = ("output", "token", "constant")


def kl_k1(logprobs: Array, ref_logprobs: Array) -> Array:
    """The plain per-token estimate of KL(policy || reference): unbiased, of either sign; its gradient has mean zero."""
    return logprobs - ref_logprobs


def kl_k2(logprobs: Array, ref_logprobs: Array) -> Array:
    """Half the squared log-ratio: biased, never negative; on policy its gradient is that of the divergence."""
    return 0.5 * jnp.square(logprobs - ref_logprobs)


def kl_k3(logprobs: Array, ref_logprobs: Array) -> Array:
    """The per-token estimate of KL(policy || reference) for sampled tokens; never negative.

    Args:
      logprobs, ref_logprobs: float32, any shape.
    Source: DeepSeekMath §4.1.1, eq. 4.
    """
    difference = ref_logprobs - logprobs
    return jnp.exp(difference) - difference - 1.0


KL = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}  # after Schulman 2020, "Approximating KL divergence"


def average(x: Array, mask: Array, aggregation: str, max_length: int | None = None) -> tuple[Array, Array]:
    """Sums values of tokens, and gives what to divide by.

    Args:
      x, mask: float32 [..., length].
      aggregation: one of `AGGREGATIONS`. "output": each output's tokens are averaged, then the outputs (the paper);
        "token": all tokens count alike (DAPO, Yu et al. 2025); "constant": an output's sum over `max_length` (Dr. GRPO,
        Liu et al. 2025).
      max_length: of "constant": the most tokens of an output.
    Returns:
      the sum and its denominator, scalars. Outputs without a token are not counted.
    """
    lengths = mask.sum(axis=-1)
    outputs = (lengths > 0).sum().astype(jnp.float32)
    if aggregation == "output":
        return ((x * mask).sum(axis=-1) / jnp.maximum(lengths, 1.0)).sum(), outputs
    if aggregation == "token":
        return (x * mask).sum(), lengths.sum()
    if aggregation == "constant" and max_length:
        return (x * mask).sum() / max_length, outputs
    names = ", ".join(map(repr, AGGREGATIONS))
    raise InputError(f"config.aggregation: {aggregation!r} is none of {names} (which needs a max_length)")


def grpo(
    logprobs: Array,
    old_logprobs: Array | None,
    ref_logprobs: Array | None,
    advantages: Array,
    mask: Array,
    *,
    clip_eps: float,
    beta: float,
    clip_eps_high: float | None = None,
    kl: str = "k3",
    unbiased_kl: bool = False,
    aggregation: str = "output",
    max_length: int | None = None,
    sequence_ratio: bool = False,
    ratio_bound: float | None = None,
    correction: Array | None = None,
    entropies: Array | None = None,
    entropy_bonus: float = 0.0,
) -> tuple[Array, Sums]:
    """The GRPO loss: minus eq. 3, summed over outputs, each output's tokens averaged. The options are others' work.

    Args:
      logprobs: float32 [..., length], of the policy that learns.
      old_logprobs: float32 [..., length] of the policy that sampled; None where it is the same policy (one
        update an exploration stage), so that the ratio is 1 and only its gradient counts.
      ref_logprobs: float32 [..., length], of the reference; None where there is none, and no KL term.
      advantages: float32 [..., length].
      mask: float32 [..., length], 1 on the tokens of the output.
      clip_eps: the ratio is clipped to 1 ± this.
      beta: weight of the KL term.
      clip_eps_high: upper bound of the clip where it differs (DAPO).
      kl: the estimator, a key of `KL`.
      unbiased_kl: the KL term is weighed by the ratio, so that k3's gradient is that of the divergence (DeepSeek-V3.2,
        arXiv 2512.02556).
      aggregation, max_length: of `average`.
      sequence_ratio: one ratio an output, the geometric mean of its tokens' (GSPO, Zheng et al. 2025).
      ratio_bound: the unclipped ratio is cut here, so that a negative advantage cannot push without limit (two-sided
        clipping, INTELLECT-2, arXiv 2505.07291); above 1 + clip_eps_high.
      correction: float32 [..., length], weights of `importance_correction`.
      entropies, entropy_bonus: float32 [..., length], of the policy at each token, and their weight in what is
        maximised (Mnih et al. 2016), averaged as the tokens are.
    Returns:
      the sum over outputs, and sums of metrics whose common denominator is the number of outputs that hold a
      token (of tokens, where these count alike): `kl` where there is a reference, `clip_fraction` (0 by construction
      at the first update) and `denominator`.
    Source: DeepSeekMath §4.1.1, eq. 3.
    """
    # What stands after the end of an output is trained by nobody: its exponentials may overflow, and 0 * inf is NaN.
    logprobs = jnp.where(mask > 0, logprobs, 0.0)
    old_logprobs = stop_gradient(logprobs) if old_logprobs is None else jnp.where(mask > 0, old_logprobs, 0.0)
    log_ratio = logprobs - old_logprobs
    if sequence_ratio:
        lengths = jnp.maximum(mask.sum(axis=-1, keepdims=True), 1.0)
        log_ratio = jnp.broadcast_to((log_ratio * mask).sum(axis=-1, keepdims=True) / lengths, mask.shape)
    ratio = jnp.exp(log_ratio)
    divergence, kl_term = None, 0.0
    if ref_logprobs is not None:
        divergence = KL[kl](logprobs, jnp.where(mask > 0, ref_logprobs, 0.0))
        kl_term = beta * (ratio * divergence if unbiased_kl else divergence)
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + (clip_eps if clip_eps_high is None else clip_eps_high))
    if ratio_bound is not None:
        ratio = jnp.minimum(ratio, ratio_bound)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    if correction is not None:
        surrogate *= stop_gradient(jnp.where(mask > 0, correction, 0.0))
    if entropies is not None:
        surrogate += entropy_bonus * jnp.where(mask > 0, entropies, 0.0)
    is_clipped = (clipped * advantages < ratio * advantages).astype(jnp.float32)
    loss, denominator = average(kl_term - surrogate, mask, aggregation, max_length)
    by_token = "token" if aggregation == "token" else "output"
    metrics = {} if divergence is None else {"kl": average(divergence, mask, by_token)[0]}
    metrics["clip_fraction"] = average(is_clipped, mask, by_token)[0]
    return loss, metrics | {"denominator": denominator}


def importance_correction(old_logprobs: Array, rollout_logprobs: Array, bound: float) -> Array:
    """Weights that undo the gap between the sampler's numbers and the training pass's, cut at `bound`.

    Args:
      old_logprobs: of the policy that sampled, by the training forward pass.
      rollout_logprobs: the sampler's own.
      bound: largest weight.
    Source: Yao et al. 2025 (truncated importance sampling).
    """
    return jnp.minimum(jnp.exp(old_logprobs - rollout_logprobs), bound)


def ppo(
    logprobs: Array,
    old_logprobs: Array | None,
    advantages: Array,
    mask: Array,
    *,
    clip_eps: float,
    aggregation: str,
    max_length: int | None = None,
    clip_eps_high: float | None = None,
    ratio_bound: float | None = None,
    correction: Array | None = None,
    entropies: Array | None = None,
    entropy_bonus: float = 0.0,
) -> tuple[Array, Sums]:
    """PPO's policy loss: eq. 1. Its KL stands in the reward (`advantages.shape_rewards`). Arguments as in `grpo`.

    Source: DeepSeekMath §4.1.1, eq. 1.
    """
    return grpo(
        logprobs,
        old_logprobs,
        None,
        advantages,
        mask,
        clip_eps=clip_eps,
        beta=0.0,
        aggregation=aggregation,
        max_length=max_length,
        clip_eps_high=clip_eps_high,
        ratio_bound=ratio_bound,
        correction=correction,
        entropies=entropies,
        entropy_bonus=entropy_bonus,
    )


def value_loss(
    values: Array,
    old_values: Array,
    returns: Array,
    mask: Array,
    *,
    clip: float,
    aggregation: str,
    max_length: int | None = None,
) -> tuple[Array, Sums]:
    """The critic's loss: half the squared error, of the worse of the value and the value kept near its old one.

    Args:
      values, old_values, returns, mask: float32 [outputs, length]; `old_values` are those of `gae`.
      clip: how far a value may move from its old one.
      aggregation, max_length: of `average`.
    Source: Schulman et al. 2017's released code.
    """
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    error, clipped_error = jnp.square(values - returns), jnp.square(near - returns)
    loss, denominator = average(0.5 * jnp.maximum(error, clipped_error), mask, aggregation, max_length)
    is_clipped = (clipped_error > error).astype(jnp.float32)
    by_token = "token" if aggregation == "token" else "output"
    return loss, {"value_clip_fraction": average(is_clipped, mask, by_token)[0], "denominator": denominator}


def dpo(
    chosen: tuple[Array, Array, Array], rejected: tuple[Array, Array, Array], *, beta: float, length_averaged: bool
) -> tuple[Array, Sums]:
    """Direct preference optimisation over pairs of outputs to the same question.

    Args:
      chosen, rejected: log-probabilities of the policy, those of the reference, and mask, float32 [pairs, length] each.
      beta: weight of the log-ratio.
      length_averaged: the paper's form, each output's log-ratios averaged; False is the standard one, summed.
    Returns:
      the sum over pairs, and sums whose denominator is the number of pairs: `pair_accuracy` (the margin is positive)
      and `margin`, beta times the difference of the log-ratios. A pair with an empty output does not count.
    Source: DeepSeekMath §A.1.4, eq. 12; Rafailov et al. 2023.
    """

    def log_ratio(logprobs: Array, ref_logprobs: Array, mask: Array) -> Array:
        total = ((logprobs - ref_logprobs) * mask).sum(axis=-1)  # [pairs]
        return total / jnp.maximum(mask.sum(axis=-1), 1.0) if length_averaged else total

    counts = ((chosen[2].sum(axis=-1) > 0) & (rejected[2].sum(axis=-1) > 0)).astype(jnp.float32)
    margin = beta * (log_ratio(*chosen) - log_ratio(*rejected)) * counts
    sums = {"pair_accuracy": (margin > 0).sum().astype(jnp.float32), "margin": margin.sum()}
    return -(jax.nn.log_sigmoid(margin) * counts).sum(), sums | {"denominator": counts.sum()}


def likelihood(logprobs: Array, weights: Array, mask: Array, counted: Array | None = None) -> tuple[Array, Sums]:
    """Minus the weighted log-likelihood, each output's tokens averaged: SFT with weights 1, RFT with 1 where right.

    Args:
      logprobs, mask: float32 [..., length].
      weights: float32 [...]; an output of weight 0 may be left out of `mask`.
      counted: float32 [...], 1 for the outputs that the mean is over, those of weight 0 among them; None: those that
        hold a token.
    Source: DeepSeekMath §A.1.1 to §A.1.3.
    """
    loss, outputs = average(-logprobs * weights[..., None], mask, "output")
    return loss, {"denominator": outputs if counted is None else counted.sum()}
