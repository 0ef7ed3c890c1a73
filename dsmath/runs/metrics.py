"""A run's metrics by step: JSON lines for programs, TensorBoard events for people."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from dsmath.runs.workdir import write_atomically

METRICS = "metrics.jsonl"


class MetricsWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard events in `tensorboard/`; a context manager.

    Args:
      workdir: the stage's folder.
      start: the step that the run starts after; what a killed run wrote beyond it is dropped.
    """

    def __init__(self, workdir: str | os.PathLike, start: int = 0):
        self._path = pathlib.Path(workdir) / METRICS
        kept = [record for record in read_metrics(workdir) if record["step"] <= start]
        write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._events = None
        try:
            from tensorboardX import SummaryWriter  # not at the top: a bare accelerator image lacks it
        except ImportError:
            logging.warning("%s: no TensorBoard events, metrics.jsonl alone; pip install tensorboardX", workdir)
        else:
            self._events = SummaryWriter(str(pathlib.Path(workdir) / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of one step."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items() if self._events else ():
            self._events.add_scalar(name, value, step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        if self._events:
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
