"""Exploration: questions from the shuffled stream, groups of samples for them, and what these earned."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from dsmath.data import chat
from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.rl.rewards import Rewards, summarize
from dsmath.rollout.samples import Samples, empty_samples
from dsmath.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one exploration stage brings.

    Attributes:
      questions: int [questions], which of the records was asked.
      requests: int [questions], places in the stream of questions; they name the random streams.
      samples: a group for each.
      rewards: of them.
      old_logprobs: float32 [questions, group_size, max_new_tokens], of the policy that sampled, by the training forward
        pass; None where they are not used.
      figures: metrics.
      cursor: questions of the stream that are used up.
      version: updates that the policy that sampled had seen.
    """

    questions: np.ndarray
    requests: np.ndarray
    samples: Samples
    rewards: Rewards
    old_logprobs: np.ndarray | None
    figures: dict[str, float]
    cursor: int
    version: int

    def take(self, groups: np.ndarray) -> "Stage":
        """The stage with some of its questions."""
        return dataclasses.replace(
            self,
            questions=self.questions[groups],
            requests=self.requests[groups],
            samples=Samples(*(array[groups] for array in self.samples)),
            rewards=self.rewards.take(groups),
            old_logprobs=None if self.old_logprobs is None else self.old_logprobs[groups],
        )


def choose_questions(places: Sequence[int], num_questions: int, seed: int) -> np.ndarray:
    """The questions at some places of the stream, in which each epoch is one shuffle of all.

    Args:
      places: ascending, from 0.
      num_questions: questions to choose from.
      seed: of the shuffles; a question depends on it and on its place alone.
    """
    epochs = {place // num_questions for place in places}
    orders = {epoch: np.random.default_rng((seed, epoch)).permutation(num_questions) for epoch in epochs}
    return np.array([orders[place // num_questions][place % num_questions] for place in places])


def explore(
    sample: Callable[[np.ndarray, np.ndarray], tuple[Samples, Rewards]],
    *,
    cursor: int,
    num_groups: int,
    num_questions: int,
    seed: int,
    zero_variance: str,
    max_resamples: int,
    mask_truncated: bool,
    version: int,
) -> Stage:
    """One exploration stage.

    Args:
      sample: (questions, requests) -> their samples and rewards.
      cursor: questions of the stream that are used up.
      num_groups: questions of a stage.
      num_questions, seed: of `choose_questions`.
      zero_variance: what becomes of groups whose rewards are all equal, which teach nothing: "keep", "skip", or
        "resample": others are asked until there are `num_groups` with different rewards (DAPO, Yu et al. 2025).
      max_resamples: rounds of it beyond the first.
      mask_truncated: samples cut at the token limit teach nothing either.
      version: updates that the policy that samples has seen.
    Returns:
      the stage; groups with a reward that is no number are left out and counted.
    Raises:
      InputError: no group has finite rewards.
    """
    rounds, found = [], 0
    for _ in range(1 + (max_resamples if zero_variance == "resample" else 0)):
        requests = np.arange(cursor, cursor + num_groups)
        cursor += num_groups
        questions = choose_questions(requests.tolist(), num_questions, seed)
        rounds.append((questions, requests, *sample(questions, requests)))
        found += int(_teach(*rounds[-1][2:], mask_truncated).sum())
        if found >= num_groups:
            break
    stage = _join(rounds, cursor, version)
    finite = stage.rewards.are_finite()
    if not finite.any():
        raise InputError(
            f"config.reward: no group of questions {stage.questions[0]} and on has rewards that are numbers; look at "
            "config.reward_model"
        )
    kept = np.flatnonzero(finite)
    if zero_variance != "keep":
        teaching = np.flatnonzero(_teach(stage.samples, stage.rewards, mask_truncated))
        kept = teaching[:num_groups] if len(teaching) else kept[:num_groups]
    return stage.take(kept)


def _teach(samples: Samples, rewards: Rewards, mask_truncated: bool) -> np.ndarray:
    """bool [questions]: groups of different rewards, all numbers, with a sample that is not masked out."""
    teaches = rewards.are_finite() & ~rewards.are_equal()
    return teaches & ~samples.truncated.all(axis=1) if mask_truncated else teaches


def _join(rounds: Sequence[tuple], cursor: int, version: int) -> Stage:
    questions, requests, samples, rewards = zip(*rounds, strict=True)
    samples = Samples(*map(np.concatenate, zip(*samples, strict=True)))
    rewards = _join_rewards(rewards)
    figures = summarize(rewards, samples) | {"rounds": float(len(rounds)), "tokens": float(samples.lengths.sum())}
    joined = map(np.concatenate, (questions, requests))
    return Stage(*joined, samples, rewards, None, figures, cursor, version)


def _join_rewards(rewards: Sequence[Rewards]) -> Rewards:
    steps = max((r.ends.shape[2] for r in rewards if r.ends is not None), default=0)

    def pad(array: np.ndarray | None, value: int) -> np.ndarray | None:
        return (
            None
            if array is None
            else np.pad(array, [(0, 0), (0, 0), (0, steps - array.shape[2])], constant_values=value)
        )

    columns = zip(*((r.outputs, r.correct, pad(r.steps, 0), pad(r.ends, -1), r.scores) for r in rewards), strict=True)
    return Rewards(*(None if column[0] is None else np.concatenate(column) for column in columns))


def keep_fitting(records: Sequence[Solution], tokenizer: Tokenizer, max_new_tokens: int) -> list[Solution]:
    """The records whose own solutions fit; of the others a warning tells.

    Raises:
      InputError: more than half are longer.
    """
    fitting = [record for record in records if len(chat.encode_solution(record, tokenizer)[0]) <= max_new_tokens]
    if 2 * len(fitting) < len(records):
        raise InputError(
            f"config.decoding.max_new_tokens: {len(records) - len(fitting)} of {len(records)} solutions are longer "
            f"than {max_new_tokens} tokens; raise it"
        )
    if len(fitting) < len(records):
        logging.warning(
            "%d of %d solutions are longer than config.decoding.max_new_tokens=%d tokens and are left out",
            len(records) - len(fitting),
            len(records),
            max_new_tokens,
        )
    return fitting


def from_data(records: Sequence[Solution], tokenizer: Tokenizer, max_new_tokens: int) -> tuple[Samples, Rewards]:
    """The data's own solutions in the form of samples, one a question; they are right."""
    samples = empty_samples(len(records), 1, max_new_tokens, tokenizer.pad_id)
    for question, record in enumerate(records):
        solution, mask = chat.encode_solution(record, tokenizer)
        samples.tokens[question, 0, : len(solution)] = solution
        samples.mask[question, 0, : len(solution)] = mask
        samples.lengths[question, 0] = len(solution)
    right = np.ones((len(records), 1), bool)
    return samples, Rewards(right.astype(np.float32), right)
