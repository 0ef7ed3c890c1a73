"""Grades an evaluation's generations anew, without a model, and lists the verdicts that flipped.

python -m experiments.rescore --workdir=runs/evaluate [--grader=both] [--protocol=paper]

The new verdicts go beside the old ones, to WORKDIR/rescored/NUMBER/: verdicts/, result.json, and flips.json with each
verdict that another grader, or another version of it, changed. The same line goes on where it was killed; after that it
grades anew, under the next number. With --protocol generations that were made under another one are refused.

Completions that another program made are graded against a benchmark's files, and become an evaluation:

    python -m experiments.rescore --workdir=DIR --external=completions.jsonl --benchmark=gsm8k --mode=few_shot \
        --folder=data/benchmarks

A record of the file (JSON lines, or a list in a .json file) has a `completion`, a text or a list of them, and the `id`
or the `question` of its problem. Other names are understood: `model_output` with the question in `messages`, as
DeepSeek-Math's released evaluation writes its predictions.json; `resps` with `doc.question` or `doc.problem`, as
lm-evaluation-harness logs its samples. Of a problem's completions the first is taken for the greedy one, and all of
them, where there are several, for samples.
"""

import os
import pathlib
from typing import Any

from absl import flags

from dsmath.data.benchmarks.catalog import find_benchmark
from dsmath.evaluation import external, page, protocols, scores, tasks, verdicts
from dsmath.evaluation.completions import GREEDY, SAMPLES
from dsmath.evaluation.flips import draw_flips, find_flips
from dsmath.evaluation.prompts import modes_of
from dsmath.evaluation.protocols import PROTOCOL, Protocol
from dsmath.evaluation.results import table_file
from dsmath.evaluation.runners import open_runners
from dsmath.evaluation.table import draw_table
from dsmath.evaluation.tasks import Source
from dsmath.reward.generations import read_table
from dsmath.runs.driver import run_program
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import (
    CONFIG,
    RESULT,
    fingerprint,
    lock_workdir,
    read_json,
    read_result,
    require_finished,
    write_json,
)

_SETTINGS, _FLIPS = "settings.json", "flips.json"


def define_flags() -> None:
    """The flags of the command line."""
    flags.DEFINE_string("workdir", None, "folder of an evaluation; of one to be made, with --external")
    flags.DEFINE_enum(
        "grader", "strict", list(verdicts.GRADERS), "mathematics decides; the paper's conventions; or both"
    )
    flags.DEFINE_string("protocol", "", "refuse generations of any other")
    flags.DEFINE_enum("isolation", "bubblewrap", ["bubblewrap", "none"], "of programs that are run; none: trusted ones")
    flags.DEFINE_string("external", "", "file of completions that another program made")
    flags.DEFINE_string("benchmark", "", "with --external: whose problems they answer")
    flags.DEFINE_string("mode", "", "with --external: how these were asked")
    flags.DEFINE_integer("shots", 0, "with --external: worked examples that the prompts had", 0)
    flags.DEFINE_string("folder", "data/benchmarks", "with --external: holds one folder a benchmark")
    flags.DEFINE_string("split", "test", "with --external: of the benchmark")
    flags.mark_flag_as_required("workdir")


def start() -> None:
    """Reads the flags, and grades."""
    given = flags.FLAGS
    workdir = pathlib.Path(given.workdir)
    if given.external:
        check_benchmark(given.benchmark)
        workdir.mkdir(parents=True, exist_ok=True)
        with lock_workdir(workdir):
            source = tasks.read_benchmark(given.benchmark, given.folder, given.split)
            about = bring_in(workdir, given.external, source, given.mode, given.shots, given.grader)
            score(workdir, workdir, [about], given.grader, given.protocol, given.isolation)
        return
    require_finished(workdir, "--workdir")
    if "results" not in (read_result(workdir) or {}):
        raise InputError(f"--workdir={workdir}: no evaluation; name the folder of one, or give --external")
    with lock_workdir(workdir):
        rescore(workdir, given.grader, given.protocol, given.isolation)


def check_benchmark(name: str) -> None:
    """Refuses a benchmark whose completions of others cannot be graded, before a folder is made.

    Raises:
      InputError: there is none of this name, or its proofs need what a config of an evaluation gives.
    """
    try:
        kind = find_benchmark(name).kind
    except InputError as error:
        raise InputError(f"--benchmark: {error}") from error
    if kind == "proof":
        raise InputError(
            f"--benchmark={name}: Isabelle checks its proofs, and --external has no setting of it; ask the model by "
            "experiments.evaluate, with --config.isabelle=DIR"
        )


def bring_in(workdir: pathlib.Path, path: str, source: Source, mode: str, shots: int, grader: str) -> dict[str, Any]:
    """The completions of a file as the generations of a new workdir, or of one where the same was killed.

    Raises:
      InputError: there is no such file, the workdir holds others already, or the benchmark is never asked so.
    """
    if not pathlib.Path(path).is_file():
        raise InputError(f"--external={path}: no such file")
    settings = {"external": fingerprint(path), "benchmark": source.benchmark, "split": source.split}
    settings |= {"mode": mode, "shots": shots, "grader": grader}
    settings["problems"] = [fingerprint(file) for file in source.files]  # with others the golds may be others
    if (workdir / RESULT).exists():
        raise InputError(f"--workdir={workdir}: is an evaluation; leave out --external, or name an empty folder")
    begun = read_json(workdir / _SETTINGS) if (workdir / _SETTINGS).exists() else None
    if (workdir / "generations").exists() and begun != settings:
        raise InputError(f"--workdir={workdir}: holds other generations; name an empty folder")
    known = modes_of(source.benchmark)
    if mode not in known:
        raise InputError(f"--mode={mode!r}: that of {source.benchmark} is one of {', '.join(known)}")
    write_json(workdir / _SETTINGS, settings)
    return external.bring_in(path, source, mode, shots, workdir)


