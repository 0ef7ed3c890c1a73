"""The policy: how it samples, what it thinks of samples, how it learns; and the parent that it comes from."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import pyarrow
from jax import Array
from jax.sharding import Mesh

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.precision import cast_matrices
from dsmath.model.transformer import Transformer
from dsmath.reward import shepherd
from dsmath.rl import loop, paradigm
from dsmath.rl import state as run_state
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Limits, Tool
from dsmath.rollout.samples import Samples
from dsmath.train import lora
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import (
    TrainState,
    abstract_params,
    abstract_state,
    create_state,
    make_accumulate,
    make_apply,
    start_from,
)

_LABEL = 2  # purpose of the random key


class Policy:
    """The policy's programs and its parent's parameters; its state is the caller's.

    Args:
      config: of the stage.
      mesh: of the run.
      tokenizer: the parent's.
      longest_prompt: tokens of the longest question.
      tool: what the samples may call.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        mesh: Mesh,
        tokenizer: Tokenizer,
        longest_prompt: int,
        tool: Tool | None = None,
    ):
        self._config, self._mesh = config, mesh
        self._stop_ids = (tokenizer.eos_id,)
        self.config = read_model(config.init_from)  # of the model
        self._model = Transformer(lora.frozen_config(self.config) if config.lora_rank else self.config)
        self._decoding = Decoding.read(config.decoding)
        paradigm.check_prompts(config, longest_prompt)

        optimizer, self.schedule = make_optimizer(config.optimizer, config.num_steps * config.updates_per_rollout)
        self.guard = Guard(config.guards, rollback=False)
        self._optimizer = self.guard.wrap(optimizer)
        self.abstract = abstract_state(self._model, self._optimizer, mesh, config.lora_rank)
        self.abstract_params = abstract_params(self._model, mesh)
        self.abstract_frozen = cast_matrices(self.abstract_params, self.config)
        self.parent = read_params(config.init_from, self.abstract_frozen) if paradigm.uses_parent(config) else None
        self.merge = None
        if config.lora_rank:
            shardings = jax.tree.map(lambda leaf: leaf.sharding, self.parent)
            self.merge = functools.partial(jax.jit(lora.merge, out_shardings=shardings), self.parent)

        self._tokenizer, self._longest_prompt, self._tool = tokenizer, longest_prompt, tool
        self._engine = self._make_engine(config.group_size, longest_prompt)
        self._logprobs = loop.make_logprobs(self._model, mesh, config.logits_chunk)
        self._accumulate = make_accumulate(
            loop.make_loss(self._model, paradigm.make_objective(config), config),
            mesh,
            frozen=self.parent if config.lora_rank else None,
        )
        self._apply = make_apply(self._optimizer, mesh)

    def _make_engine(self, group_size: int, longest_prompt: int) -> Engine:
        limits = self._fit(group_size, longest_prompt)
        codec = self._tokenizer if self._tool else None
        return Engine(self._model, self._mesh, limits, pad_id=self._tokenizer.pad_id, codec=codec)

    def _fit(self, group_size: int, longest_prompt: int) -> Limits:
        return fit(
            self._model.config,
            self._mesh,
            **self._config.rollout,
            group_size=group_size,
            longest_prompt=longest_prompt,
            max_new_tokens=self._decoding.max_new_tokens,
        )

    def forget_parent(self) -> None:
        """Gives the parent's memory back where nothing needs it beside a newer reference."""
        if not self.merge and self._config.source == "policy":
            self.parent = None

    def start(self) -> TrainState:
        """A new state: the parent's parameters, or adapters beside them."""
        config = self._config
        if config.lora_rank:
            return create_state(self._model, self._optimizer, self._mesh, config.seed, config.lora_rank)
        parent = read_params(config.init_from, self.abstract_params)  # what learns needs all digits
        return start_from(parent, self._model, self._optimizer, self._mesh, config.seed)

    def params(self, state: TrainState) -> Any:
        """The whole parameters as they stand; an update gives their memory away."""
        return self.merge(state.params) if self.merge else state.params

    def freeze(self, params: Any) -> Any:
        """Whole parameters that outlive the update, in the dtypes of the parent's."""
        return params if self.merge else run_state.freeze(params, self.config)

    def sample(self, params: Any, prompts: Sequence[Sequence[int]], requests: np.ndarray, key: Array) -> Samples:
        """A group for each prompt; `requests` name the random streams."""
        return self._engine.sample(
            params,
            prompts,
            requests.tolist(),
            key,
            decoding=self._decoding,
            group_size=self._config.group_size,
            stop_ids=self._stop_ids,
            tool=self._tool,
        )

    def check_labeller(self, num_completions: int) -> None:
        """Refuses too little memory for `make_labeller`, which is called hours after the start.

        Raises:
          InputError: the budget holds not even one prefix with one completion.
        """
        self._fit(num_completions, self._longest_prefix)

    @property
    def _longest_prefix(self) -> int:
        """Tokens of the longest question with all but the end of an answer, which is completed."""
        return self._longest_prompt + self._decoding.max_new_tokens

    def make_labeller(self, params: Any, num_completions: int) -> Callable[..., pyarrow.Table]:
        """Makes Math-Shepherd's labels by completions of the policy: (step, table, prompts) -> the labelled table.

        Args:
          params: of the policy.
          num_completions: of each step's prefix.
        """
        engine = self._make_engine(num_completions, self._longest_prefix)
        key = jax.random.fold_in(jax.random.key(self._config.seed), _LABEL)

        def label(step: int, table: pyarrow.Table, prompts: Sequence[Sequence[int]]) -> pyarrow.Table:
            return shepherd.label(
                table,
                prompts,
                engine,
                params,
                self._tokenizer,
                num_completions=num_completions,
                decoding=self._decoding,
                key=jax.random.fold_in(key, step),
            )

        return label

    def logprobs(self, params: Any, parts: Sequence[loop.MicroBatch]) -> np.ndarray:
        """By the training forward pass, float32 [questions, group_size, max_new_tokens]."""
        return loop.over(parts, self._logprobs, params)

    def update(self, state: TrainState, parts: Sequence[loop.MicroBatch]) -> tuple[TrainState, dict[str, Array]]:
        """One update, and its metrics."""
        return loop.update(state, parts, self._accumulate, self._apply)
