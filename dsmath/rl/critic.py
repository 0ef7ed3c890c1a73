"""PPO's critic: a decoder with a scalar head and an optimizer of its own."""

from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from jax import Array
from jax.sharding import Mesh

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.heads import ValueModel, headless
from dsmath.reward import models
from dsmath.rl import loop
from dsmath.runs.workdir import to_path
from dsmath.train.checkpoint import read_model
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import TrainState, abstract_state, make_accumulate, make_apply, start_from


class Critic:
    """The critic's parts; its state is the caller's.

    Args:
      config: ppo, optimizer, guards, num_steps, updates_per_rollout, init_from.
      mesh: of the run.
      tokenizer: the policy's.
    """

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh, tokenizer: Tokenizer):
        self._config, self._mesh, self._tokenizer = config, mesh, tokenizer
        self._field = "config.ppo.critic_from" if config.ppo.critic_from else "config.init_from"
        self._source = config.ppo.critic_from or config.init_from
        self._model = ValueModel(headless(read_model(self._source, self._field)))
        settings = config.optimizer.to_dict() | {"peak_learning_rate": config.ppo.critic_learning_rate}
        optimizer, _ = make_optimizer(settings, config.num_steps * config.updates_per_rollout)
        self.guard = Guard(config.guards, rollback=False)
        self._optimizer = self.guard.wrap(optimizer)
        self.abstract = abstract_state(self._model, self._optimizer, mesh)
        self._values = loop.make_values(self._model, mesh, "before")
        self._accumulate = make_accumulate(loop.make_value_loss(self._model, config), mesh)
        self._apply = make_apply(self._optimizer, mesh)

    def start(self) -> TrainState:
        """A new state: from a reward model, or from a checkpoint with a head at zero.

        A reward model keeps its head where its scores are what the head gives. Behind a sigmoid they are not: its
        logits are no guess of returns, from which the values' clip would let the critic come away slowly.

        Raises:
          InputError: another tokenizer than the policy's.
        """
        if (to_path(self._source) / models.FILE).exists():
            found = models.read(self._source, self._mesh, self._tokenizer, self._field, learns=True)
            params = models.zero_head(found.params) if found.loss == models.SIGMOID else found.params
        else:
            models.check_tokenizer(self._source, self._tokenizer, self._field)
            params = models.base_params(self._source, self._mesh)
        return start_from(params, self._model, self._optimizer, self._mesh, self._config.seed)

    def values(self, state: TrainState, parts: Sequence[loop.MicroBatch]) -> np.ndarray:
        """The value before each token, float32 [questions, group_size, max_new_tokens]."""
        return loop.over(parts, self._values, state.params)

    def update(self, state: TrainState, parts: Sequence[loop.MicroBatch]) -> tuple[TrainState, dict[str, Array | Any]]:
        """One update, and its metrics."""
        state, metrics = loop.update(state, parts, self._accumulate, self._apply)
        return state, {
            "value_loss": metrics["loss"],
            "value_clip_fraction": metrics["value_clip_fraction"],
            "value_grad_norm": metrics["grad_norm"],
        }
