"""The parts of an RL step that touch the model: log-probabilities, values, the loss, and what a batch learns from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import Array
from jax.sharding import Mesh

from dsmath.model.sharding import batch_sharding
from dsmath.model.transformer import Transformer
from dsmath.rl import advantages, objectives
from dsmath.rl.coefficients import gradient_coefficients, histogram
from dsmath.rl.exploration import Stage
from dsmath.rl.paradigm import Objective
from dsmath.rl.rewards import decode_samples
from dsmath.rl.selection import choose_pairs, distinct, take
from dsmath.rollout.batches import completion_logprobs, completion_values, make_batch, merge, split
from dsmath.rollout.samples import Samples
from dsmath.train.rows import to_host
from dsmath.train.state import Batch, LossFunction, Totals, TrainState

_PAIRS = 3  # purpose of the random order of equal rewards


def make_logprobs(model: Transformer, mesh: Mesh, logits_chunk: int) -> Callable[[Any, Batch], Array]:
    """Jits the log-probabilities of a batch's completions, [questions, group_size, max_new_tokens].

    As with a jitted function, `lower` of what it returns takes shapes with shardings in place of arrays.
    """
    return _jit_pass(lambda params, batch: completion_logprobs(model, params, batch, logits_chunk)[0], mesh)


def make_values(model: Transformer, mesh: Mesh, at: str) -> Callable[[Any, Batch], Array]:
    """Jits a scalar head's numbers at a batch's completions, as `make_logprobs` does; `at` as `completion_values`."""
    return _jit_pass(lambda params, batch: completion_values(model, params, batch, at), mesh)


def _jit_pass(function: Callable[[Any, Batch], Array], mesh: Mesh) -> Callable[[Any, Batch], Array]:
    compute = jax.jit(function)

    def run(params: Any, batch: Batch) -> Array:
        with jax.set_mesh(mesh):
            return compute(params, jax.device_put(dict(batch), batch_sharding(mesh)))

    def lower(params: Any, batch: Batch) -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            return compute.lower(params, batch)

    run.lower = lower
    return run


class MicroBatch(NamedTuple):
    """A part of a batch: where its groups stand in the batch, and its arrays on the devices."""

    groups: np.ndarray
    arrays: Batch


def cut(batch: Mapping[str, np.ndarray], max_tokens: int, mesh: Mesh) -> list[MicroBatch]:
    """A batch, of which every process has all, in micro-batches of whole groups; see `dsmath.rollout.batches.split`."""
    parts = split(batch, max_tokens, mesh.shape["data"] * mesh.shape["fsdp"])
    groups = [part.pop("groups") for part in parts]
    return [MicroBatch(*pair) for pair in zip(groups, jax.device_put(parts, batch_sharding(mesh)), strict=True)]


def over(parts: Sequence[MicroBatch], compute: Callable[[Any, Batch], Array], params: Any) -> np.ndarray:
    """What a pass gives for a whole batch, on the host, from its micro-batches."""
    results = [compute(params, part.arrays) for part in parts]  # all are under way before the first is waited for
    return merge([{"groups": part.groups} for part in parts], [to_host(result) for result in results])


def update(
    state: TrainState,
    parts: Sequence[MicroBatch],
    accumulate: Callable[[Any, Sequence[Batch]], Totals],
    apply: Callable[[TrainState, Totals], tuple[TrainState, dict[str, Array]]],
) -> tuple[TrainState, dict[str, Array]]:
    """One update from the gradients of all micro-batches."""
    return apply(state, accumulate(state.params, [part.arrays for part in parts]))


def make_loss(model: Transformer, objective: Objective, config: ml_collections.ConfigDict) -> LossFunction:
    """The loss of a batch: the objective at the policy's log-probabilities and entropies.

    Its metrics are those of the objective and, to be averaged over `outputs` by `finish_metrics`: the entropy, the gap
    between the rollout's numbers and this pass, and the gradient coefficients, their mean size and their histogram.
    """

    def loss_function(params: Any, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        logprobs, entropies = completion_logprobs(model, params, batch, config.logits_chunk)
        mask, batch = batch["mask"], {**batch, "entropies": entropies}
        loss, sums = objective(logprobs, batch)
        # The objective's denominator may be pairs, tokens, or outputs of which some are left out.
        sums["outputs"] = (mask.sum(axis=-1) > 0).sum().astype(jnp.float32)

        def add(name: str, values: Array) -> None:
            sums[name] = objectives.average(values, mask, "output")[0]

        add("entropy", entropies)
        coefficients = gradient_coefficients(lambda x: objective(x, batch)[0], logprobs, mask)
        add("gradient_coefficient", jnp.abs(coefficients))
        sums["gradient_coefficients"] = histogram(coefficients, mask)
        if "rollout_logprobs" in batch:  # how far the rollout's numbers are from the training pass: a gap ruins RL
            add("rollout_gap", jnp.abs(batch.get("old_logprobs", logprobs) - batch["rollout_logprobs"]))
        return loss, sums

    return loss_function


def finish_metrics(metrics: Mapping[str, Any]) -> tuple[dict[str, float], np.ndarray]:
    """The metrics of an update with `make_loss`, on the host, and the coefficients' histogram in tokens an output."""
    metrics = dict(jax.device_get(metrics))
    outputs = metrics.pop("outputs")
    for name in ("entropy", "gradient_coefficient", "rollout_gap", "gradient_coefficients"):
        if name in metrics:
            metrics[name] = metrics[name] / max(float(outputs), 1e-9)
    histogram = metrics.pop("gradient_coefficients")
    return {name: float(value) for name, value in metrics.items()}, histogram


