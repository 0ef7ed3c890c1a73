"""Runs the stages of a sweep as processes: parents first, several at a time, a failure kept apart from the rest."""

import graphlib
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from dsmath.runs.commands import start
from dsmath.runs.errors import InputError
from dsmath.runs.sweep import Stage
from dsmath.runs.workdir import RESULT, lock_workdir

LOG = "log.txt"
PAUSED, WAITS, KEPT_BACK = "was paused", "waits for people", "not started"
STATUS_SECONDS = 30.0  # between two looks at the running stages
_POLL_SECONDS = 0.1


def run_stages(
    stages: Mapping[pathlib.Path, Stage], jobs: int, stream: TextIO | None = None
) -> dict[pathlib.Path, str]:
    """Runs what has not finished, at most `jobs` at a time, each on its share of the cores.

    What a stage prints goes to `log.txt` in its folder. A stage that fails keeps back its descendants alone. All
    children die with this process.

    Args:
      stages: by folder.
      jobs: how many run at a time.
      stream: where progress is told; standard error by default.
    Returns:
      What ended otherwise than finished, by folder: PAUSED, WAITS, KEPT_BACK, or "failed with status …".
    """
    runner = _Runner(stages, jobs, stream or sys.stderr)
    try:
        return runner.run()
    finally:
        runner.kill()


class _Runner:
    def __init__(self, stages: Mapping[pathlib.Path, Stage], jobs: int, stream: TextIO):
        self._stages, self._stream = stages, stream
        self._place = {folder: place for place, folder in enumerate(stages)}
        self._running: dict[int, tuple[pathlib.Path, subprocess.Popen, float]] = {}  # by slot
        self._cores = _shares(jobs)
        self._finished: set[pathlib.Path] = set()
        self._ended: dict[pathlib.Path, str] = {}
        self._told = time.monotonic()

    def run(self) -> dict[pathlib.Path, str]:
        sorter = graphlib.TopologicalSorter({folder: stage.parents for folder, stage in self._stages.items()})
        sorter.prepare()
        ready: list[pathlib.Path] = []
        while True:
            ready = sorted([*ready, *sorter.get_ready()], key=self._place.get)
            done = {folder for folder in ready if (folder / RESULT).exists()}  # by this sweep or another
            self._finished |= done
            sorter.done(*done)
            ready = [folder for folder in ready if folder not in done]
            if done:
                continue
            for folder in [folder for folder in ready if _is_free(folder)]:
                if len(self._running) == len(self._cores):
                    break
                ready.remove(folder)
                self._start(folder)
            if not self._running and not ready:
                break
            time.sleep(_POLL_SECONDS)
            for folder in self._collect():
                sorter.done(folder)
            if time.monotonic() - self._told >= STATUS_SECONDS:
                self._tell_status(ready)
        kept_back = self._stages.keys() - self._finished - self._ended.keys()
        return self._ended | dict.fromkeys(sorted(kept_back), KEPT_BACK)

    def kill(self) -> None:
        for _, process, _ in self._running.values():
            process.kill()
            process.wait()

    def _start(self, folder: pathlib.Path) -> None:
        stage, slot = self._stages[folder], min(self._cores.keys() - self._running.keys())
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / LOG, "a", encoding="utf-8") as log:
            print(f"$ python {shlex.join(stage.command[1:])}", file=log, flush=True)
            process = start(
                stage.command,
                self._cores[slot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running[slot] = (folder, process, time.monotonic())
        self._tell(f"starts   {stage.name}")

    def _collect(self) -> list[pathlib.Path]:
        """The stages that have finished since the last look."""
        finished = []
        for slot, (folder, process, began) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[slot]
            name, seconds = self._stages[folder].name, time.monotonic() - began
            if (folder / RESULT).exists():
                finished.append(folder)
                self._finished.add(folder)
                self._tell(f"finished {name}, {seconds:.0f} s")
                continue
            code = process.returncode
            self._ended[folder] = {0: PAUSED, 3: WAITS}.get(code, f"failed with status {code}")
            self._tell(f"{name} {self._ended[folder]}; {folder / LOG} ends: {_last_line(folder / LOG)}")
        return finished

    def _tell_status(self, ready: list[pathlib.Path]) -> None:
        self._told = time.monotonic()
        for folder, _, began in self._running.values():
            self._tell(f"{self._told - began:6.0f} s  {self._stages[folder].name}: {_last_line(folder / LOG)}")
        for folder in ready if len(self._running) < len(self._cores) else ():
            self._tell(f"waits    {self._stages[folder].name}: another process works in {folder}")

    def _tell(self, line: str) -> None:
        print(f"[{len(self._finished)}/{len(self._stages)}] {line}", file=self._stream, flush=True)


def _shares(jobs: int) -> dict[int, list[int]]:
    """The cores of each slot; none where a process cannot be bound to cores."""
    if jobs < 1:
        raise InputError(f"config.jobs: {jobs} must be at least 1")
    if not hasattr(os, "sched_getaffinity"):
        return {slot: [] for slot in range(jobs)}
    cores = sorted(os.sched_getaffinity(0))
    return {slot: cores[slot::jobs] or [cores[slot % len(cores)]] for slot in range(jobs)}


def _is_free(folder: pathlib.Path) -> bool:
    """Whether no other process works there: another sweep may share the folder."""
    try:
        with lock_workdir(folder):
            return True
    except FileNotFoundError:
        return True
    except InputError:
        return False


def _last_line(log: pathlib.Path) -> str:
    """The last line that a stage printed; empty where there is none, or where people removed the folder meanwhile."""
    try:
        with open(log, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 4096, 0))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1].strip()[:200] if lines and not lines[-1].startswith("$ ") else ""
