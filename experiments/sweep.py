"""Runs an ablation: its parents once, its runs with every seed, their evaluations; then its table and its figure.

python -m experiments.sweep --config=configs/ablations/fig5.py:nano --workdir=runs/fig5

Kill it whenever you like: the same line goes on with what is missing. What a stage makes lies in a folder named after
what decides it, so a changed sweep in the same folder, or another one with the same `config.store`, runs only what is
new. --dry_run tells what would run, with its commands, and what is there already.
"""

import importlib
import os
import pathlib
import shlex
import sys
from collections.abc import Iterable
from typing import Any

import ml_collections
from absl import flags

from dsmath.evaluation import ablation
from dsmath.runs import driver
from dsmath.runs.errors import InputError, Paused, Preempted
from dsmath.runs.jobs import KEPT_BACK, LOG, PAUSED, WAITS, run_stages
from dsmath.runs.sweep import Stage, plan
from dsmath.runs.workdir import CONFIG, LINEAGE, RESULT, lock_workdir, write_atomically, write_json

_DRY_RUN = flags.DEFINE_bool("dry_run", False, "tell what would run and what is there, and do nothing")


def start(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Runs what is missing and writes the results of what there is.

    The workdir gets `results.csv`, `results.json`, `table.md`, `figure.png`, `figure.svg` and `commands.sh`.
    """
    if not workdir:
        raise InputError("--workdir: is empty; name a folder")
    folder = pathlib.Path(workdir)
    store = pathlib.Path(config.store or folder / "stages").absolute()
    ablation.check_figure(config.figure, config.evaluation.steps)
    if not config.metrics:
        raise InputError("config.metrics: empty; name one at least")
    stages, points = plan(config, store, load_config)
    if _DRY_RUN.value:
        print(describe(stages.values()))
        sys.exit()  # before commands that read what was not written are told
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be made ({error.strerror}); name another folder") from error
    with lock_workdir(folder):
        write_json(folder / CONFIG, {"stage": "sweep", **config.to_dict()})
        write_atomically(folder / "commands.sh", write_commands(stages.values()))
        ended = run_stages(stages, config.jobs)
        rows = ablation.collect(points, config.metrics)
        if rows:
            write_results(folder, config, rows)
    finish(stages, ended, f"{len(rows)} of {len(points)} figures are there")


def load_config(stage: str, preset: str) -> ml_collections.ConfigDict:
    """The config of a stage."""
    return importlib.import_module(f"configs.{stage}").get_config(preset)


def describe(stages: Iterable[Stage]) -> str:
    """What a sweep would do: of each stage whether it is finished, begun or new, and its command."""
    lines, counts = [], {"finished": 0, "begun": 0, "new": 0}
    for stage in stages:
        state = "finished" if (stage.workdir / RESULT).exists() else "begun"
        if not (stage.workdir / LINEAGE).exists() and state == "begun":
            state = "new"
        counts[state] += 1
        lines += [f"# {stage.name}: {state}", shlex.join(stage.command), ""]
    return "\n".join([*lines, ", ".join(f"{count} {state}" for state, count in counts.items())])


def finish(stages: dict[pathlib.Path, Stage], ended: dict[pathlib.Path, str], state: str) -> None:
    """Ends the program with what kept stages from finishing; silent where all have.

    Raises:
      InputError: one has failed.
      Paused: one waits for people.
      Preempted: one was paused.
    """
    causes = [f"{stages[path].name} {how} ({path / LOG})" for path, how in ended.items() if how != KEPT_BACK]
    line = f"{state}; {'; '.join(causes)}; "
    if not causes:
        return
    if {*ended.values()} <= {PAUSED, KEPT_BACK}:
        raise Preempted(f"{line}the same line resumes")
    if {*ended.values()} <= {PAUSED, WAITS, KEPT_BACK}:
        raise Paused(f"{line}do what the logs say, then run the same line again")
    raise InputError(f"{line}mend what the logs name, then run the same line again")


def write_commands(stages: Iterable[Stage]) -> str:
    """A script of the exact commands, parents first."""
    lines = ["#!/bin/sh", "# Every command of the sweep, parents first.", "set -e", f"cd {shlex.quote(os.getcwd())}"]
    for stage in stages:
        lines += ["", f"# {stage.name}", shlex.join(stage.command)]
    return "\n".join(lines) + "\n"


def write_results(folder: pathlib.Path, config: ml_collections.ConfigDict, rows: list[dict[str, Any]]) -> None:
    """Writes results, table and figure, and prints the table."""
    write_json(folder / ablation.RESULTS, rows)  # before a metric that they lack ends this
    table = ablation.make_table(rows, config.metrics)
    write_atomically(folder / "results.csv", ablation.make_csv(rows, config.metrics))
    write_atomically(folder / "table.md", table)
    ablation.write_figure(rows, config.figure, folder / "figure")
    print(table)
    print(f"figure: {folder / 'figure.png'}")
    sys.stdout.flush()


if __name__ == "__main__":
    driver.command_line("sweep", start, workdir_help="folder of the sweep; the same folder resumes it")
