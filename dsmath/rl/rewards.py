"""Rewards of samples: by the rule, by a reward model, or mixed; of whole outputs or of their steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dsmath.reward.rules import answer_rewards
from dsmath.rollout.samples import Samples


class Rewards(NamedTuple):
    """What a stage's samples earned.

    Attributes:
      outputs: float32 [questions, group_size]; under process supervision the mean of an output's steps.
      correct: bool [questions, group_size], whether the rule finds the gold answer, whatever the reward is.
      steps: float32 [questions, group_size, steps], of each step; None under outcome supervision.
      ends: int32 of the same shape, the place of each step's last token; -1 where there is no step.
      scores: float32 [questions, group_size], what a reward model gives alone; None without one.
    """

    outputs: np.ndarray
    correct: np.ndarray
    steps: np.ndarray | None = None
    ends: np.ndarray | None = None
    scores: np.ndarray | None = None

    def are_equal(self) -> np.ndarray:
        """bool [questions]: all rewards of the group are the same, so that its advantages are zero."""
        if self.steps is None:
            return self.outputs.max(axis=1) == self.outputs.min(axis=1)
        is_step = self.ends >= 0
        highest = np.where(is_step, self.steps, -np.inf).max(axis=(1, 2))
        lowest = np.where(is_step, self.steps, np.inf).min(axis=(1, 2))
        return highest <= lowest

    def are_finite(self) -> np.ndarray:
        """bool [questions]: every reward of the group is a number."""
        finite = np.isfinite(self.outputs).all(axis=1)
        return finite if self.steps is None else finite & np.isfinite(self.steps).all(axis=(1, 2))

    def take(self, groups: np.ndarray) -> "Rewards":
        """The rewards of some questions."""
        return Rewards(*(None if array is None else array[groups] for array in self))


def decode_samples(samples: Samples, decode: Callable[[Sequence[int]], str]) -> list[list[str]]:
    """The texts of the samples, [questions, group_size]."""
    return [
        [decode(tokens[:length].tolist()) for tokens, length in zip(*group, strict=True)]
        for group in zip(samples.tokens, samples.lengths, strict=True)
    ]


def find_correct(texts: Sequence[Sequence[str]], golds: Sequence[str]) -> np.ndarray:
    """bool [questions, group_size]: which texts end in the gold answer of their question."""
    flat = [text for group in texts for text in group]
    repeated = [gold for gold, group in zip(golds, texts, strict=True) for _ in group]
    return answer_rewards(flat, repeated).reshape(len(texts), -1) > 0


def combine(
    reward: str, correct: np.ndarray, scores: np.ndarray | None, ends: np.ndarray | None, weights: Mapping[str, float]
) -> Rewards:
    """Rewards from the rule's verdicts and a reward model's scores.

    Args:
      reward: `config.reward`.
      correct: bool [questions, group_size].
      scores: of the reward model, float32 [questions, group_size], or [questions, group_size, steps] with `ends`.
      ends: see `Rewards`; None of an outcome model.
      weights: `config.reward_weights`, of "mixed": rule and model. The rule's part falls to an output's last step.
    """
    rule = correct.astype(np.float32)
    if reward == "rule":
        return Rewards(rule, correct)
    of_rule, of_model = (weights["rule"], weights["model"]) if reward == "mixed" else (0.0, 1.0)
    if ends is None:
        return Rewards((of_rule * rule + of_model * scores).astype(np.float32), correct, scores=scores)
    is_step = ends >= 0
    count = is_step.sum(axis=2)
    is_last = is_step & (np.arange(ends.shape[2]) == count[..., None] - 1)
    steps = np.where(is_step, of_model * scores + of_rule * rule[..., None] * is_last, 0.0).astype(np.float32)
    outputs, of_outputs = (x.sum(axis=2) / np.maximum(count, 1) for x in (steps, np.where(is_step, scores, 0.0)))
    return Rewards(outputs, correct, steps, ends, of_outputs.astype(np.float32))


def summarize(rewards: Rewards, samples: Samples) -> dict[str, float]:
    """What a stage's samples look like; shares and means over all of them."""
    outputs = np.where(np.isfinite(rewards.outputs), rewards.outputs, 0.0)
    of_model = {} if rewards.scores is None else {"reward/model": float(np.nanmean(rewards.scores))}
    return of_model | {
        "reward": float(outputs.mean()),
        "reward_std": float(outputs.std(axis=1).mean()),
        "accuracy": float(rewards.correct.mean()),
        "solved": float(rewards.correct.any(axis=1).mean()),  # questions that any sample solves
        "zero_variance_groups": float(rewards.are_equal().mean()),  # their advantages are zero: they teach nothing
        "nonfinite_rewards": float((~rewards.are_finite()).mean()),  # groups that are left out for it
        "truncated": float(samples.truncated.mean()),
        "empty": float((samples.lengths <= 1).mean()),  # nothing but the end
        "length": float(samples.lengths.mean()),
        "length_max": float(samples.lengths.max()),
    }
