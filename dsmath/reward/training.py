"""A reward model's update, and its scores of labelled solutions: state in, state out; for a stage, and within RL."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from dsmath.model.heads import ValueModel
from dsmath.model.sharding import batch_sharding
from dsmath.reward import groups as labelled
from dsmath.reward import models
from dsmath.reward.groups import Group
from dsmath.reward.models import RewardModel
from dsmath.rollout import batches
from dsmath.train.state import TrainState, make_accumulate, make_apply

_Item = TypeVar("_Item")


def make_update(
    model: ValueModel, kind: str, loss: str, optimizer: optax.GradientTransformation, mesh: Mesh, microbatch_tokens: int
) -> Callable[[TrainState, Mapping[str, np.ndarray]], tuple[TrainState, dict[str, Array]]]:
    """Makes `(state, batch) -> (state, metrics)`, one update of a reward model; the state is donated.

    Args:
      model: the decoder with its head.
      kind, loss: of the reward model.
      optimizer: its update, behind a guard.
      mesh: groups are spread over its data and fsdp axes.
      microbatch_tokens: most tokens that are worked through at once; 0: the whole batch.
    Returns:
      the update; its batches, on the host, are those of `groups.make_batch`, all of each in every process. Metrics hold
      `accuracy`, of labels or of pairs, beside those of `dsmath.train.state.make_train_step`.
    """
    accumulate = make_accumulate(models.make_loss(model, kind, loss), mesh)
    apply = make_apply(optimizer, mesh)

    def update(state: TrainState, batch: Mapping[str, np.ndarray]) -> tuple[TrainState, dict[str, Array]]:
        parts = jax.device_put(batches.split(batch, microbatch_tokens, shards(mesh)), batch_sharding(mesh))
        return apply(state, accumulate(state.params, parts))

    return update


def shards(mesh: Mesh) -> int:
    """How many devices share the groups of a batch."""
    return math.prod(mesh.shape[axis] for axis in ("data", "fsdp"))


def make_scores(
    reward_model: RewardModel,
    mesh: Mesh,
    *,
    batch_size: int,
    group_size: int,
    max_tokens: int,
    steps: int,
    pad_id: int,
    microbatch_tokens: int = 0,
) -> Callable[[Any, Sequence[Group]], Iterator[list[np.ndarray]]]:
    """Makes `(params, groups) -> scores` of a reward model's kind, for any of its parameters.

    Args:
      reward_model: kind, loss and model.
      mesh: what it is spread over.
      batch_size: groups that are scored at once.
      group_size, max_tokens, steps, pad_id: see `groups.make_batch`.
      microbatch_tokens: see `make_update`.
    Returns:
      the function; for one group after another it gives of each solution float32 [1], the outcome's score, or [steps].
    """
    compute = models.make_values(reward_model.model, mesh, reward_model.loss)

    def score(params: Any, groups: Sequence[Group]) -> Iterator[list[np.ndarray]]:
        for start in range(0, len(groups), batch_size):
            some = groups[start : start + batch_size]
            batch = labelled.make_batch(some, group_size, max_tokens, steps, pad_id)
            parts = batches.split(batch, microbatch_tokens, shards(mesh))
            results = [compute(params, jax.device_put(part, batch_sharding(mesh))) for part in parts]
            values = batches.merge(parts, results)  # [groups, group_size, max_tokens]
            of_outcomes = np.asarray(models.outcome_scores(values, batch))
            of_steps = np.asarray(models.process_scores(values, batch["step_ends"]))
            for row, group in enumerate(some):
                yield [
                    of_steps[row, column, : len(solution.ends)]
                    if reward_model.kind == models.PROCESS
                    else of_outcomes[row, column, None]
                    for column, solution in enumerate(group.solutions)
                ]

    return score


def with_replay(new: Sequence[_Item], history: Sequence[_Item], share: float, rng: np.random.Generator) -> list[_Item]:
    """New groups with earlier ones among them, shuffled.

    Args:
      new: what has been sampled last; all of it is taken.
      history: what was sampled before.
      share: of the result that is drawn from history, as far as it reaches.
      rng: of the draw.
    Source: DeepSeekMath §4.1.4, Algorithm 1 (10 % of historical data).
    """
    count = min(round(len(new) * share / (1 - share)), len(history))
    replayed = [history[index] for index in rng.permutation(len(history))[:count]]
    mixed = [*new, *replayed]
    return [mixed[index] for index in rng.permutation(len(mixed))]
