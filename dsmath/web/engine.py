"""Runs a worker class over tasks in many processes: of this machine, or by Daft, there or on a Ray cluster.

A task is a file that is absent. Workers write it under a temporary name and rename it, so a rerun after a kill makes
what is missing and nothing else. Whatever passes from one step to the next passes through files: on a cluster the
workdir lies where every machine sees it.
"""

import dataclasses
import errno
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.web.pool import Pool

# Both are read when Daft and Ray are imported, which is where they are wanted: it takes a while.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ENGINES = ("native", "daft", "ray")
_FEW = 64  # light tasks


class Worker(Protocol):
    """What a worker class must have: each process makes one, with the settings, and hands it the tasks one by one."""

    def run(self, task: Mapping[str, Any]) -> None:
        """Writes the file `task["output"]`, atomically."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where workers run.

    Attributes:
      name: "native", processes of this machine; "daft", the same started by Daft, anew for every step; "ray", by Daft
        on the cluster at RAY_ADDRESS, or on a local one.
      workers: processes; 1: "native" has none but the driver's own.
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
        if self.name == "native" and self.workers > 1:
            _ = self._pool  # begins to import
        if self.name != "ray":  # Daft's default is this machine
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
        from dsmath.web import daft_tasks

        daft_tasks.use_ray()

    @functools.cached_property
    def _pool(self) -> Pool:
        return Pool(self.workers)

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
            make = functools.partial(_Doer, worker, settings)
            if alone or len(todo) <= (_FEW if is_light else 1):
                errors = map(make(), todo)
            elif self.name == "native":
                errors = self._pool.run(make, todo)
            else:
                from dsmath.web import daft_tasks

                errors = daft_tasks.run(make, todo, workers=self.workers, is_cluster=self.name == "ray")
            for error in errors:
                if error:
                    raise InputError(error)
                progress.advance()
        for task in todo:
            if not pathlib.Path(task["output"]).exists():
                raise InputError(
                    f"{task['output']}: a worker wrote it and this machine does not see it; put --workdir where all "
                    "machines of the cluster see it"
                )


class _Doer:
    """Does tasks by a worker; returns what a person must mend, "" where nothing must.

    Args:
      worker, settings: of `Engine.run_missing`.
    """

    def __init__(self, worker: type[Worker], settings: tuple):
        self._make = functools.cache(lambda: worker(*settings))  # not yet: it may raise what a person must mend

    def __call__(self, task: Mapping[str, Any]) -> str:
        try:
            self._make().run(task)
        except InputError as error:  # of another process, it would come out as a traceback
            return str(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return f"{task['output']}: the disk is full ({error.strerror}); make room and run the same line again"
        return ""
