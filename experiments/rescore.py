"""Grades an evaluation's generations anew, without a model, and lists the verdicts that flipped.

python -m experiments.rescore --workdir=runs/evaluate [--grader=both] [--protocol=paper]

The new verdicts go beside the old ones, to WORKDIR/rescored/NUMBER/: verdicts/, result.json, and flips.json with each
verdict that another grader, or another version of it, changed. The same line goes on where it was killed; after that it
grades anew, under the next number. With --protocol generations that were made under another one are refused.

Completions that another program made are graded against a benchmark's files, and become an evaluation:

    python -m experiments.rescore --workdir=DIR --external=completions.jsonl --benchmark=gsm8k --mode=few_shot \
        --folder=benchmarks

A record of the file (JSON lines, or a list in a .json file) has a `completion`, a text or a list of them, and the `id`
or the `question` of its problem. Other names are understood: `model_output` with the question in `messages`, as
DeepSeek-Math's released evaluation writes its predictions.json; `resps` with `doc.question` or `doc.problem`, as
lm-evaluation-harness logs its samples. Of a problem's completions the first is taken for the greedy one, and all of
them, where there are several, for samples.
"""

import contextlib
import os
import pathlib
from typing import Any

from absl import flags

from dsmath.evaluation import external, page, protocols, scores, tasks, verdicts
from dsmath.evaluation.completions import GREEDY, SAMPLES
from dsmath.evaluation.flips import draw_flips, find_flips
from dsmath.evaluation.prompts import modes_of
from dsmath.evaluation.protocols import PROTOCOL, Protocol
from dsmath.evaluation.table import draw_table
from dsmath.runs.driver import run_program
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import CONFIG, RESULT, lock_workdir, read_json, require_finished, write_json
from dsmath.sandbox import Pool

_SETTINGS, _FLIPS = "settings.json", "flips.json"


def define_flags() -> None:
    """The flags of the command line."""
    flags.DEFINE_string("workdir", None, "folder of an evaluation; of one to be made, with --external")
    flags.DEFINE_enum("grader", "strict", verdicts.GRADERS, "mathematics decides; the paper's conventions; or both")
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
    """Grades, prints the table and the flips, and writes both."""
    given = flags.FLAGS
    workdir = pathlib.Path(given.workdir)
    if given.external:
        workdir.mkdir(parents=True, exist_ok=True)
    elif not (workdir / RESULT).exists():
        require_finished(workdir, "--workdir")
        raise InputError(f"--workdir={workdir}: no evaluation; name the folder of one, or give --external")
    with lock_workdir(workdir):
        if given.external:
            described, target = [bring_in(workdir)], workdir
        else:
            described, target = read_json(workdir / RESULT)["results"], open_target(workdir)
        protocol = read_protocol(workdir)
        with contextlib.ExitStack() as stack:
            tables = grade(workdir, target, described, protocol, stack)
        published = read_json(workdir / CONFIG).get("published", "") if (workdir / CONFIG).exists() else ""
        results = [
            scores.add_published(
                scores.keep_description(about)
                | {"grader": given.grader}
                | scores.summarize(tables[place, GREEDY], tables.get((place, SAMPLES))),
                published,
            )
            for place, about in enumerate(described)
        ]
        print(draw_table(results))
        result = scores.to_result(results) | {"protocol": protocol.name, "grader": given.grader}
        if target != workdir:
            flips = [
                flip
                for (place, kind), table in tables.items()
                for flip in find_flips(verdicts.read_table(workdir, described[place], kind), table, kind)
            ]
            write_json(target / _FLIPS, flips)
            print(draw_flips(flips))
        page.write(target, result)
        write_json(target / RESULT, result)


def bring_in(workdir: pathlib.Path) -> dict[str, Any]:
    """The generations of the file that --external names, in the workdir."""
    given = flags.FLAGS
    if (workdir / "generations").exists() or (workdir / RESULT).exists():
        raise InputError(f"--workdir={workdir}: holds generations; leave out --external, or name an empty folder")
    if given.mode not in modes_of(given.benchmark):
        raise InputError(f"--mode={given.mode!r}: {given.benchmark} has {', '.join(modes_of(given.benchmark))}")
    source = tasks.read_benchmark(given.benchmark, given.folder, given.split)
    return external.bring_in(given.external, source, given.mode, given.shots, workdir)


def open_target(workdir: pathlib.Path) -> pathlib.Path:
    """The folder of this grading: one with the same settings that was killed, or the next."""
    settings = {"grader": flags.FLAGS.grader}
    folder = workdir / "rescored"
    there = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    last = folder / str(there[-1]) if there else None
    if last and not (last / RESULT).exists() and read_json(last / _SETTINGS) == settings:
        return last
    target = folder / str(there[-1] + 1 if there else 1)
    write_json(target / _SETTINGS, settings)
    return target


def read_protocol(workdir: pathlib.Path) -> Protocol:
    """How the generations were made.

    Raises:
      InputError: not under the protocol that is asked for, or not as its name says any more.
    """
    wanted = flags.FLAGS.protocol
    if not (workdir / PROTOCOL).exists():
        if wanted:
            raise InputError(f"--protocol={wanted}: {workdir} does not tell how its generations were made")
        return Protocol("", max_new_tokens=0)
    recorded = read_json(workdir / PROTOCOL)
    if wanted or recorded["name"]:
        protocols.check(protocols.find_protocol(wanted or recorded["name"]), recorded, str(workdir))
    return Protocol(**recorded)


def grade(
    workdir: pathlib.Path,
    target: pathlib.Path,
    described: list[dict[str, Any]],
    protocol: Protocol,
    stack: contextlib.ExitStack,
) -> dict[tuple[int, str], Any]:
    """The verdicts of each task, by its place, on greedy solutions and on samples."""
    pool, tables = None, {}
    if any(verdicts.needs_programs(about["benchmark"], about["mode"]) for about in described):
        pool = Pool(len(os.sched_getaffinity(0)), flags.FLAGS.isolation)
        stack.callback(pool.close)
    for place, about in enumerate(described):
        name = about["benchmark"], about["mode"]
        runner = verdicts.make_runner(protocol, name[0], pool) if verdicts.needs_programs(*name) else None
        for kind in (GREEDY, SAMPLES):
            if verdicts.list_files(tasks.generations_folder(workdir, *name, kind)):
                file = verdicts.table_file(target, *name, kind)
                tables[place, kind] = verdicts.judge(
                    workdir, *name, kind, flags.FLAGS.grader, runner=runner, target=file
                )
    return tables


if __name__ == "__main__":
    define_flags()
    run_program("rescore", start)