def rescore(workdir: pathlib.Path, grader: str, protocol: str, isolation: str) -> list[dict[str, Any]]:
    """Grades an evaluation anew, into a folder of its own.

    Returns:
      the verdicts that flipped.
    """
    described = read_json(workdir / RESULT)["results"]
    check_whole(workdir, described)
    read_protocol(workdir, protocol)  # refuses before a folder is made
    target = open_target(workdir, {"grader": grader, "protocol": protocol})
    tables = score(workdir, target, described, grader, protocol, isolation)
    flips = [
        flip
        for (place, kind), table in tables.items()
        for flip in find_flips(verdicts.read_table(workdir, described[place], kind), table, kind)
    ]
    write_json(target / _FLIPS, flips)
    print(draw_flips(flips))
    return flips


def check_whole(workdir: pathlib.Path, described: list[dict[str, Any]]) -> None:
    """Refuses generations of which a file is missing: what is left would be scored as if it were all.

    Raises:
      InputError: names the folder, or a damaged file.
    """
    for about in described:
        for kind, count in ((GREEDY, 1), (SAMPLES, about["samples"])):
            folder = tasks.generations_folder(workdir, about["benchmark"], about["mode"], kind)
            expected = count * about["questions"]
            found = sum(read_table(file, ["id"]).num_rows for file in verdicts.list_files(folder))
            if found != expected:
                raise InputError(
                    f"{folder}: holds {found} completions of the {expected} that were made; generate again"
                )


def open_target(workdir: pathlib.Path, settings: dict[str, str]) -> pathlib.Path:
    """The folder of this grading: one of the same settings that was killed, or the next."""
    folder = workdir / "rescored"
    there = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    last = folder / str(there[-1]) if there else None
    if last and not (last / _FLIPS).exists() and read_json(last / _SETTINGS) == settings:
        return last
    target = folder / str(there[-1] + 1 if there else 1)
    write_json(target / _SETTINGS, settings)
    return target


def score(
    workdir: pathlib.Path,
    target: pathlib.Path,
    described: list[dict[str, Any]],
    grader: str,
    wanted: str,
    isolation: str,
) -> dict[tuple[int, str], Any]:
    """Grades, and writes figures, table and page.

    Args:
      workdir: with the generations.
      target: where verdicts and figures go.
      described: what stands beside the figures of each task.
      grader: one of `verdicts.GRADERS`.
      wanted: the protocol that is asked for, or nothing.
      isolation: of programs.
    Returns:
      the verdicts by the task's place and their kind.
    """
    protocol = read_protocol(workdir, wanted)
    tables = grade(workdir, target, described, protocol, grader, isolation)
    published = read_json(workdir / CONFIG).get("published", "") if (workdir / CONFIG).exists() else ""
    results = []
    for place, about in enumerate(described):
        figures = scores.summarize(tables[place, GREEDY], tables.get((place, SAMPLES)))
        about = scores.keep_description(about) | {"grader": grader}
        results.append(scores.add_published(about | figures, published))
    print(draw_table(results))
    result = scores.to_result(results) | {"protocol": protocol.name, "grader": grader}
    page.write(target, result)
    write_json(target / RESULT, result)
    return tables


def read_protocol(workdir: pathlib.Path, wanted: str) -> Protocol:
    """How the generations were made.

    Raises:
      InputError: not under the protocol that is asked for, or not as its name says any more.
    """
    if not (workdir / PROTOCOL).exists():
        if wanted:
            raise InputError(f"--protocol={wanted}: {workdir} does not tell how its generations were made")
        return Protocol("", max_new_tokens=0)
    recorded = read_json(workdir / PROTOCOL)
    if wanted or recorded["name"]:
        protocols.check(protocols.find_protocol(wanted or recorded["name"], "--protocol"), recorded, str(workdir))
    return Protocol(**recorded)


def grade(
    workdir: pathlib.Path,
    target: pathlib.Path,
    described: list[dict[str, Any]],
    protocol: Protocol,
    grader: str,
    isolation: str,
) -> dict[tuple[int, str], Any]:
    """The verdicts of each task, by its place, on greedy solutions and on samples."""
    names, tables = [(about["benchmark"], about["mode"]) for about in described], {}
    config = read_json(workdir / CONFIG) if (workdir / CONFIG).exists() else {}
    options = {"isabelle": config.get("isabelle", ""), "proofs": config.get("proofs", {})}
    workers = len(os.sched_getaffinity(0))
    with open_runners(names, protocol, workers=workers, isolation=isolation, tool=False, **options) as runners:
        for place, name in enumerate(names):
            for kind in (GREEDY, SAMPLES):
                if verdicts.list_files(tasks.generations_folder(workdir, *name, kind)):
                    file = table_file(target, *name, kind)
                    tables[place, kind] = verdicts.judge(
                        workdir, *name, kind, grader, runner=runners.of(*name), target=file
                    )
    return tables


if __name__ == "__main__":
    define_flags()
    run_program("rescore", start)
