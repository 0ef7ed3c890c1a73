"""Metrics as curves: read as they grow, smoothed, and thinned to what a screen can show."""

import array
import collections
import dataclasses
import itertools
import math
import threading
from typing import Any

import numpy as np
import pydantic_core
import scipy.signal

from dsmath.runs.metrics import METRICS
from dsmath.view.files import Folder
from dsmath.view.runs import Run

AXES = ("step", "tokens", "time")
MOST_POINTS = 1_000  # of a curve
MOST_BYTES = 2**30  # of a metrics.jsonl
MOST_NAMES = 500  # of metrics
_MOST_VALUES = 60_000_000  # of all runs that are kept in memory: about 1 GB
_CHUNK = 2**22
_TAIL = 256


@dataclasses.dataclass
class _Column:
    """One metric: its values and the records that they stand in."""

    places: array.array = dataclasses.field(default_factory=lambda: array.array("q"))
    values: array.array = dataclasses.field(default_factory=lambda: array.array("d"))


class Table:
    """The metrics of one run, read on from where they were left.

    Args:
      folder: the root.
      name: of the metrics.jsonl below it.
    """

    def __init__(self, folder: Folder, name: str):
        self._folder, self._name = folder, name
        self.lock = threading.Lock()
        self._restart()

    def _restart(self) -> None:
        self._read, self._tail = 0, b""  # bytes, and the last of them
        self._number = 0  # of records
        self.columns: dict[str, _Column] = {}
        self.broken = 0  # lines
        self.problems: list[str] = []

    def __len__(self) -> int:
        return sum(len(column.values) for column in self.columns.values())

    def refresh(self) -> None:
        """Reads what has been written since; a file that was replaced, as a resumed run does, is read anew.

        Raises:
          LookupError: there is no such file.
        """
        with self._folder.open(self._name) as file:
            file.seek(self._read - len(self._tail))
            if file.read(len(self._tail)) != self._tail:
                self._restart()
                file.seek(0)
            rest = b""
            while (chunk := file.read(_CHUNK)) and self._read < MOST_BYTES:
                content = rest + chunk
                *lines, rest = content.split(b"\n")
                if len(rest) > _CHUNK:
                    rest = b""
                    self.broken += 1
                self._tail = (self._tail + content[: len(content) - len(rest)])[-_TAIL:]
                for line in lines:
                    self._add(line)
                self._read = file.tell() - len(rest)  # a last line that is half written is read when it is whole
            if chunk and not self.problems:
                self.problems.append(f"{self._name}: only its first {MOST_BYTES >> 20} MiB are shown")

    def _add(self, line: bytes) -> None:
        try:
            record = pydantic_core.from_json(line)
            step = record["step"]
            if type(step) is not int or not 0 <= step < 2**53:
                raise TypeError
        except (ValueError, TypeError, KeyError):
            self.broken += bool(line.strip())
            return
        place = self._number
        self._number += 1
        for name, value in record.items():
            if type(value) not in (int, float):
                continue
            column = self.columns.get(name)
            if column is None:
                if len(self.columns) >= MOST_NAMES:
                    continue
                column = self.columns[name] = _Column()
            column.places.append(place)
            column.values.append(_as_float(value))

    def names(self) -> list[str]:
        """The metrics, sorted."""
        return sorted(self.columns.keys() - {"step"})

    def axis(self, name: str) -> np.ndarray | None:
        """float64 [records]: where each record stands, None where the run does not tell; hours on the time axis.

        Tokens are those of a training run's corpora, or those that a reinforcement run sampled. Time is that of
        training alone: pauses do not count.
        """
        step = np.array(self.columns["step"].values) if self.columns else np.zeros(0)
        if name == "step":
            return step
        rate, seconds = self._full("tokens_per_second"), self._full("seconds")
        corpora = [self._full(column) for column in self.columns if column.startswith("tokens/")]
        corpora = [tokens for tokens in corpora if tokens is not None]
        if corpora:
            tokens = np.nansum(corpora, axis=0)
        elif rate is not None and seconds is not None:
            tokens = np.nancumsum(rate * seconds)
        else:
            tokens = None
        if name == "tokens":
            return tokens
        if seconds is not None:
            return np.nancumsum(seconds) / 3600
        if tokens is None or rate is None:
            return None
        known = np.isfinite(rate) & (rate > 0)
        if not known.any():
            return None
        following = np.minimum(np.searchsorted(np.flatnonzero(known), np.arange(len(rate))), known.sum() - 1)
        rate = rate[np.flatnonzero(known)[following]]  # the first record, which compiles, has none: the next one's
        return np.cumsum(np.diff(tokens, prepend=0.0) / rate) / 3600

    def _full(self, name: str) -> np.ndarray | None:
        """float64 [records], NaN where a record lacks it; None where all do."""
        if name not in self.columns:
            return None
        column = self.columns[name]
        full = np.full(self._number, np.nan)
        full[np.array(column.places)] = np.array(column.values)
        return full

    def curve(self, name: str, axis: str, smoothing: float) -> dict[str, Any] | None:
        """One metric, thinned.

        Returns:
          x, y, number: of points before thinning, not_finite: values that cannot be drawn, last: the newest value as it
          is; None where the run has no such metric or does not tell the axis.
        """
        x = self.axis(axis)
        if name not in self.columns or x is None:
            return None
        y = np.array(self.columns[name].values)
        x = x[np.array(self.columns[name].places)]
        drawn = np.isfinite(y) & np.isfinite(x)
        last = float(y[-1]) if np.isfinite(y[-1]) else None
        not_finite = int(len(y) - drawn.sum())
        x, y = x[drawn], y[drawn]
        number = len(y)
        x, y = thin(x, smooth(y, smoothing), MOST_POINTS)
        return {"x": x.tolist(), "y": y.tolist(), "number": number, "not_finite": not_finite, "last": last}


class Tables:
    """The metrics of all runs, those that were asked for last kept in memory; safe to use from several threads.

    Args:
      folder: the root.
    """

    def __init__(self, folder: Folder):
        self._folder, self._lock = folder, threading.Lock()
        self._tables: collections.OrderedDict[str, Table] = collections.OrderedDict()

    def get(self, run: Run) -> Table:
        """The metrics of a run, up to date; hold its `lock` while you read them."""
        with self._lock:
            table = self._tables.setdefault(run.name, Table(self._folder, run.path(METRICS)))
            self._tables.move_to_end(run.name)
        with table.lock:
            table.refresh()
        with self._lock:
            while len(self._tables) > 1 and sum(map(len, self._tables.values())) > _MOST_VALUES:
                self._tables.popitem(last=False)
        return table


def smooth(y: np.ndarray, weight: float) -> np.ndarray:
    """The exponential moving average that TensorBoard draws, without its start's pull to zero.

    Args:
      y: float64 [N].
      weight: of the past, from 0 to below 1.
    """
    if not weight or not len(y):
        return y
    averaged = scipy.signal.lfilter([1 - weight], [1, -weight], y)
    return averaged / (1 - weight ** np.arange(1, len(y) + 1))


def thin(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the least and the greatest of each of many slices, and both ends: no spike is lost.

    Args:
      x, y: float64 [N].
      most: points that are kept.
    """
    if len(y) <= most:
        return x, y
    edges = np.linspace(0, len(y), (most - 2) // 2 + 1).astype(int)
    kept = [0, len(y) - 1]
    for first, end in itertools.pairwise(edges):
        kept += [first + int(y[first:end].argmin()), first + int(y[first:end].argmax())]
    kept = np.unique(kept)
    return x[kept], y[kept]


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
