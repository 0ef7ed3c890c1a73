"""A run's metrics by step: JSON lines for programs, TensorBoard events for people."""

import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from dsmath.runs import processes
from dsmath.runs.workdir import write_atomically

METRICS, HISTOGRAMS = "metrics.jsonl", "histograms.jsonl"


class MetricsWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard events in `tensorboard/`; a context manager.

    Histograms go to `histograms.jsonl`, which a run without any does not have.

    Of many processes the first one alone writes.

    Args:
      workdir: the stage's folder.
      start: the step that the run starts after; what a killed run wrote beyond it is dropped.
    """

    def __init__(self, workdir: str | os.PathLike, start: int = 0):
        self._workdir, self._events = pathlib.Path(workdir), None
        if processes.is_main():
            self.go_back(start)

    def go_back(self, step: int) -> None:
        """Drops what was written of the steps beyond this one, which are to be made anew."""
        for name in (METRICS, HISTOGRAMS):
            if name == METRICS or (self._workdir / name).exists():
                kept = [record for record in _read(self._workdir / name) if record["step"] <= step]
                write_atomically(self._workdir / name, "".join(json.dumps(record) + "\n" for record in kept))
        self._close()
        try:
            from tensorboardX import SummaryWriter  # not at the top: a bare accelerator image lacks it
        except ImportError:
            logging.warning("%s: no TensorBoard events, metrics.jsonl alone; pip install tensorboardX", self._workdir)
        else:
            folder, suffix = str(self._workdir / "tensorboard"), f".{step}"  # files are named by their second alone
            self._events = SummaryWriter(folder, purge_step=step + 1, filename_suffix=suffix)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of one step."""
        if not processes.is_main():
            return
        self._append(METRICS, {"step": step, **values})
        for name, value in values.items() if self._events else ():
            self._events.add_scalar(name, value, step)

    def write_histogram(self, step: int, name: str, counts: Sequence[float], edges: Sequence[float]) -> None:
        """Writes how a quantity of one step is spread.

        Args:
          step: the step.
          name: of the quantity.
          counts: [bins], how many values lie in each bin.
          edges: [bins + 1], ascending.
        """
        if not processes.is_main():
            return
        counts, edges = [float(count) for count in counts], [float(edge) for edge in edges]
        self._append(HISTOGRAMS, {"step": step, "name": name, "counts": counts, "edges": edges})
        filled = [index for index, count in enumerate(counts) if count]
        if not self._events or not filled:
            return
        middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]  # the values are not known
        self._events.add_histogram_raw(
            name,
            min=edges[filled[0]],
            max=edges[filled[-1] + 1],
            num=sum(counts),
            sum=sum(count * middle for count, middle in zip(counts, middles, strict=True)),
            sum_squares=sum(count * middle**2 for count, middle in zip(counts, middles, strict=True)),
            bucket_limits=edges[1:],
            bucket_counts=counts,
            global_step=step,
        )

    def _append(self, name: str, record: dict[str, Any]) -> None:
        with open(self._workdir / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def _close(self) -> None:
        if self._events is not None:
            self._events.close()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, oldest first; a last line that a kill cut short is left out."""
    return _read(pathlib.Path(workdir) / METRICS)


def read_histograms(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of `histograms.jsonl` (step, name, counts, edges), as `read_metrics`."""
    return _read(pathlib.Path(workdir) / HISTOGRAMS)


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
