"""From examples to batches: rows of packed examples without attention across them, made ahead, resumable exactly."""

import concurrent.futures
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import logging

from dsmath.data.lanes import REPEAT, STOP, Corpus, DocumentLane, Lane, SolutionLane
from dsmath.runs.errors import InputError

_AHEAD = 2  # batches that are made while the step runs
_SAMPLE = 1000  # examples that tell how long a corpus's are
_FIELDS = {
    "tokens": np.int32,
    "targets": np.int32,
    "positions": np.int32,
    "segment_ids": np.int32,
    "loss_mask": np.float32,
}


class Batches:
    """An endless iterator of the batches of one process; its position can be saved.

    A batch holds `tokens`, `targets`, `positions`, `segment_ids` (0 is padding), int32, and `loss_mask`, float32,
    [rows, length] each. One thread makes them ahead, in order; the position is that after the batch last given.

    Args:
      corpora: what the lanes read.
      lanes: by the number of their row in the global batch.
      batch_size: rows of the global batch.
      length: of a row.
    """

    def __init__(self, corpora: Sequence[Corpus], lanes: Mapping[int, Lane], batch_size: int, length: int):
        self._corpora, self._lanes, self._batch_size, self._length = corpora, lanes, batch_size, length
        self._maker = concurrent.futures.ThreadPoolExecutor(1, "batches")
        self._ahead: deque[concurrent.futures.Future] = deque()
        self._stands = self._look()

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        while len(self._ahead) <= _AHEAD:
            self._ahead.append(self._maker.submit(self._make))
        epochs = self._epochs()
        batch, self._stands = self._ahead.popleft().result()
        if 0 in self._lanes:  # one process speaks for all
            self._tell(epochs)
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position of this process's rows, as JSON; `merge_states` joins those of all."""
        return {
            "corpora": [corpus.name for corpus in self._corpora],
            "batch_size": self._batch_size,
            "rows": {str(number): position for number, position in self._stands["positions"].items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a position; it may hold more rows than this process has.

        Raises:
          InputError: the position is of another batch size or other corpora.
        """
        here = self.get_state()
        for name in ("batch_size", "corpora"):
            if state.get(name) != here[name]:
                raise InputError(
                    f"config.{name}: the checkpoint's data stands at {name} {state.get(name)!r}, not {here[name]!r}; "
                    "resume with the value with which the run began"
                )
        for future in self._ahead:
            future.cancel()
        concurrent.futures.wait(self._ahead)
        self._ahead.clear()
        for number, lane in self._lanes.items():
            lane.set_position(state["rows"][str(number)])
        self._stands = self._look()

    @staticmethod
    def merge_states(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Joins the positions of all processes; those that make the same row must agree.

        Raises:
          ValueError: they are not of one run and one step.
        """
        merged: dict[str, Any] = {}
        for state in states:
            merged = merged or {**state, "rows": {}}
            for row, position in state["rows"].items():
                if merged["rows"].setdefault(row, position) != position:
                    raise ValueError(
                        f"row {row} stands at {position} in one process and {merged['rows'][row]} in another"
                    )
            if {**state, "rows": None} != {**merged, "rows": None}:
                raise ValueError("the positions are of different corpora or batch sizes")
        return merged

    def counts(self) -> dict[str, int]:
        """Tokens that this process's rows have held, by corpus, padding left out."""
        return {corpus.name: count for corpus, count in zip(self._corpora, self._stands["tokens"], strict=True)}

    def _make(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        shape = (len(self._lanes), self._length)
        batch = {name: np.zeros(shape, dtype) for name, dtype in _FIELDS.items()}
        for row, lane in enumerate(self._lanes.values()):
            lane.fill({name: array[row] for name, array in batch.items()})
        return batch, self._look()

    def _look(self) -> dict[str, Any]:
        """Where the lanes stand now."""
        lanes = self._lanes.values()
        return {
            "positions": {number: lane.get_position() for number, lane in self._lanes.items()},
            "tokens": [sum(counts) for counts in zip(*(lane.tokens for lane in lanes), strict=True)],
            "drawn": [sum(counts) for counts in zip(*(lane.drawn for lane in lanes), strict=True)],
        }

    def _epochs(self) -> list[int]:
        """How often each corpus has been read whole, judged by this process's share of the rows."""
        drawn = zip(self._stands["drawn"], self._corpora, strict=True)
        return [count * self._batch_size // (len(self._lanes) * corpus.size) for count, corpus in drawn]

    def _tell(self, before: list[int]) -> None:
        for name, tokens, epoch, now in zip(self.counts(), self.counts().values(), before, self._epochs(), strict=True):
            if now > epoch:
                given = tokens * self._batch_size // len(self._lanes)
                logging.warning("%s: epoch %d begins after %d tokens", name, now + 1, given)


def document_batches(
    sources: Mapping[str, Any],
    weights: Mapping[str, float],
    *,
    length: int,
    batch_size: int,
    seed: int,
    on_exhausted: str = REPEAT,
    rows: Sequence[int] | None = None,
) -> Batches:
    """A mixture of documents, concatenated and cut into full rows.

    Args:
      sources: random-access examples with `tokens`, by the corpus's name.
      weights: share of the tokens that each corpus gives; they need not sum to 1.
      length: tokens of a row.
      batch_size: rows of a batch, of all processes together.
      seed: of the shuffle.
      on_exhausted: what follows a corpus's last document: "repeat" (it is read again in another order), or "stop" (an
        error).
      rows: those of this process; all where not given. What they hold does not depend on it.
    Raises:
      InputError: weights that are not positive or do not fit the sources; another `on_exhausted`; a corpus without
        tokens.
    Source: DeepSeekMath §2.3 (the mixture).
    """
    check_mixture(sources, weights, on_exhausted)
    corpora = [
        Corpus(
            name,
            grain.MapDataset.source(sources[name]).seed(seed + index).shuffle().repeat(),
            len(sources[name]),
            _mean_targets(name, sources[name]),
            weights[name],
            on_exhausted,
        )
        for index, name in enumerate(sorted(sources))
    ]
    numbers = range(batch_size) if rows is None else rows
    lanes = {row: DocumentLane(corpora, row, batch_size, seed) for row in numbers}
    return Batches(corpora, lanes, batch_size, length)


def check_mixture(corpora: Iterable[str], weights: Mapping[str, float], on_exhausted: str) -> None:
    """Refuses weights that are not positive or do not fit the names of the corpora, and an unknown `on_exhausted`."""
    names = set(corpora)
    if not names:
        raise InputError("config.corpora: empty; name at least one corpus")
    if names != set(weights):
        raise InputError(f"config.weights: has {sorted(weights)}, but config.corpora has {sorted(names)}")
    if not all(weight > 0 for weight in weights.values()):
        raise InputError(f"config.weights: {dict(weights)} must be positive; leave a corpus out instead")
    if on_exhausted not in (REPEAT, STOP):
        raise InputError(f"config.on_exhausted: {on_exhausted!r} is none of {REPEAT}, {STOP}")


def warn_of_epochs(sources: Mapping[str, Any], weights: Mapping[str, float], num_tokens: int) -> None:
    """Warns of each corpus that has fewer tokens than a run of `num_tokens` takes of it."""
    for name, source in sources.items():
        taken = num_tokens * weights[name] / sum(weights.values())
        there = _mean_targets(name, source) * len(source)
        if taken > there:
            logging.warning(
                "config.weights.%s: the run takes %d tokens of a corpus of about %d: %.1f epochs",
                name,
                taken,
                there,
                taken / there,
            )


def solution_batches(
    source: Any, *, length: int, batch_size: int, seed: int, packing_bins: int, rows: Sequence[int] | None = None
) -> Batches:
    """Whole examples, concatenated at random into rows; each epoch is in another order.

    Args:
      source: random-access examples with `tokens` and `loss_mask`, none longer than `length + 1`.
      length, batch_size, seed, rows: as in `document_batches`.
      packing_bins: rows that a lane fills at a time, each example into the first where it fits.
    Source: DeepSeekMath §3 (random concatenation up to the context length).
    """
    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    corpus = Corpus("solutions", examples, len(source), _mean_targets("solutions", source))
    numbers = range(batch_size) if rows is None else rows
    lanes = {row: SolutionLane(corpus, row, batch_size, length, packing_bins) for row in numbers}
    return Batches([corpus], lanes, batch_size, length)


def _mean_targets(name: str, source: Any) -> float:
    """Targets of an example, from up to 1,000 of them, evenly spread."""
    chosen = np.linspace(0, len(source) - 1, min(len(source), _SAMPLE)).astype(int).tolist()
    mean = float(np.mean([len(source[index]["tokens"]) - 1 for index in chosen]))
    if mean <= 0:
        raise InputError(f"config.corpora.{name}: its documents hold no tokens; give another corpus")
    return mean
