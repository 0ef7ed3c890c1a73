"""One paradigm for all methods: a source of outputs, a reward, a gradient coefficient.

    grad J = E_(q,o)~D[ 1/|o| sum_t GC(q, o, t) grad log pi(o_t | q, o_<t) ]

Source: DeepSeekMath §5.2.1, eq. 5, Table 10.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections
from jax import Array

from dsmath.reward import groups
from dsmath.rl import objectives
from dsmath.rollout.batches import check_microbatch, row_shape
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.samples import PREFIX_BUCKET
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError

SOURCES = ("sft_data", "sft_model", "policy")
REWARDS = ("none", "rule", "outcome_model", "process_model", "mixed")
COEFFICIENTS = ("sft", "rft", "dpo", "ppo", "grpo")
LEARNED = ("outcome_model", "process_model", "mixed")  # rewards that need a reward model
ZERO_VARIANCE = ("keep", "skip", "resample")

# (logprobs [questions, group, length], the batch's arrays of the same axes) -> the loss's sum and sums of metrics.
Objective = Callable[[Array, Mapping[str, Array]], tuple[Array, objectives.Sums]]

# What each coefficient can be computed from, and why from nothing else.
_SOURCES = {
    "sft": (("sft_data",), "it takes every output for right, and only the data's are"),
    "rft": (("sft_model", "policy"), "it chooses among samples; on data it is sft"),
    "dpo": (("sft_model", "policy"), "it pairs samples of one question"),
    "ppo": (("policy",), "its ratio needs samples of the policy that learns"),
    "grpo": (("policy",), "its ratio needs samples of the policy that learns"),
}
_REWARDS = {
    "sft": (("none",), "it looks at no reward"),
    "rft": (("rule",), "it needs to know whether an output is right, and a score does not say"),
    "dpo": (("rule", "outcome_model", "mixed"), "its pairs are ordered by one number an output"),
    "ppo": (REWARDS[1:], "it needs a reward"),
    "grpo": (REWARDS[1:], "it needs a reward"),
}

# Options that are off by default: their value when off, and the coefficients that have them.
_OPTIONS = {
    "distinct": (False, ("rft",)),
    "zero_variance": ("keep", ("grpo",)),
    "kl": ("k3", ("grpo",)),
    "unbiased_kl": (False, ("grpo",)),
    "sequence_ratio": (False, ("grpo",)),
    "scale_advantages": ("group", ("grpo",)),
    "clip_eps_high": (0.0, ("ppo", "grpo")),
    "ratio_bound": (0.0, ("ppo", "grpo")),
    "aggregation": ("output", ("ppo", "grpo")),
    "mask_truncated": (False, ("ppo", "grpo")),
    "entropy_bonus": (0.0, ("ppo", "grpo")),
    "max_correction": (0.0, ("ppo", "grpo")),
    "updates_per_rollout": (1, ("ppo", "grpo")),
}


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what makes no sense, before anything is read.

    Raises:
      InputError: names the field, the reason and the remedy.
    """
    check_positive(config, "updates_per_rollout", "group_size", "num_groups", "num_steps", "logits_chunk", "iterations")
    check_positive(config, "save_every", "keep_last", "keep_samples")
    choices = {
        "source": SOURCES,
        "reward": REWARDS,
        "coefficient": COEFFICIENTS,
        "zero_variance": ZERO_VARIANCE,
        "aggregation": objectives.AGGREGATIONS,
        "kl": tuple(objectives.KL),
        "scale_advantages": ("group", "batch", "none"),
        "lag": (0, 1),
    }
    for field, values in choices.items():
        if config[field] not in values:
            raise InputError(f"config.{field}: {config[field]!r} is none of {', '.join(map(str, values))}")
    coefficient = config.coefficient
    for field, table in (("source", _SOURCES), ("reward", _REWARDS)):
        values, why = table[coefficient]
        if config[field] not in values:
            raise InputError(
                f"config.{field}: {config[field]} makes no sense with config.coefficient={coefficient}: {why}; "
                f"choose {' or '.join(values)}"
            )
    Decoding.read(config.decoding)
    _check_numbers(config)
    if config.num_steps % config.iterations:
        raise InputError(
            f"config.num_steps: {config.num_steps} is no multiple of config.iterations={config.iterations}; change one"
        )
    if config.iterations > 1 and not uses_reference(config) and config.reward not in LEARNED:
        why = "" if coefficient in ("sft", "rft") else f" at config.beta={config.beta}"
        raise InputError(
            f"config.iterations: {coefficient} has no reference to reset{why}, and no reward model learns; set it to 1"
        )
    if config.lag and config.source != "policy":
        raise InputError(f"config.lag: source {config.source} does not change, so nothing lags; set it to 0")
    if config.lag and config.iterations > 1:
        raise InputError("config.lag: a sample would outlive its reference and reward model; set it or iterations to 1")
    if config.tool.enabled and config.iterations > 1 and config.reward in ("process_model", "mixed"):
        raise InputError(
            "config.tool.enabled: the labels of a process reward model's next iteration are completed without a tool; "
            "set it to False or iterations to 1"
        )
    for field, (off, users) in _OPTIONS.items():
        if config[field] != off and coefficient not in users:
            raise InputError(
                f"config.{field}: config.coefficient={coefficient} has no such thing, only {' and '.join(users)}; "
                f"set it to {off}"
            )


