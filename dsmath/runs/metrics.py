"""A run's metrics by step: JSON lines for programs, TensorBoard events for people."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from dsmath.runs import processes
from dsmath.runs.workdir import write_atomically

METRICS = "metrics.jsonl"


class MetricsWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard events in `tensorboard/`; a context manager.

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
        kept = [record for record in read_metrics(self._workdir) if record["step"] <= step]
        write_atomically(self._workdir / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
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
        with open(self._workdir / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items() if self._events else ():
            self._events.add_scalar(name, value, step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def _close(self) -> None:
        if self._events is not None:
            self._events.close()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`, oldest first; a last line that a kill cut short is left out."""
    path = pathlib.Path(workdir) / METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
