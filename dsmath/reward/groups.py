"""Labelled solutions by question: from tables of samples, into the batches of a reward model."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow
from absl import logging

from dsmath.data import chat
from dsmath.data.process_labels import LabelledSolution
from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.reward.models import OUTCOME, PAIRWISE
from dsmath.reward.steps import find_ends
from dsmath.rollout import batches
from dsmath.rollout.samples import PREFIX_BUCKET, Samples, empty_samples
from dsmath.runs.errors import InputError


class Labelled(NamedTuple):
    """A solution with its labels.

    Attributes:
      tokens: its ids, int32 [length].
      label: 1 right, 0 wrong; NaN where the outcome is not known.
      ends: place of each labelled step's last token, int32 [steps].
      step_labels: of these steps, float32 [steps]: 1 or 0, or the share of completions that reached the gold answer.
        A step above 0 is right.
      whole: whether every step up to the solution's end has a label.
    """

    tokens: np.ndarray
    label: float
    ends: np.ndarray
    step_labels: np.ndarray
    whole: bool


class Group(NamedTuple):
    """A question's labelled solutions.

    Attributes:
      prompt: token ids up to where a solution starts.
      solutions: some.
    """

    prompt: Sequence[int]
    solutions: Sequence[Labelled]


def from_table(table: pyarrow.Table, prompts: Sequence[Sequence[int]], soft: bool) -> list[Group]:
    """The groups of a table that `dsmath.reward.shepherd` has labelled, or of graded samples.

    Args:
      table: rows with question_index, token_ids, correct and, where steps have labels, step_ends, step_hits and
        completions.
      prompts: token ids by question_index.
      soft: whether a step's label is the share of its completions that reached the gold answer, or whether any did.
    """
    groups: dict[int, list[Labelled]] = {}
    for row in table.to_pylist():
        hits = np.array(row.get("step_hits") or [], np.float32)
        labels = hits / row["completions"] if soft and len(hits) else (hits > 0).astype(np.float32)
        ends = np.array(row.get("step_ends") or [], np.int32)
        tokens = np.array(row["token_ids"], np.int32)
        groups.setdefault(row["question_index"], []).append(Labelled(tokens, float(row["correct"]), ends, labels, True))
    return [Group(prompts[index], solutions) for index, solutions in sorted(groups.items())]


def to_table(samples: Samples, golds: Sequence[str], correct: np.ndarray) -> pyarrow.Table:
    """Graded groups as `from_table` and `dsmath.reward.shepherd.label` read them.

    Args:
      samples: groups of questions.
      golds: the questions' gold answers.
      correct: bool [questions, group_size].
    """
    rows = [
        {
            "question_index": question,
            "gold": golds[question],
            "token_ids": samples.tokens[question, sample, :length].tolist(),
            "correct": bool(correct[question, sample]),
        }
        for (question, sample), length in np.ndenumerate(samples.lengths)
    ]
    return pyarrow.Table.from_pylist(rows)


def from_solutions(records: Sequence[LabelledSolution], tokenizer: Tokenizer) -> list[Group]:
    """The groups of a file's labelled solutions; those that the tokenizer does not give back are left out, and said."""
    groups: dict[str, list[Labelled]] = {}
    left_out = 0
    for record in records:
        steps = [f" {record.steps[0].lstrip()}", *record.steps[1:]]
        tokens = tokenizer.encode("".join(steps))
        if tokenizer.decode(tokens) != "".join(steps):
            left_out += 1
            continue
        tokens += [tokenizer.eos_id] * record.finished
        known = [index for index, label in enumerate(record.labels) if label is not None]
        ends = find_ends(tokens, tokenizer.decode, steps)
        groups.setdefault(record.question, []).append(
            Labelled(
                tokens=np.array(tokens, np.int32),
                label=np.nan if record.correct is None else float(record.correct),
                ends=np.array([ends[index] for index in known], np.int32),
                step_labels=np.array([record.labels[index] for index in known], np.float32),
                whole=len(known) == len(steps),
            )
        )
    if left_out:
        logging.warning("%d labelled solutions have signs that the tokenizer loses, and are left out", left_out)
    return [
        Group(chat.encode_prompt(Solution(question, "", ""), tokenizer), solutions)
        for question, solutions in groups.items()
    ]


def cut(groups: Sequence[Group], group_size: int, max_tokens: int) -> list[Group]:
    """Groups of at most `group_size` solutions of at most `max_tokens` tokens; longer ones are left out, and said.

    Raises:
      InputError: nothing is left.
    """
    found, left_out = [], 0
    for group in groups:
        fitting = [solution for solution in group.solutions if 0 < len(solution.tokens) <= max_tokens]
        left_out += len(group.solutions) - len(fitting)
        found += [Group(group.prompt, fitting[i : i + group_size]) for i in range(0, len(fitting), group_size)]
    if left_out:
        logging.warning(
            "%d labelled solutions are empty or longer than config.decoding.max_new_tokens=%d and are left out",
            left_out,
            max_tokens,
        )
    if not found:
        raise InputError(f"config.decoding.max_new_tokens: no labelled solution has 1 to {max_tokens} tokens; raise it")
    return found


