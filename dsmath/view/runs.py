"""The runs below a folder: what each is, how it stands, and what can be opened of it."""

import dataclasses
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pydantic_core

from dsmath.runs.metrics import METRICS
from dsmath.runs.workdir import CONFIG, LINEAGE, RESULT
from dsmath.view.files import Broken, Folder

MOST_RUNS, MOST_ENTRIES, MOST_DEPTH = 2_000, 100_000, 8
HEARTBEAT, LOCK, LOG = "heartbeat.json", ".lock", "log.txt"
REPORTS = (  # what a person reads of a run, the richest first
    "report.html", "samples.html", "figure.svg", "figure.png", "table.md", "metrics.md", "log.txt",
    "hang-0.txt", "commands.sh", "results.csv", "tables.csv",
)  # fmt: skip
_INNER = {"checkpoints", "tensorboard", "profile", "samples", "generations", "verdicts", "crawl", "pages", "signatures"}
_DONE = {"sweep": "results.json", "pipeline": "summary.json"}  # what these write last
_SILENT_SECONDS = 600.0  # of a run whose config does not say when it hangs
_RECORDS = (CONFIG, LINEAGE, RESULT, HEARTBEAT)
_KEPT_SECONDS = 1.0  # several browsers share one look at the folder


@dataclasses.dataclass
class Run:
    """One stage's folder.

    Attributes:
      name: the folder's path below the root; "." is the root itself.
      stage: such as "rl"; "" where it is not known.
      status: "running", "stalled" (alive or on another machine, and silent for long), "finished", "failed", or
        "stopped" (no process is there, and nothing says why).
      step, num_steps: how far it is, where that is known.
      seen: seconds since 1970, when it last wrote.
      detail: the end of the log of a failed run.
      config, lineage, result: its records; {} where they are absent or broken.
      fingerprint: of its lineage, as its children name it; "" where it has none.
      reports: names of what can be opened.
      has_metrics, has_samples: whether there are any.
      problems: what could not be read, in words.
    """

    name: str
    stage: str = ""
    status: str = "stopped"
    step: int | None = None
    num_steps: int | None = None
    seen: float = 0.0
    detail: str = ""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    lineage: dict[str, Any] = dataclasses.field(default_factory=dict)
    result: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""
    reports: tuple[str, ...] = ()
    has_metrics: bool = False
    has_samples: bool = False
    problems: tuple[str, ...] = ()

    def path(self, name: str) -> str:
        """The path of one of its files below the root."""
        return name if self.name == "." else f"{self.name}/{name}"


@dataclasses.dataclass(frozen=True)
class _Record:
    version: tuple[int, ...] = ()
    value: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: str = ""