def make_value_loss(model: Transformer, config: ml_collections.ConfigDict) -> LossFunction:
    """The critic's loss of a batch, which holds `old_values` and `returns` [questions, group_size, max_new_tokens]."""

    def loss_function(params: Any, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        values = completion_values(model, params, batch, "before")
        return objectives.value_loss(
            values,
            batch["old_values"],
            batch["returns"],
            batch["mask"],
            clip=config.ppo.value_clip,
            aggregation=config.aggregation,
            max_length=config.decoding.max_new_tokens,
        )

    return loss_function


def choose_samples(
    stage: Stage, config: ml_collections.ConfigDict, decode: Callable[[Sequence[int]], str], pad_id: int
) -> tuple[Samples, dict[str, np.ndarray], dict[str, float]]:
    """What of a stage's samples is learned from.

    Args:
      stage: an exploration stage.
      config: coefficient, mask_truncated, dpo.pairs, seed.
      decode: token ids to text.
      pad_id: fills arrays.
    Returns:
      the samples, those that teach nothing made empty; arrays for the batch, such as weights; metrics.
    """
    samples = stage.samples
    everything = np.broadcast_to(np.arange(samples.lengths.shape[1]), samples.lengths.shape)
    if config.coefficient == "dpo":
        seeds = [(config.seed, _PAIRS, int(request)) for request in stage.requests]
        pairs = choose_pairs(stage.rewards.outputs, config.dpo.pairs, seeds)
        arrays = {"pairs": pairs.astype(np.int32)}
        return take(samples, pairs, pad_id), arrays, {"pairs": float((pairs >= 0).sum() / 2)}
    if config.coefficient in ("sft", "rft"):
        kept = stage.rewards.correct
        if config.distinct:
            kept = distinct(decode_samples(samples, decode), kept)
        counted = (samples.lengths > 0).astype(np.float32)
        arrays = {"weights": kept.astype(np.float32), "counted": counted}
        return take(samples, np.where(kept, everything, -1), pad_id), arrays, {"kept": float(kept.mean())}
    if config.mask_truncated:
        samples = take(samples, np.where(samples.truncated, -1, everything), pad_id)
    return samples, {}, {}


def make_step_batch(
    stage: Stage,
    prompts: Sequence[Sequence[int]],
    config: ml_collections.ConfigDict,
    decode: Callable[[Sequence[int]], str],
    pad_id: int,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The batch of a step as far as no model is needed, on the host, and metrics.

    GRPO's has its advantages already; the reference's log-probabilities and PPO's advantages come later.
    """
    samples, arrays, figures = choose_samples(stage, config, decode, pad_id)
    batch = make_batch(prompts, samples, pad_id) | arrays
    if config.coefficient in ("ppo", "grpo"):
        batch["rollout_logprobs"] = samples.logprobs
        if stage.old_logprobs is not None:
            batch["old_logprobs"] = stage.old_logprobs
    if config.coefficient == "grpo":
        rewards, scale = stage.rewards, config.scale_advantages != "none"
        if rewards.steps is None:
            of_batch = config.scale_advantages == "batch"
            found = advantages.outcome(rewards.outputs, scale=scale, batch_deviation=of_batch)[..., None]
        else:
            found = advantages.process(rewards.steps, rewards.ends, samples.tokens.shape[2], scale=scale)
        batch["advantages"] = np.asarray(found)
    return batch, figures


def estimate_advantages(
    batch: Mapping[str, np.ndarray], stage: Stage, values: np.ndarray, config: ml_collections.ConfigDict
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """PPO's advantages and returns, by a critic.

    Args:
      batch: with `mask`, `old_logprobs` and, where there is a reference, `ref_logprobs`.
      stage: for its rewards; those of steps fall to the steps' last tokens, that of an output to its last one, or to
        the last one before that the policy chose.
      values: float32 [questions, group_size, max_new_tokens], the critic's at the policy that sampled.
      config: beta, ppo.
    Returns:
      `advantages`, `returns`, `old_values` of that shape, and metrics.
    Source: DeepSeekMath §4.1.1, eq. 1 and 2.
    """
    shape = values.shape
    mask, old, values = (x.reshape(-1, shape[2]) for x in (batch["mask"], batch["old_logprobs"], values))
    ref = batch["ref_logprobs"].reshape(-1, shape[2]) if "ref_logprobs" in batch else None
    rewards = stage.rewards
    scores = rewards.outputs.reshape(-1) if rewards.steps is None else np.zeros(len(mask), np.float32)
    by_token = advantages.shape_rewards(scores, old, ref, mask, config.beta)
    if rewards.steps is not None:
        # A step may end in what a tool said, of which the mask takes no reward.
        chosen = np.asarray(advantages.last_chosen(batch["mask"]))
        ends = np.where(rewards.ends >= 0, np.take_along_axis(chosen, np.maximum(rewards.ends, 0), axis=2), -1)
        by_token += advantages.at_ends(rewards.steps, ends, shape[2]).reshape(mask.shape)
    found, returns = advantages.gae(by_token, values, mask, discount=config.ppo.discount, decay=config.ppo.decay)
    if config.ppo.whiten:
        found = advantages.whiten(found, mask)
    explained = 1.0 - _variance(returns - values, mask) / max(_variance(returns, mask), 1e-8)
    arrays = {"advantages": found, "returns": returns, "old_values": values}
    figures = {
        "explained_variance": float(explained),
        "value": float((values * mask).sum() / max(mask.sum(), 1)),
    }
    if ref is not None:
        lengths = np.maximum(mask.sum(axis=1), 1.0)
        divergence = (((old - ref) * mask).sum(axis=1) / lengths)[mask.any(axis=1)]
        figures["kl"] = float(divergence.mean()) if len(divergence) else 0.0
    return {name: np.asarray(array, np.float32).reshape(shape) for name, array in arrays.items()}, figures


def _variance(x: Array, mask: np.ndarray) -> float:
    return float(np.var(np.asarray(x)[mask > 0])) if mask.any() else 0.0