def keep_telling(groups: Sequence[Group], kind: str, loss: str, source: str) -> list[Group]:
    """Those groups from which the loss learns.

    Args:
      groups: to train on.
      kind, loss: of the reward model.
      source: the config's field that says where the labels come from.
    Raises:
      InputError: there are none, or all labels are equal.
    """
    if kind == OUTCOME:
        labels = [np.array([s.label for s in group.solutions]) for group in groups]
    else:
        labels = [np.concatenate([s.step_labels for s in group.solutions]) for group in groups]
    tells = [len(set(found[~np.isnan(found)].tolist())) > (loss == PAIRWISE) for found in labels]
    kept = [group for group, kept in zip(groups, tells, strict=True) if kept]
    if not kept and loss == PAIRWISE:
        raise InputError(
            f"{source}: no question has a right and a wrong solution, so there is no pair to learn from; raise "
            "config.num_samples or config.decoding.temperature, or take config.loss=sigmoid"
        )
    if not kept:
        raise InputError(f"{source}: has no labels of kind {kind}; take another file, or another config.kind")
    if len({value for found in labels for value in found[~np.isnan(found)].tolist()}) == 1:
        value = next(value for found in labels for value in found if not np.isnan(value))
        raise InputError(
            f"{source}: all labels are {value:g}, so there is nothing to learn; take another sampler or other problems"
        )
    return kept


def hold_out(groups: Sequence[Group], share: float, seed: int) -> tuple[list[Group], list[Group]]:
    """Splits groups by question into those to train on and those held out, one of each at least.

    Raises:
      InputError: fewer than two questions.
    """
    questions = sorted({tuple(group.prompt) for group in groups})
    if len(questions) < 2:
        raise InputError("config.held_out: one question cannot be split; take more of them (config.num_problems)")
    count = min(max(1, round(share * len(questions))), len(questions) - 1)
    held = {questions[index] for index in np.random.default_rng(seed).permutation(len(questions))[:count]}
    train = [group for group in groups if tuple(group.prompt) not in held]
    return train, [group for group in groups if tuple(group.prompt) in held]


def most_steps(groups: Sequence[Group]) -> int:
    """The most labelled steps of a solution, rounded up by `size_of`; 1 where there are none."""
    return batches.size_of(
        max((len(solution.ends) for group in groups for solution in group.solutions), default=1) or 1
    )


def make_batch(
    groups: Sequence[Group], group_size: int, max_tokens: int, steps: int, pad_id: int
) -> dict[str, np.ndarray]:
    """A batch of groups, see `dsmath.rollout.batches.make_batch`, with the labels that `models.make_loss` takes.

    Args:
      groups: of at most `group_size` solutions of at most `max_tokens` tokens and `steps` labelled steps; the rest is
        empty. A run keeps to one number of each, so few programs compile.
      pad_id: token id that fills arrays.
    """
    samples = empty_samples(len(groups), group_size, max_tokens, pad_id)
    shape = (len(groups), group_size)
    labels, label_mask = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    ends, step_labels = np.full((*shape, steps), -1, np.int32), np.zeros((*shape, steps), np.float32)
    for place, solution in _places(groups):
        length = len(solution.tokens)
        samples.tokens[place][:length] = solution.tokens
        samples.mask[place][:length] = 1
        samples.lengths[place] = length
        if not np.isnan(solution.label):
            labels[place], label_mask[place] = solution.label, 1
        ends[place][: len(solution.ends)] = solution.ends
        step_labels[place][: len(solution.ends)] = solution.step_labels
    added = {"labels": labels, "label_mask": label_mask, "step_ends": ends, "step_labels": step_labels}
    batch = batches.make_batch([group.prompt for group in groups], samples, pad_id)
    length = batch["prompts"].shape[1]
    prompts = np.pad(batch["prompts"], [(0, 0), (0, prefix_length(length) - length)], constant_values=pad_id)
    return batch | added | {"prompts": prompts}


def prefix_length(longest: int) -> int:
    """The length that a batch's prompts are padded to, one of few: so few programs compile."""
    return PREFIX_BUCKET * batches.size_of(-(-longest // PREFIX_BUCKET))


def _places(groups: Sequence[Group]):
    for row, group in enumerate(groups):
        for column, solution in enumerate(group.solutions):
            yield (row, column), solution


class GroupBatches:
    """An endless iterator of batches: each epoch is one shuffle of all groups. See `dsmath.train.loop.BatchIterator`.

    Args:
      groups: to train on.
      batch_size: groups of a batch.
      seed: of the shuffles.
      make: groups to the batch's arrays, such as `make_batch`.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        batch_size: int,
        seed: int,
        make: Callable[[Sequence[Group]], dict[str, np.ndarray]],
    ):
        self._groups, self._batch_size, self._seed, self._make = groups, batch_size, seed, make
        self._step = 0

    def __next__(self) -> dict[str, np.ndarray]:
        places = range(self._step * self._batch_size, (self._step + 1) * self._batch_size)
        self._step += 1
        size = len(self._groups)
        orders = {
            epoch: np.random.default_rng((self._seed, epoch)).permutation(size)
            for epoch in {place // size for place in places}
        }
        return self._make([self._groups[orders[place // size][place % size]] for place in places])

    def get_state(self) -> int:
        return self._step

    def set_state(self, state: int) -> None:
        self._step = state

    def merge_states(self, states: Sequence[int]) -> int:
        return max(states)

    def counts(self) -> Mapping[str, int]:
        return {}
