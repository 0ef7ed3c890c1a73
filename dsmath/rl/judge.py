"""The judge: rewards samples by the rule, by a reward model, or by both."""

from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from jax.sharding import Mesh

from dsmath.data.tokenizer import Tokenizer
from dsmath.reward import models
from dsmath.reward.steps import group_step_ends
from dsmath.rl import loop
from dsmath.rl.rewards import Rewards, combine, decode_samples, find_correct
from dsmath.rollout.batches import make_batch
from dsmath.rollout.samples import Samples
from dsmath.runs import processes
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import CONFIG, read_json, to_path

_KINDS = {"outcome_model": models.OUTCOME, "process_model": models.PROCESS}


class Judge:
    """Rewards samples as a config says; the parameters of its reward model may be changed.

    Args:
      config: reward, reward_model, reward_weights, iterations, microbatch_tokens.
      mesh: of the run.
      tokenizer: the policy's.
    Raises:
      InputError: `config.reward_model` is no reward model, is of the wrong kind, or reads other tokens.
    """

    def __init__(self, config: ml_collections.ConfigDict, mesh: Mesh, tokenizer: Tokenizer):
        self._config, self._mesh, self._tokenizer = config, mesh, tokenizer
        self.model: models.RewardModel | None = None
        if config.reward_model:
            learns = config.iterations > 1  # between two of them
            self.model = models.read(config.reward_model, mesh, tokenizer, learns=learns)
            wanted = _KINDS.get(config.reward, self.model.kind)
            if self.model.kind != wanted:
                raise InputError(
                    f"config.reward_model={config.reward_model!r}: is of kind {self.model.kind}, and config.reward="
                    f"{config.reward} needs one of kind {wanted}; give another, or change config.reward"
                )
            if config.scale_advantages == "batch" and self.needs_steps:
                raise InputError("config.scale_advantages: rewards of steps are scaled by group; choose group or none")
            self._values = models.make_values(self.model.model, mesh, self.model.loss)

    @property
    def num_completions(self) -> int:
        """Completions of a step's prefix by which the reward model's labels are made."""
        return read_json(to_path(self._config.reward_model) / CONFIG)["num_completions"]

    @property
    def needs_steps(self) -> bool:
        """Whether a reward model scores steps."""
        return self.model is not None and self.model.kind == models.PROCESS

    def replace_params(self, params: Any) -> None:
        """Goes on with other parameters of the reward model."""
        self.model = self.model._replace(params=params)

    def reward(self, samples: Samples, prompts: Sequence[Sequence[int]], golds: Sequence[str]) -> Rewards:
        """The rewards of samples.

        Args:
          samples: groups of the questions.
          prompts: token ids of the questions.
          golds: their gold answers.
        """
        correct, ends = self._read(samples, golds)
        scores = None
        if self.model:
            parts = loop.cut(
                make_batch(prompts, samples, self._tokenizer.pad_id), self._config.microbatch_tokens, self._mesh
            )
            values = loop.over(parts, self._values, self.model.params)
            if ends is None:
                scores = np.asarray(models.outcome_scores(values, {"lengths": samples.lengths}))
            else:
                scores = np.asarray(models.process_scores(values, ends))
        return combine(self._config.reward, correct, scores, ends, self._config.reward_weights)

    def _read(self, samples: Samples, golds: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
        """The rule's verdicts and the steps' ends; one process finds them for all: a limit of time may fall otherwise
        in another."""
        found = None
        if processes.is_main():
            correct = find_correct(decode_samples(samples, self._tokenizer.decode), golds)
            ends = None
            if self.needs_steps:
                ends = group_step_ends(samples.tokens, samples.lengths, self._tokenizer.decode).tolist()
            found = [correct.tolist(), ends]
        correct, ends = processes.broadcast(found)
        return np.array(correct), None if ends is None else np.array(ends, np.int32)
