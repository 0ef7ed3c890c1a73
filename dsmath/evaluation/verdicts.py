"""Verdicts on generations: a file of them for each file of generations, so that grading goes on where it was killed.

Where there is much to grade, processes share it: plain subprocesses that are told what to do by lines of JSON, and that
end with the one that started them. Programs that models wrote are run from here, in the jail, by threads.
"""

import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow

from dsmath.data.benchmarks.item import Item
from dsmath.evaluation import metrics, tasks
from dsmath.evaluation.grading import Runner, grade
from dsmath.evaluation.results import table_file
from dsmath.evaluation.runners import has_votes
from dsmath.reward import generations
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress

GRADERS = ("strict", "paper", "both")
_FEW = 2000  # rows that are graded here: processes would need longer to start
_KEPT = (
    *("question_index", "sample_index", *tasks.COLUMNS.names),
    *("completion", "tokens", "truncated", "finish_reason", "option_logprobs"),
)
_VERDICT = [
    ("answer", pyarrow.string()),
    ("correct", pyarrow.bool_()),
    ("reason", pyarrow.string()),
    ("detail", pyarrow.string()),
    ("seconds", pyarrow.float32()),
    ("vote", pyarrow.int32()),  # the group of equivalent answers of a problem's samples
]
_PAPER = [("answer_paper", pyarrow.string()), ("correct_paper", pyarrow.bool_())]


@dataclasses.dataclass(frozen=True)
class Job:
    """A file of generations to grade.

    Attributes:
      generations: the file.
      verdicts: the file that is written.
      items: the file of the problems; see `tasks.read_items`.
      grader: "strict", "paper" or "both".
    """

    generations: str
    verdicts: str
    items: str
    grader: str


def judge(
    workdir: pathlib.Path,
    benchmark: str,
    mode: str,
    kind: str,
    grader: str,
    *,
    runner: Runner | None,
    target: pathlib.Path,
) -> pyarrow.Table:
    """The verdicts on one task's generations, graded where that has not been done.

    Args:
      workdir: of the evaluation, with its items/ and generations/.
      benchmark, mode: of the task.
      kind: "greedy" or "samples".
      grader: one of `GRADERS`.
      runner: what the task needs; see `Runners.of`.
      target: the file of the verdicts; while it is made its parts lie in a folder beside it.
    Returns:
      a row a completion, by problem and sample.
    """
    if target.exists():
        return generations.read_table(target)
    files = list_files(tasks.generations_folder(workdir, benchmark, mode, kind))
    parts = target.with_suffix("")
    items = str(tasks.items_file(workdir, benchmark))
    jobs = [Job(str(file), str(parts / file.name), items, grader) for file in files]
    missing = [job for job in jobs if not pathlib.Path(job.verdicts).exists()]
    with Progress(len(jobs), f"grade {target.stem}", "file", done=len(jobs) - len(missing)) as progress:
        _grade(missing, runner, progress.advance)
    table = pyarrow.concat_tables(generations.read_table(job.verdicts) for job in jobs)
    generations.write_table(target, table)
    shutil.rmtree(parts)
    return table


def _grade(jobs: Sequence[Job], runner: Runner | None, on_file: Callable[[], None]) -> None:
    rows = sum(generations.read_table(job.generations, ["id"]).num_rows for job in jobs)
    cores = len(os.sched_getaffinity(0))
    if runner is None and rows >= _FEW and len(jobs) > 1 and cores > 1:
        _share(jobs, min(cores, len(jobs)), on_file)
        return
    for job in jobs:
        _grade_file(job, runner)
        on_file()


def read_table(folder: pathlib.Path, figures: Mapping[str, Any], kind: str) -> pyarrow.Table:
    """The verdicts behind a record of `result.json`."""
    return generations.read_table(table_file(folder, figures["benchmark"], figures["mode"], kind))


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of generations in a folder, in order."""
    return sorted(folder.glob("*.parquet"))


def _grade_file(job: Job, runner: Runner | None) -> None:
    table = generations.read_table(job.generations)
    rows, problems = table.to_pylist(), tasks.read_items(job.items)
    unknown = [row["id"] for row in rows if row["id"] not in problems]
    if unknown:
        raise InputError(f"{job.generations}: {unknown[0]!r} is none of the problems in {job.items}")

    def judge(row: Mapping[str, Any]) -> dict[str, Any]:
        return grade_row(row, problems[row["id"]], job.grader, runner)

    if runner is None:
        verdicts = list(map(judge, rows))
    else:
        with concurrent.futures.ThreadPoolExecutor(runner.pool.size if runner.pool else None) as threads:
            verdicts = list(threads.map(judge, rows))
    groups: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row, verdict in zip(rows, verdicts, strict=True):
        groups[row["id"]].append(verdict)
    for name, group in groups.items():
        votes = _vote(group) if has_votes(problems[name].benchmark) else [None] * len(group)
        for verdict, vote in zip(group, votes, strict=True):
            verdict["vote"] = vote
    kept = table.select([name for name in _KEPT if name in table.column_names])
    fields = _VERDICT + (_PAPER if job.grader == "both" else [])
    found = pyarrow.Table.from_pylist(verdicts, schema=pyarrow.schema(fields))
    for name in found.column_names:
        kept = kept.append_column(name, found[name])
    generations.write_table(job.verdicts, kept)


def grade_row(row: Mapping[str, Any], item: Item, grader: str, runner: Runner | None) -> dict[str, Any]:
    """The verdict's columns of one completion."""
    began = time.perf_counter()
    arguments = (item, row["mode"], row["completion"])
    verdict = grade(*arguments, grader="paper" if grader == "paper" else "strict", run=runner)
    columns = dataclasses.asdict(verdict)
    if grader == "both":
        # What tests or Isabelle say is not graded in two ways.
        paper = grade(*arguments, grader="paper", run=runner) if has_votes(item.benchmark) else verdict
        columns |= {"answer_paper": paper.answer, "correct_paper": paper.correct}
    return columns | {"seconds": time.perf_counter() - began}


def _vote(verdicts: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Groups of equivalent answers: all right ones are equivalent to the gold answer, so to each other."""
    wrong = metrics.group_answers([None if verdict["correct"] else verdict["answer"] for verdict in verdicts])
    return [
        0 if verdict["correct"] else None if group is None else group + 1
        for verdict, group in zip(verdicts, wrong, strict=True)
    ]


def _share(jobs: Sequence[Job], count: int, on_file: Callable[[], None]) -> None:
    """Grades files by several processes."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[str] = []
    lock = threading.Lock()
    # Beside the parent's -m the child finds this package wherever the parent did.
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-m", "dsmath.evaluation.verdicts"]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **options) for _ in range(count)]

    def feed(worker: subprocess.Popen) -> None:
        while not failures:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                worker.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
            except OSError:
                answer = ""
            with lock:
                if answer.strip() == "done":
                    on_file()
                else:
                    failures.append(answer.strip() or f"{job.generations}: the process that graded it has died")

    threads = [threading.Thread(target=feed, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            worker.kill() if failures else worker.stdin.close()
            worker.wait()
    if failures:
        raise InputError(failures[0])


def serve() -> None:
    """Grades the files that standard input names until it closes."""
    for line in sys.stdin:
        try:
            _grade_file(Job(**json.loads(line)), None)
            print("done", flush=True)
        except InputError as error:
            print(error, flush=True)


if __name__ == "__main__":
    serve()
