"""Runs the whole chain: mine, tokenizer, pretrain, SFT, GRPO, evaluation before and after RL, report.

    python -m experiments.pipeline --config=configs/pipeline.py:nano --workdir=runs/demo

Every stage is a command of its own, printed as it starts: it can be run alone, and the same line resumes the chain.
"""

import importlib
import shlex
import sys
from typing import Any

from dsmath.data import problems
from dsmath.data.solutions import write_solutions
from dsmath.evaluation.report import write_curves_png, write_report
from dsmath.runs import driver
from dsmath.runs.commands import differences, stage_command, start
from dsmath.runs.errors import InputError, Paused, Preempted
from dsmath.runs.workdir import read_result

LAUNCHED = ("pretrain", "sft", "rl")  # stages that several processes can run


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Runs the stages that are not finished yet, then writes `report.html` and `summary.json`."""
    commands = make_commands(config, workdir)

    # The corpus must not hold the problems on which the models are compared
    held_out = problems.load(config.problems, "test", count=config.evaluate.num_problems, seed=config.evaluate.seed)
    write_solutions(workdir / "problems" / "test.jsonl", held_out)

    for number, (folder, command) in enumerate(commands.items(), start=1):
        print(f"[{number}/{len(commands)}] python {shlex.join(command[1:])}", file=sys.stderr, flush=True)
        code = start(command).wait()
        if code == 3:
            raise Paused(f"stage {folder} waits for people; do what it says, then run the same line again")
        if code:
            raise InputError(
                f"stage {folder} ended with status {code}; mend what it names, then run the same line again"
            )
        if read_result(workdir / folder) is None:
            raise Preempted(f"paused in stage {folder}; the same line resumes")
    results = {folder: read_result(workdir / folder) for folder in commands}

    # Report
    report, summary = write_report(workdir)
    write_curves_png(workdir, workdir / "curves.png")
    return {
        "accuracy_before_rl": results["evaluate_sft"]["accuracy"],
        "accuracy_after_rl": results["evaluate_rl"]["accuracy"],
        "report": str(report),
        "summary": str(summary),
    }


def make_commands(config: Any, workdir: Any) -> dict[str, list[str]]:
    """The command of each stage, by its folder in the workdir, in the order of the chain.

    Raises:
      InputError: a field that the chain sets itself was overridden.
    """
    problems_file = f"{workdir}/problems/test.jsonl"
    benchmarks = f"{config.mine.benchmarks},{problems_file}" if config.mine.benchmarks else problems_file
    stages = {
        "mine": ("mine", {"benchmarks": benchmarks}),
        "tokenizer": ("tokenizer", {"corpus": f"{workdir}/mine"}),
        "pretrain": ("pretrain", {"tokenizer": f"{workdir}/tokenizer", "corpora.mined": f"{workdir}/mine"}),
        "sft": ("sft", {"init_from": f"{workdir}/pretrain"}),
        "evaluate_sft": ("evaluate", {"init_from": f"{workdir}/sft"}),
        "rl": ("rl", {"init_from": f"{workdir}/sft"}),
        "evaluate_rl": ("evaluate", {"init_from": f"{workdir}/rl"}),
    }
    commands = {}
    for folder, (stage, paths) in stages.items():
        preset = config.presets[stage]
        default = importlib.import_module(f"configs.{stage}").get_config(preset)
        overrides = differences(default.to_dict(), config[stage].to_dict())
        for field, value in paths.items():
            group, _, name = field.partition(".")
            among = overrides.get(group, {}) if name else {}  # a mapping whose keys are the user's is given whole
            if field in overrides or (among and among.get(name) != default[group].get(name)):
                raise InputError(f"config.{stage}.{field}: the chain sets it itself; run the stage alone to choose it")
            overrides |= {group: among | {name: value}} if among else {field: value}
        command = stage_command(stage, preset, workdir / folder, overrides)
        if config.launch and stage in LAUNCHED:
            command = [*command[:2], "experiments.launch", *command[3:], *shlex.split(config.launch)]
        commands[folder] = command
    return commands


if __name__ == "__main__":
    driver.main("pipeline", run)
