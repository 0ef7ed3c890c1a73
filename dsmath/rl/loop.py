"""The parts of an RL step: which questions, their rollouts, their rewards, the update."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from dsmath.model.sharding import batch_sharding
from dsmath.model.transformer import Transformer
from dsmath.rl import objectives
from dsmath.rollout.batches import completion_logprobs
from dsmath.rollout.samples import Samples
from dsmath.train.state import Batch, LossFunction


def choose_questions(step: int, *, num_questions: int, batch_size: int, seed: int) -> list[int]:
    """The questions of an exploration stage: each epoch is one shuffle of all, and none is left out.

    Args:
      step: number of the stage, from 0.
      num_questions: questions to choose from.
      batch_size: questions of a stage.
      seed: of the shuffles; a stage depends on it and on `step` alone.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    epochs = {place // num_questions for place in places}
    orders = {epoch: np.random.default_rng((seed, epoch)).permutation(num_questions) for epoch in epochs}
    return [int(orders[place // num_questions][place % num_questions]) for place in places]


class Scores(NamedTuple):
    """What a stage's samples look like; shares and means over all samples.

    Attributes:
      rewards: float32 [questions, group_size].
      figures: the metrics of the stage.
    """

    rewards: np.ndarray
    figures: dict[str, float]


def score(
    samples: Samples,
    golds: Sequence[str],
    decode: Callable[[np.ndarray], str],
    reward: Callable[[Sequence[str], Sequence[str]], np.ndarray],
) -> Scores:
    """Decodes the samples and rewards them.

    Args:
      samples: groups of the questions.
      golds: the questions' gold answers.
      decode: token ids to text.
      reward: (solutions, gold answers) -> float32 rewards, one a solution.
    """
    questions, group_size, _ = samples.tokens.shape
    texts = [
        decode(samples.tokens[question, sample, : samples.lengths[question, sample]])
        for question in range(questions)
        for sample in range(group_size)
    ]
    rewards = reward(texts, [gold for gold in golds for _ in range(group_size)]).reshape(questions, group_size)
    equal = rewards.max(axis=1) == rewards.min(axis=1)
    return Scores(
        rewards.astype(np.float32),
        {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(axis=1).mean()),
            "solved": float((rewards.max(axis=1) > 0).mean()),  # questions that any sample solves
            "zero_variance_groups": float(equal.mean()),  # their advantages are zero: they teach nothing
            "truncated": float(samples.truncated.mean()),
            "length": float(samples.lengths.mean()),
        },
    )


def make_logprobs(model: Transformer, mesh: Mesh, logits_chunk: int) -> Callable[[Any, Batch], Array]:
    """Jits the log-probabilities of a batch's completions, [questions, group_size, max_new_tokens].

    As with a jitted function, `lower` of what it returns takes shapes with shardings in place of arrays.
    """
    compute = jax.jit(lambda params, batch: completion_logprobs(model, params, batch, logits_chunk)[0])

    def run(params: Any, batch: Batch) -> Array:
        with jax.set_mesh(mesh):
            return compute(params, jax.device_put(dict(batch), batch_sharding(mesh)))

    def lower(params: Any, batch: Batch) -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            return compute.lower(params, batch)

    run.lower = lower
    return run


def grpo_loss(model: Transformer, *, clip_eps: float, beta: float, logits_chunk: int) -> LossFunction:
    """The GRPO loss of a batch.

    The batch holds `make_batch`'s arrays, `ref_logprobs`, `rollout_logprobs` and `advantages` [questions, group_size]
    and, where more than one update follows an exploration stage, `old_logprobs`.

    Source: DeepSeekMath §4.1.1, eq. 3.
    """

    def loss_function(params: Any, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        logprobs, entropies = completion_logprobs(model, params, batch, logits_chunk)
        mask = batch["mask"]
        loss, sums = objectives.grpo(
            logprobs,
            batch.get("old_logprobs"),
            batch["ref_logprobs"],
            batch["advantages"][..., None],
            mask,
            clip_eps=clip_eps,
            beta=beta,
        )
        lengths = jnp.maximum(mask.sum(axis=-1), 1.0)
        sums["entropy"] = ((entropies * mask).sum(axis=-1) / lengths).sum()
        # How far the rollout's numbers are from the training pass: a silent gap here ruins RL.
        gap = jnp.abs(batch.get("old_logprobs", logprobs) - batch["rollout_logprobs"]) * mask
        sums["rollout_gap"] = (gap.sum(axis=-1) / lengths).sum()
        return loss, sums

    return loss_function