def check_reward_model(config: ml_collections.ConfigDict) -> None:
    """Refuses a reward without the reward model that it needs, and the other way round.

    Raises:
      InputError: names the field and the remedy.
    """
    learned = config.reward in LEARNED
    if learned and not config.reward_model:
        raise InputError(
            f"config.reward_model: is empty, and config.reward={config.reward} needs a reward model; train one with "
            "experiments.reward and name its workdir, or set config.reward=rule"
        )
    if config.reward_model and not learned:
        raise InputError(f"config.reward_model: config.reward={config.reward} uses none; leave it empty")


def check_prompts(config: ml_collections.ConfigDict, longest_prompt: int) -> None:
    """Refuses micro-batches that cannot hold a group, in an update or while the reward model goes on learning.

    Args:
      config: microbatch_tokens, and what decides the size of a group.
      longest_prompt: tokens of the longest question.
    Raises:
      InputError: names the field and the least that works.
    """
    # Reward models and old log-probabilities are found for all samples of a group.
    whole = config.reward in LEARNED or uses_old_logprobs(config)
    size = config.group_size if whole else learned_samples(config)
    prefix = -(-longest_prompt // PREFIX_BUCKET) * PREFIX_BUCKET
    if config.iterations > 1 and config.reward in LEARNED:  # between two of them, in batches of longer prompts
        prefix = groups.prefix_length(longest_prompt)
    check_microbatch(config.microbatch_tokens, *row_shape(size, config.decoding.max_new_tokens), prefix)


def _check_numbers(config: ml_collections.ConfigDict) -> None:
    for field in (
        "beta",
        "entropy_bonus",
        "max_correction",
        "microbatch_tokens",
        "max_resamples",
        "clip_eps_high",
        "ratio_bound",
    ):
        if config[field] < 0:
            raise InputError(f"config.{field}: {config[field]} must not be negative")
    if not 0 < config.clip_eps < 1:
        raise InputError(f"config.clip_eps: {config.clip_eps} is not between 0 and 1")
    if 0 < config.ratio_bound <= 1 + max(config.clip_eps, config.clip_eps_high):
        raise InputError(f"config.ratio_bound: {config.ratio_bound} is within the clip's upper bound; raise it")
    if 0 < config.clip_eps_high < config.clip_eps:
        raise InputError(
            f"config.clip_eps_high: {config.clip_eps_high} is below config.clip_eps={config.clip_eps}; raise it"
        )
    if config.coefficient in ("grpo", "dpo") and config.group_size < 2:
        raise InputError(
            f"config.group_size: {config.coefficient} compares the samples of a question; {config.group_size} must be "
            "at least 2"
        )
    if config.source == "sft_data" and config.group_size != 1:
        raise InputError(f"config.group_size: a question has one solution in the data; {config.group_size} must be 1")
    if config.dpo.beta <= 0:
        raise InputError(f"config.dpo.beta: {config.dpo.beta} must be positive")
    if not 1 <= config.dpo.pairs <= max(1, config.group_size // 2):
        raise InputError(
            f"config.dpo.pairs: {config.dpo.pairs} is not between 1 and half of config.group_size={config.group_size}"
        )
    for field in ("discount", "decay"):
        if not 0 <= config.ppo[field] <= 1:
            raise InputError(f"config.ppo.{field}: {config.ppo[field]} is not between 0 and 1")
    for field in ("value_clip", "critic_learning_rate"):
        if config.ppo[field] <= 0:
            raise InputError(f"config.ppo.{field}: {config.ppo[field]} must be positive")
    if config.source != "sft_data" and config.decoding.temperature == 0:
        raise InputError("config.decoding.temperature: at 0 all samples of a question are the same; raise it")
    check_positive(config, "replay.num_steps", "replay.num_groups")
    if config.replay.learning_rate <= 0:
        raise InputError(f"config.replay.learning_rate: {config.replay.learning_rate} must be positive")
    if not 0 <= config.replay.share < 1:
        raise InputError(f"config.replay.share: {config.replay.share} is not in [0, 1)")


def uses_reference(config: ml_collections.ConfigDict) -> bool:
    """Whether a divergence from the reference is computed: of weight 0 it would change nothing."""
    return config.coefficient == "dpo" or (config.coefficient in ("ppo", "grpo") and config.beta > 0)


def uses_parent(config: ml_collections.ConfigDict) -> bool:
    """Whether the parent's parameters are needed after the start: as a reference, a source or the adapters' base."""
    return uses_reference(config) or config.source == "sft_model" or bool(config.lora_rank)


def learned_samples(config: ml_collections.ConfigDict) -> int:
    """Samples of a question that an update learns from."""
    return 2 * config.dpo.pairs if config.coefficient == "dpo" else config.group_size


def uses_old_logprobs(config: ml_collections.ConfigDict) -> bool:
    """Whether the policy that sampled differs from the one that learns, or from the sampler's own numbers."""
    apart = config.updates_per_rollout > 1 or config.lag or config.max_correction
    return config.coefficient == "ppo" or (config.coefficient == "grpo" and bool(apart))


def make_objective(config: ml_collections.ConfigDict) -> Objective:
    """The objective of a config, over arrays.

    The batch holds `mask` and, by coefficient: `weights` and `counted` [questions, group] (sft, rft); `ref_logprobs`
    (dpo, whose groups are the chosen outputs, then the rejected ones in the same order; grpo where it
    `uses_reference`); `advantages` [questions, group, length or 1] (ppo, grpo); and, where they are used,
    `old_logprobs`, `rollout_logprobs` and `entropies`.
    """
    if config.coefficient in ("sft", "rft"):
        return lambda logprobs, batch: objectives.likelihood(
            logprobs, batch["weights"], batch["mask"], batch["counted"]
        )
    return {"dpo": _dpo, "ppo": _ppo, "grpo": _grpo}[config.coefficient](config)


def _dpo(config: ml_collections.ConfigDict) -> Objective:
    def objective(logprobs: Array, batch: Mapping[str, Array]) -> tuple[Array, objectives.Sums]:
        arrays = (logprobs, batch["ref_logprobs"], batch["mask"])
        halves = [jnp.split(array, 2, axis=1) for array in arrays]
        chosen, rejected = zip(*halves, strict=True)
        return objectives.dpo(chosen, rejected, beta=config.dpo.beta, length_averaged=config.dpo.length_averaged)

    return objective


def _ppo(config: ml_collections.ConfigDict) -> Objective:
    def objective(logprobs: Array, batch: Mapping[str, Array]) -> tuple[Array, objectives.Sums]:
        return objectives.ppo(
            logprobs, batch["old_logprobs"], batch["advantages"], batch["mask"], **_shared_options(config, batch)
        )

    return objective


def _grpo(config: ml_collections.ConfigDict) -> Objective:
    def objective(logprobs: Array, batch: Mapping[str, Array]) -> tuple[Array, objectives.Sums]:
        return objectives.grpo(
            logprobs,
            batch.get("old_logprobs"),
            batch.get("ref_logprobs"),
            batch["advantages"],
            batch["mask"],
            beta=config.beta,
            kl=config.kl,
            unbiased_kl=config.unbiased_kl,
            sequence_ratio=config.sequence_ratio,
            **_shared_options(config, batch),
        )

    return objective


def _shared_options(config: ml_collections.ConfigDict, batch: Mapping[str, Array]) -> dict[str, Any]:
    """What PPO and GRPO have in common."""
    correction = None
    if config.max_correction:
        correction = objectives.importance_correction(
            batch["old_logprobs"], batch["rollout_logprobs"], config.max_correction
        )
    return {
        "clip_eps": config.clip_eps,
        "clip_eps_high": config.clip_eps_high or None,
        "ratio_bound": config.ratio_bound or None,
        "aggregation": config.aggregation,
        "max_length": config.decoding.max_new_tokens,
        "correction": correction,
        "entropies": batch["entropies"] if config.entropy_bonus else None,
        "entropy_bonus": config.entropy_bonus,
    }
