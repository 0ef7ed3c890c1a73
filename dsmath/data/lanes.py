"""Lanes: one row of every batch each, filled from examples that no other lane reads.

Lane r of B reads the examples r, r + B, r + 2 B, … of each corpus's shuffle, so what a row holds depends on its number
alone: not on the other rows, nor on which process makes them. A position is a few integers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dsmath.runs.errors import InputError

REPEAT, STOP = "repeat", "stop"
Row = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Examples to be read.

    Attributes:
      name: in the config.
      examples: by an index that goes on beyond `size`: each epoch in another order.
      size: number of examples in an epoch.
      mean_targets: of an example, about.
      weight: share of the targets that the corpus gives.
      on_exhausted: what follows the last example: "repeat" (the next epoch), or "stop" (an error).
    """

    name: str
    examples: Any
    size: int
    mean_targets: float
    weight: float = 1.0
    on_exhausted: str = REPEAT

    def read(self, index: int) -> Mapping[str, np.ndarray]:
        """An example; raises InputError beyond the last one where nothing is repeated."""
        if self.on_exhausted == STOP and index >= self.size:
            raise InputError(
                f"config.corpora.{self.name}: the corpus has been read whole (a row finds no further one of its "
                f"{self.size:,} documents); lower config.num_steps or its weight in config.weights, or set "
                f"config.on_exhausted={REPEAT}"
            )
        return self.examples[index]


class Lane(Protocol):
    """One row of every batch.

    Attributes:
      tokens: targets given so far, by corpus.
      drawn: examples drawn so far, by corpus.
    """

    tokens: list[int]
    drawn: list[int]

    def fill(self, row: Row) -> None:
        """Writes the next row into arrays of zeros, [length] each."""

    def get_position(self) -> list[int]:
        """Where the lane stands after the last row."""

    def set_position(self, position: Sequence[int]) -> None:
        """Goes on from there."""


class DocumentLane:
    """Documents of several corpora, concatenated and cut into full rows.

    The next document is of the corpus that has given the fewest tokens for its weight, so the shares hold at any time
    but for one document a corpus, however long the documents are. A lane
    begins as if it had run for long: within a document of a corpus chosen by weight, the others due at random. So all
    lanes together give about the shares in every batch, the first ones too.

    Args:
      corpora: the mixture.
      number, num_lanes: which lane of how many.
      seed: of where the lane begins.
    """

    def __init__(self, corpora: Sequence[Corpus], number: int, num_lanes: int, seed: int):
        self._corpora, self._number, self._num_lanes = corpora, number, num_lanes
        rng = np.random.default_rng((seed, number))
        weights = np.array([corpus.weight for corpus in corpora])
        self._first, self._begun = int(rng.choice(len(corpora), p=weights / weights.sum())), rng.random()
        self._head_start = (rng.random(len(corpora)) * [corpus.mean_targets for corpus in corpora]).tolist()
        self._head_start[self._first] = 0.0
        self.set_position([0] * (3 + 2 * len(corpora)))

    def fill(self, row: Row) -> None:
        start, segment, length = 0, 0, len(row["tokens"])
        while start < length:
            while not self._left():
                self._draw()
            count = min(length - start, self._left())
            segment += 1
            _put(row, start, segment, self._document[self._place : self._place + count + 1])
            start += count
            self._place += count
            self.tokens[self._current] += count

    def get_position(self) -> list[int]:
        return [self._current, self._place, self._skipped, *self.drawn, *self.tokens]

    def set_position(self, position: Sequence[int]) -> None:
        self._current, self._place, self._skipped, *counts = position
        self.drawn, self.tokens = counts[: len(self._corpora)], counts[len(self._corpora) :]
        self._taken = list(self.tokens)  # with what was skipped, and what is left of the current document
        self._taken[self._first] += self._skipped
        self._document = np.zeros(1, np.int32)
        if self.drawn[self._current]:
            self._document = self._read(self._current, self.drawn[self._current] - 1)
            self._taken[self._current] += self._left()

    def _left(self) -> int:
        """Targets of the current document that have not been given."""
        return max(len(self._document) - 1 - self._place, 0)

    def _draw(self) -> None:
        due = [
            (taken + head_start) / corpus.weight
            for taken, head_start, corpus in zip(self._taken, self._head_start, self._corpora, strict=True)
        ]
        self._current, self._place = due.index(min(due)), 0
        self._document = self._read(self._current, self.drawn[self._current])
        self._taken[self._current] += self._left()
        if not any(self.drawn):
            self._skipped = self._place = int(self._begun * self._left())
        self.drawn[self._current] += 1

    def _read(self, corpus: int, drawn: int) -> np.ndarray:
        return self._corpora[corpus].read(self._number + drawn * self._num_lanes)["tokens"]


class SolutionLane:
    """Whole solutions, concatenated at random; each goes into the first of `bins` rows where it fits.

    When one fits nowhere, these rows are given, and it begins the next ones.

    Args:
      corpus: examples with `tokens` and `loss_mask`.
      number, num_lanes: which lane of how many.
      length: of a row.
      bins: rows that are filled at a time.
    """

    def __init__(self, corpus: Corpus, number: int, num_lanes: int, length: int, bins: int):
        self._corpus, self._number, self._num_lanes = corpus, number, num_lanes
        self._length, self._num_bins = length, bins
        self.set_position([0, 0, 0])

    def fill(self, row: Row) -> None:
        if self._given == len(self._rows):
            self._pack(self.drawn[0])
        start = 0
        for segment, example in enumerate(self._rows[self._given], start=1):
            _put(row, start, segment, example["tokens"], example["loss_mask"][1:])
            start += len(example["tokens"]) - 1
        self._given += 1
        self.tokens[0] += start

    def get_position(self) -> list[int]:
        return [self._first, self._given, *self.tokens]

    def set_position(self, position: Sequence[int]) -> None:
        first, given, tokens = position
        self.tokens, self.drawn, self._rows = [tokens], [first], []
        if given:
            self._pack(first)
        self._first, self._given = first, given

    def _pack(self, first: int) -> None:
        """Fills the rows with the examples from `first` on."""
        self._first, self._given, self._rows = first, 0, []
        self.drawn = [first]
        room = [self._length] * self._num_bins
        rows = [[] for _ in room]
        while True:
            example = self._corpus.read(self._number + self.drawn[0] * self._num_lanes)
            size = len(example["tokens"]) - 1
            fitting = next((number for number, free in enumerate(room) if size <= free), None)
            if fitting is None:
                break
            rows[fitting].append(example)
            room[fitting] -= size
            self.drawn[0] += 1
        if not any(rows):
            raise ValueError(f"an example of {size} targets does not fit a row of {self._length}")
        self._rows = [row for row in rows if row]


def _put(row: Row, start: int, segment: int, tokens: np.ndarray, mask: np.ndarray | float = 1.0) -> None:
    """Writes an example, or a piece of one: every token but the last, each with the next one as its target."""
    place = slice(start, start + len(tokens) - 1)
    row["tokens"][place] = tokens[:-1]
    row["targets"][place] = tokens[1:]
    row["positions"][place] = np.arange(len(tokens) - 1)
    row["segment_ids"][place] = segment
    row["loss_mask"][place] = mask
