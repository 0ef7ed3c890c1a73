"""What people mostly do after a stage: three commands, printed when its driver ends."""

import json
import pathlib
import shlex
from collections.abc import Mapping

from dsmath.runs.workdir import CONFIG


def _run(stage: str, preset: str = "{size}", **overrides: str) -> str:
    """The command of a stage in a folder beside that of the one that ended."""
    start = f"python -m experiments.{stage} --config=configs/{stage}.py:{preset} --workdir={{beside}}/{stage}"
    return " ".join([start, *(f"--config.{field.replace('__', '.')}={value}" for field, value in overrides.items())])


def _help(stage: str) -> str:
    return f"python -m experiments.{stage} --help"


# {workdir}: what the stage that ended wrote; {beside}: the folder around it; {size}: of the presets, nano or 7b;
# {mining}: that of mining, nano or paper.
_CURVES = "python -m experiments.view --workdir={beside}"
_EVALUATE = _run("evaluate", init_from="{workdir}")
_EXPORT = _run("export", "{mining}", corpus="{workdir}")
_PLAN = "python -m experiments.plan --config=configs/pretrain.py:7b --mesh=data=1,fsdp=16,tensor=4"
_SERVE = "python -m experiments.serve --config=configs/serve.py:{size} --workdir={workdir}"
_SWEEP = "python -m experiments.sweep --config=configs/ablations/fig6.py:{size} --workdir={beside}/fig6"
_TO_HUGGING_FACE = "python -m experiments.convert --from=orbax:{workdir} --to=hf:{beside}/hf"
_TOKENIZER = _run("tokenizer", corpus="{workdir}")

NEXT: Mapping[str, tuple[str, str, str]] = {  # by the stage that ended
    "mine": ("python -m experiments.annotate --workdir={workdir}", _TOKENIZER, _EXPORT),
    "annotate": (
        "python -m experiments.annotate --workdir={workdir} --export",
        "python -m experiments.mine --config=configs/mine.py:{mining} --workdir={workdir}",
        _EXPORT,
    ),
    "export": (_TOKENIZER, _run("pretrain", corpora__mined="{workdir}"), _PLAN),
    "tokenizer": (_run("pretrain", tokenizer="{workdir}"), _PLAN, _help("pretrain")),
    "pretrain": (_run("sft", init_from="{workdir}"), _EVALUATE, _CURVES),
    "sft": (_EVALUATE, _run("rl", init_from="{workdir}"), _CURVES),
    "reward": (
        _run("rl", "{size},grpo_os", reward_model="{workdir}"),
        _run("evaluate", init_from="{beside}/sft", reward_model="{workdir}"),
        _CURVES,
    ),
    "rl": (_EVALUATE, _TO_HUGGING_FACE, _CURVES),
    "evaluate": (
        "python -m experiments.rescore --workdir={workdir} --grader=both",
        "python -m experiments.compare {workdir} OTHER_EVALUATION",
        _SWEEP,
    ),
    "rescore": (
        "cat {workdir}/rescored/*/flips.json",
        "python -m experiments.grade PREDICTION GOLD",
        "python -m experiments.compare {workdir} OTHER_EVALUATION",
    ),
    "compare": (_help("rescore"), _help("evaluate"), _help("grade")),
    "corpus": (_run("pretrain", corpora__mined="{workdir}"), _TOKENIZER, _help("sweep")),
    "loss": (_EVALUATE.replace("{workdir}", "{beside}/pretrain"), _help("pretrain"), _help("sweep")),
    "benchmarks": (_help("evaluate"), _help("instructions"), _help("mine")),
    "instructions": (_run("sft", solutions="\"{{'instructions':'{workdir}'}}\""), _help("sft"), _help("evaluate")),
    "generate": (_help("evaluate"), _help("rl"), _help("serve")),
    "serve": (_EVALUATE, _TO_HUGGING_FACE, _help("generate")),
    "convert": (_EVALUATE, _SERVE, _run("sft", init_from="{workdir}")),
    "launch": (_CURVES, _help("plan"), _help("sweep")),
    "plan": (_help("pretrain"), _help("rl"), _help("sweep")),
    "pipeline": (
        _SWEEP,
        "python -m experiments.serve --config=configs/serve.py:{size} --workdir={workdir}/rl",
        "DSMATH_RUN={workdir} make notebooks",
    ),
    "view": (_CURVES, _help("sweep"), _help("evaluate")),
    "sweep": ("cat {workdir}/table.md", "cat {workdir}/commands.sh", _help("sweep")),
}


def _read_preset(folder: pathlib.Path) -> str:
    """The preset of a chain's stage rl, for a chain's own may be any name; empty where its workdir tells none."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))["presets"]["rl"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def find_next(stage: str, workdir: str, preset: str) -> list[str]:
    """The three commands; none for a program that is not a stage.

    Args:
      stage: that ended.
      workdir: of it; may be empty.
      preset: of its config; may be empty.
    """
    folder = pathlib.Path(workdir or "runs/it")
    is_bucket = "://" in workdir  # it is read from, and no workdir lies in it
    if stage == "pipeline":
        preset = _read_preset(folder) or preset
    is_nano = preset.split(",")[0] in ("", "nano")
    fields = {
        "workdir": shlex.quote(workdir if is_bucket else str(folder)),
        "beside": "runs" if is_bucket else shlex.quote(str(folder.parent)),
        "size": "nano" if is_nano else "7b",
        "mining": "nano" if is_nano else "paper",
    }
    return [command.format(**fields) for command in NEXT.get(stage, ())]