class Runs:
    """All runs below a folder, looked at again at most once a second; safe to use from several threads.

    Args:
      folder: the root.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._runs: dict[str, Run] = {}
        self._problems: list[str] = []
        self._records: dict[str, _Record] = {}  # by path

    def read(self) -> tuple[dict[str, Run], list[str]]:
        """The runs by name, in the order of names, and what is wrong with the folder as a whole."""
        with self._lock:
            if time.monotonic() - self._looked > _KEPT_SECONDS:
                self._problems = []
                held = _held_locks()
                found = {name: self._read_run(name, entries, held) for name, entries in self._find()}
                self._runs = dict(sorted(found.items()))
                self._looked = time.monotonic()
            return self._runs, self._problems

    def get(self, name: str) -> Run:
        """One run.

        Raises:
          LookupError: there is none of this name.
        """
        try:
            return self.read()[0][name]
        except KeyError:
            raise LookupError(f"no run {name!r} in this folder") from None

    def _find(self) -> Iterator[tuple[str, dict[str, os.DirEntry]]]:
        """Folders that hold a config, breadth first, with what lies in them."""
        waiting, looked_at, found = [(".", 0)], 0, 0
        for name, depth in waiting:
            try:
                with os.scandir(self.folder.path / name) as scan:
                    entries = {entry.name: entry for entry in scan}
            except OSError as error:
                self._problems.append(f"{name}: cannot be read ({(error.strerror or 'no reason').lower()})")
                continue
            looked_at += len(entries)
            for inner in [inner for inner in entries if not inner.isprintable()]:
                self._problems.append(f"{name}: left out {inner[:100]!a}, a name that cannot be shown")
                del entries[inner]
            is_run = CONFIG in entries and entries[CONFIG].is_file(follow_symlinks=False)
            if is_run:
                found += 1
                yield name, entries
            if found >= MOST_RUNS or looked_at > MOST_ENTRIES:
                self._problems.append(f"this folder is large: only the first {found} runs are shown")
                return
            if depth < MOST_DEPTH:
                waiting += [
                    (inner if name == "." else f"{name}/{inner}", depth + 1)
                    for inner, entry in sorted(entries.items())
                    if not inner.startswith(".") and not (is_run and inner in _INNER) and self._is_folder(name, entry)
                ]

    def _is_folder(self, parent: str, entry: os.DirEntry) -> bool:
        try:
            if entry.is_symlink():
                if entry.is_dir():
                    self._problems.append(f"{parent}/{entry.name}: a link to a folder, not followed")
                return False
            return entry.is_dir()
        except OSError:
            return False

    def _read_run(self, name: str, entries: dict[str, os.DirEntry], held: set[tuple[int, int]] | None) -> Run:
        run, problems = Run(name), []
        records = {record: self._record(run.path(record), entries.get(record), problems) for record in _RECORDS}
        run.config, run.lineage, run.result, heartbeat = (records[record].value for record in _RECORDS)
        run.fingerprint = records[LINEAGE].fingerprint
        run.stage = str(run.config.get("stage", ""))[:40]
        run.step, run.num_steps = _count(heartbeat.get("step")), _count(run.config.get("num_steps"))
        run.reports = tuple(report for report in REPORTS if _is_file(entries.get(report)))
        run.has_metrics = _is_file(entries.get(METRICS))
        run.has_samples = any(one in entries for one in ("samples", "verdicts", "greedy.parquet", "samples.parquet"))
        written = [_modified(entries.get(file)) for file in (CONFIG, METRICS, LOG, RESULT)]
        run.seen = max([_seconds(heartbeat.get("time")), *written])
        run.status = _status(
            run, heartbeat, entries, held, is_finished=RESULT in entries or _DONE.get(run.stage) in entries
        )
        if run.status in ("stopped", "failed") and LOG in run.reports:
            run.status, run.detail = self._end_of_log(run)
        run.problems = tuple(problems)
        return run

    def _record(self, path: str, entry: os.DirEntry | None, problems: list[str]) -> _Record:
        """A JSON record, read again only where the file has changed; empty where it is absent or broken."""
        if entry is None:
            return _Record()
        try:
            about = entry.stat(follow_symlinks=False)
            version = (about.st_ino, about.st_size, about.st_mtime_ns)
            if path not in self._records or self._records[path].version != version:
                content = self.folder.read(path)
                self._records[path] = _Record(version, _parse(content, path), hashlib.sha256(content).hexdigest()[:16])
            return self._records[path]
        except (Broken, LookupError, OSError) as error:
            problems.append(str(error.args[0] if isinstance(error, LookupError) else error))
            return _Record()

    def _end_of_log(self, run: Run) -> tuple[str, str]:
        """Whether a run that ended without a result failed, by its log, and the log's last line."""
        try:
            lines = self.folder.read_end(run.path(LOG), 4096).strip().splitlines()
        except LookupError:
            return run.status, ""
        failed = any(line.startswith(("error: ", "Traceback ")) for line in lines[-40:])
        return "failed" if failed else run.status, lines[-1].strip()[:300] if lines else ""


def _status(
    run: Run,
    heartbeat: dict[str, Any],
    entries: dict[str, os.DirEntry],
    held: set[tuple[int, int]] | None,
    *,
    is_finished: bool,
) -> str:
    if is_finished:
        return "finished"
    guards = run.config.get("guards")
    hang_seconds = _seconds(guards.get("hang_seconds")) if isinstance(guards, dict) else 0.0
    silent = time.time() - run.seen > (hang_seconds or _SILENT_SECONDS)
    is_here = held is not None and heartbeat.get("host", socket.gethostname()) == socket.gethostname()
    if is_here and LOCK in entries:  # the lock ends with its process, whatever else it leaves behind
        try:
            about = entries[LOCK].stat(follow_symlinks=False)
        except OSError:
            return "stopped"
        if (about.st_dev, about.st_ino) not in held:
            return "failed" if any(name.startswith("hang-") for name in entries) else "stopped"
        return "stalled" if silent and heartbeat else "running"  # a stage without a heartbeat may work in silence
    return "running" if not silent else "stalled" if heartbeat else "stopped"


def _held_locks() -> set[tuple[int, int]] | None:
    """Device and inode of every locked file of this machine; None where it does not tell.

    Trying a lock instead would make a run that starts at that moment believe that another one works in its folder.
    """
    try:
        with open("/proc/locks", encoding="ascii") as file:
            fields = [line.split() for line in file]
        found = set()
        for field in fields:
            major, minor, inode = next(part for part in field if part.count(":") == 2).split(":")
            found.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
        return found
    except (OSError, ValueError, StopIteration):
        return None


def _parse(content: bytes, path: str) -> dict[str, Any]:
    try:
        value = pydantic_core.from_json(content)
    except ValueError as error:
        raise Broken(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Broken(f"{path}: not a JSON object")
    return value


def _is_file(entry: os.DirEntry | None) -> bool:
    try:
        return entry is not None and entry.is_file(follow_symlinks=False)
    except OSError:
        return False


def _modified(entry: os.DirEntry | None) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime if entry is not None else 0.0
    except OSError:
        return 0.0


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else 0.0
