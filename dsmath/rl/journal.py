"""What a run leaves for people: its samples, the page that shows them, the legend of its figures, warnings."""

import os
from collections.abc import Mapping, Sequence

import jax
import ml_collections
import numpy as np

from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.rl import legend, page, samples
from dsmath.rl.coefficients import gradient_coefficients
from dsmath.rl.exploration import Stage
from dsmath.rl.paradigm import Objective
from dsmath.runs import processes

_PAGE_TOKENS = 60_000  # that samples.html shows: a few megabytes


class Journal:
    """Keeps the journal of a run; of many processes the first one alone writes.

    Args:
      workdir: of the run.
      config: samples_every, keep_samples, warnings, coefficient, reward.
      objective: the run's.
      records, prompts: all questions, and their token ids.
      tokenizer: of the policy.
      start: the step that the run starts after; what a killed run wrote beyond it is dropped.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        config: ml_collections.ConfigDict,
        objective: Objective,
        records: Sequence[Solution],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        start: int,
    ):
        self._workdir, self._config, self._objective = workdir, config, objective
        self._records, self._prompts, self._tokenizer = records, prompts, tokenizer
        limits = config.warnings.to_dict()
        if config.coefficient != "grpo":  # elsewhere a group's rewards may be equal
            limits.pop("zero_variance_groups", None)
        self._alarm = legend.Alarm(limits)
        if processes.is_main():
            legend.write_legend(workdir)
            samples.go_back(workdir, start)

    def keep(self, step: int, figures: Mapping[str, float], stage: Stage, batch: Mapping[str, np.ndarray]) -> None:
        """Warns where a figure asks for it; now and then writes the samples and their page.

        Args:
          step: its number.
          figures: its metrics, written already.
          stage: its samples.
          batch: what was learned from them, on the host.
        """
        if not processes.is_main():
            return
        self._alarm.look(step, figures)
        config = self._config
        if not config.samples_every or (step % config.samples_every and step != config.num_steps):
            return
        rewards = stage.rewards
        table = samples.make_table(
            step,
            stage.requests.tolist(),
            [self._records[index] for index in stage.questions],
            [self._prompts[index] for index in stage.questions],
            stage.samples,
            self._tokenizer,
            rewards=rewards.outputs,
            correct=rewards.correct,
            parts={"rule": rewards.correct, "model": rewards.scores} if config.reward == "mixed" else None,
            step_ends=rewards.ends,
            step_rewards=rewards.steps,
            **self._by_token(stage, batch),
        )
        samples.write(self._workdir, step, table, keep=config.keep_samples)
        page.write_page(self._workdir, _PAGE_TOKENS)

    def _by_token(self, stage: Stage, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | None]:
        """Advantages and gradient coefficients of the samples' tokens, the latter before the first update."""
        shape = stage.samples.tokens.shape
        if self._config.coefficient == "dpo":  # its batch holds the samples in pairs: told is which way each is pushed
            signs = np.zeros(shape[:2], np.float32)
            for sign, places in zip((1.0, -1.0), np.split(batch["pairs"], 2, axis=1), strict=True):
                rows, columns = np.nonzero(places >= 0)
                signs[rows, places[rows, columns]] = sign
            return {"advantages": signs}
        logprobs = stage.samples.logprobs if stage.old_logprobs is None else stage.old_logprobs
        # Without the entropies, which are no part of a coefficient.
        batch = batch | {"entropies": np.zeros(shape, np.float32)}
        coefficients = gradient_coefficients(lambda x: self._objective(x, batch)[0], logprobs, batch["mask"])
        advantages = batch["advantages"] if "advantages" in batch else batch["weights"][..., None]
        return {
            "advantages": np.broadcast_to(advantages, shape),
            "coefficients": np.asarray(jax.device_get(coefficients)),
            "ref_logprobs": batch.get("ref_logprobs"),
        }
