"""Runs a worker class over tasks in many processes: Daft on this machine, or the same on a Ray cluster.

A task is a file that is absent. Workers write it under a temporary name and rename it, so a rerun after a kill makes
what is missing and nothing else. Whatever passes from one step to the next passes through files: on a cluster the
workdir lies where every machine sees it.
"""

import atexit
import dataclasses
import errno
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

# Both are read when Daft and Ray are imported.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import daft

from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress

ENGINES = ("native", "ray")
_FEW = 64  # light tasks


class Worker(Protocol):
    """What a worker class must have: each process makes one, with the settings, and hands it the tasks one by one."""

    def run(self, task: Mapping[str, Any]) -> None:
        """Writes the file `task["output"]`, atomically."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where workers run.

    Attributes:
      name: "native", processes of this machine; "ray", those of the cluster at RAY_ADDRESS, or of a local one.
      workers: processes; 1: on this machine none but the driver's own.
    """

    name: str = "native"
    workers: int = 2

    def __post_init__(self):
        if self.name not in ENGINES:
            raise InputError(f"config.engine={self.name!r} is none of {', '.join(ENGINES)}")
        if self.workers < 1:
            raise InputError(f"config.workers={self.workers} must be at least 1")

    def start(self) -> None:
        """Makes ready; called once, by the driver.

        Raises:
          InputError: Ray is not installed, or the cluster does not answer.
        """
        if self.name == "native":  # Daft's default
            return
        try:
            import ray
        except ImportError as error:
            raise InputError("config.engine='ray': Ray is not installed; pip install '.[ray]'") from error
        address = os.environ.get("RAY_ADDRESS")
        try:
            settings = (
                {} if address else {"num_cpus": max(self.workers, os.cpu_count() or 1), "include_dashboard": False}
            )
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, **settings)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"RAY_ADDRESS={address}: Ray cannot be started there ({error})") from error
        daft.set_runner_ray(noop_if_initialized=True)

    def run_missing(
        self,
        label: str,
        worker: type[Worker],
        settings: tuple,
        tasks: Sequence[Mapping[str, Any]],
        *,
        unit: str = "file",
        is_light: bool = False,
    ) -> None:
        """Runs a worker class on the tasks whose output is absent.

        Args:
          label: of the progress.
          worker: a class at the top of a module.
          settings: its arguments.
          tasks: JSON-like mappings, each with its file as `output`.
          unit: what a task is called in the progress.
          is_light: whether a task takes milliseconds, so that a few of them are done sooner than processes start.
        Raises:
          InputError: a worker raised it, or the disk is full.
        """
        todo = [task for task in tasks if not pathlib.Path(task["output"]).exists()]
        for folder in {pathlib.Path(task["output"]).parent for task in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        with Progress(len(tasks), label, unit, done=len(tasks) - len(todo)) as progress:
            alone = self.name == "native" and self.workers == 1
            if alone or len(todo) <= (_FEW if is_light else 1):
                here = _Pool(worker, settings, ends_at_once=False) if todo else None
                for task in todo:
                    _check(here.do(task))
                    progress.advance()
            else:
                self._run(worker, settings, todo, progress)
        for task in todo:
            if not pathlib.Path(task["output"]).exists():
                raise InputError(
                    f"{task['output']}: a worker wrote it and this machine does not see it; put --workdir where all "
                    "machines of the cluster see it"
                )

    def _run(
        self, worker: type[Worker], settings: tuple, tasks: Sequence[Mapping[str, Any]], progress: Progress
    ) -> None:
        workers = min(self.workers, len(tasks))
        pool = daft.cls(_Pool, use_process=True, max_concurrency=workers)(worker, settings, self.name == "native")
        frame = daft.from_pydict({"task": [json.dumps(task) for task in tasks]})
        if self.name == "ray":  # a partition goes to one process whole
            frame = frame.into_partitions(len(tasks))
        for row in frame.select(pool.run(daft.col("task")).alias("error")).iter_rows():
            _check(row["error"])
            progress.advance()


class _Pool:
    """A worker inside one of Daft's processes.

    Args:
      worker, settings: of `Engine.run_missing`.
      ends_at_once: whether the process ends without taking Python down, which takes 0.1 s: Daft waits for one process
        after the other.
    """

    def __init__(self, worker: type[Worker], settings: tuple, ends_at_once: bool):
        self._make = functools.cache(lambda: worker(*settings))  # not yet: it may raise what a person must mend
        if ends_at_once:
            atexit.register(os._exit, 0)

    @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
    def run(self, task: daft.Series) -> list[str]:
        """Does the tasks, each a JSON object; returns what a person must mend, "" where nothing must."""
        return [self.do(json.loads(one)) for one in task.to_pylist()]

    def do(self, task: Mapping[str, Any]) -> str:
        """Does one task."""
        try:
            self._make().run(task)
        except InputError as error:  # of another process, it would come out as a traceback of Daft's
            return str(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return f"{task['output']}: the disk is full ({error.strerror}); make room and run the same line again"
        return ""


def _check(error: str) -> None:
    if error:
        raise InputError(error)
