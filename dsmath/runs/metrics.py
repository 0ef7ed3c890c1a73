"""A run's metrics by step: JSON lines for programs, TensorBoard events for people."""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from dsmath.runs import processes
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import CONFIG, read_json, write_atomically

METRICS, HISTOGRAMS = "metrics.jsonl", "histograms.jsonl"
WANDB = "DSMATH_WANDB"  # this variable names the project of Weights & Biases that gets the metrics too


class MetricsWriter:
    """Appends metrics to `metrics.jsonl` and to TensorBoard events in `tensorboard/`; a context manager.

    Histograms go to `histograms.jsonl`, which a run without any does not have. Where `DSMATH_WANDB` of the environment
    names a project of Weights & Biases, the metrics go there too; wandb's own variables, such as WANDB_MODE, hold.

    Of many processes the first one alone writes.

    Args:
      workdir: the stage's folder.
      start: the step that the run starts after; what a killed run wrote beyond it is dropped.
    """

    def __init__(self, workdir: str | os.PathLike, start: int = 0):
        self._workdir, self._events, self._mirror = pathlib.Path(workdir), None, None
        if processes.is_main():
            self._mirror = _open_mirror(self._workdir)
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
        if self._mirror:
            self._mirror.log({"step": step, **values})

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

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self._close()
        if self._mirror:
            self._mirror.finish(exit_code=int(error is not None))

    def _close(self) -> None:
        if self._events is not None:
            self._events.close()


def _open_mirror(workdir: pathlib.Path) -> Any:
    """The run of Weights & Biases that belongs to a workdir, None where nobody asked for one.

    Raises:
      InputError: it was asked for and cannot be had.
    """
    project = os.environ.get(WANDB)
    if not project:
        return None
    try:
        import wandb  # an extra
    except ImportError as error:
        raise InputError(f"{WANDB}={project}: wandb is not installed; pip install wandb, or unset it") from error
    config = read_json(workdir / CONFIG) if (workdir / CONFIG).exists() else {}
    try:
        run = wandb.init(
            project=project,
            name=workdir.name,
            id=hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:16],  # a resumed run goes on in its own
            resume="allow",
            dir=workdir,
            job_type=config.get("stage"),
            config=config,
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.Error as error:  # no account, no network
        raise InputError(f"{WANDB}={project}: {error}; WANDB_MODE=offline keeps the metrics for later") from error
    run.define_metric("*", step_metric="step")  # not wandb's own count, which cannot go back as a run does
    return run


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
