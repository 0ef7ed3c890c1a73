"""The explorer: asks the source, has the judge reward what it gives, and adds what the policy thinks of it."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.rl import exploration, loop, paradigm
from dsmath.rl.exploration import Stage
from dsmath.rl.judge import Judge
from dsmath.rl.policy import Policy
from dsmath.rl.rewards import Rewards
from dsmath.rollout.batches import make_batch
from dsmath.rollout.samples import Samples

_ROLLOUT = 1  # purpose of the random key


class Explorer:
    """Explores, one stage a call.

    Args:
      config: of the stage.
      mesh: of the run.
      policy, judge: who samples and who rewards.
      records, prompts: all questions, and their token ids.
      tokenizer: of the policy.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        mesh: Mesh,
        policy: Policy,
        judge: Judge,
        records: Sequence[Solution],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
    ):
        self._config, self._mesh, self._policy, self._judge = config, mesh, policy, judge
        self._records, self._prompts, self._tokenizer = records, prompts, tokenizer
        self._key = jax.random.fold_in(jax.random.key(config.seed), _ROLLOUT)

    def __call__(self, params: Any, cursor: int, version: int) -> Stage:
        """Outputs from the source, rewarded.

        Args:
          params: the policy's, as they stand.
          cursor: questions of the stream that are used up.
          version: updates that the policy has seen.
        """
        config = self._config
        sampler = params if config.source == "policy" else self._policy.parent
        seconds = dict.fromkeys(("rollout_seconds", "reward_seconds", "reference_seconds"), 0.0)
        stage = exploration.explore(
            lambda questions, requests: self._sample(sampler, questions, requests, seconds),
            cursor=cursor,
            num_groups=config.num_groups,
            num_questions=len(self._records),
            seed=config.seed,
            zero_variance=config.zero_variance,
            max_resamples=config.max_resamples,
            mask_truncated=config.mask_truncated,
            version=version,
        )
        if paradigm.uses_old_logprobs(config):
            began = time.perf_counter()
            batch = make_batch(self.asked(stage), stage.samples, self._tokenizer.pad_id)
            parts = loop.cut(batch, config.microbatch_tokens, self._mesh)
            stage = dataclasses.replace(stage, old_logprobs=self._policy.logprobs(sampler, parts))
            seconds["reference_seconds"] = time.perf_counter() - began
        return dataclasses.replace(stage, figures=stage.figures | seconds)

    def asked(self, stage: Stage) -> list[Sequence[int]]:
        """The prompts of a stage's questions."""
        return [self._prompts[index] for index in stage.questions]

    def _sample(
        self, sampler: Any, questions: np.ndarray, requests: np.ndarray, seconds: dict[str, float]
    ) -> tuple[Samples, Rewards]:
        began = time.perf_counter()
        asked = [self._records[index] for index in questions]
        if self._config.source == "sft_data":
            return exploration.from_data(asked, self._tokenizer, self._config.decoding.max_new_tokens)
        prompts = [self._prompts[index] for index in questions]
        samples = self._policy.sample(sampler, prompts, requests, self._key)
        sampled = time.perf_counter()
        rewards = self._judge.reward(samples, prompts, [record.answer for record in asked])
        seconds["rollout_seconds"] += sampled - began
        seconds["reward_seconds"] += time.perf_counter() - sampled
        return samples, rewards
