"""Brings Hugging Face checkpoints in and out.

python -m experiments.convert --from=hf:DIR --to=orbax:WORKDIR [--dtype=keep|float32|bfloat16]
python -m experiments.convert --from=orbax:WORKDIR --to=hf:DIR [--dtype=…] [--max_shard_size=5GB] [--length=4096]

A workdir made so is a parent like any other: --config.init_from=WORKDIR. Its weights keep their number format; training
holds them in float32, whatever it is. The same line resumes: what a kill left behind is never taken for a checkpoint.
"""

import pathlib
import re
import shutil
import sys
from typing import Any

import ml_collections
from absl import flags

from dsmath.huggingface import convert
from dsmath.model.config import CHOICES
from dsmath.runs.driver import run_program, run_stage
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import CONFIG, LINEAGE, lock_workdir, read_json, require_finished, write_json, write_lineage
from dsmath.train.checkpoint import read_model

_LOCK = ".lock"  # lock_workdir's


def define_flags() -> None:
    """The flags of the command line."""
    flags.DEFINE_string("from", None, "hf:DIR, a checkpoint's folder, or orbax:WORKDIR, a finished stage's")
    flags.DEFINE_string("to", None, "orbax:WORKDIR or hf:DIR, the other kind")
    flags.DEFINE_enum("dtype", convert.KEEP, list(convert.DTYPES), "number format of the weights that are written")
    flags.DEFINE_string("max_shard_size", "5GB", "to hf: size of a file at most, such as 500MB")
    flags.DEFINE_integer("length", 0, "to hf: tokens of the longest context; 0: the workdir's config.length", 0)
    flags.DEFINE_enum("remat", "full", CHOICES["remat"], "to orbax: what training from it computes again")
    flags.DEFINE_enum("attention", "xla", CHOICES["attention"], "to orbax: how attention is computed from it")
    flags.mark_flags_as_required(["from", "to"])


def start() -> None:
    """Converts in the direction that --from and --to name."""
    value = {name: flags.FLAGS[name].value for name in flags.FLAGS}
    (source_kind, source), (target_kind, target) = (parse_side(side, value[side]) for side in ("from", "to"))
    if source_kind == target_kind:
        raise InputError(f"--to={value['to']}: both sides are {target_kind}; one is hf:DIR, the other orbax:WORKDIR")
    if target_kind == "orbax":
        numerics = {"remat": value["remat"], "attention": value["attention"]}
        bring_in(source, target, dtype=value["dtype"], numerics=numerics)
    else:
        size = parse_size(value["max_shard_size"])
        bring_out(source, target, dtype=value["dtype"], max_shard_size=size, length=value["length"])


def bring_in(source: pathlib.Path, workdir: pathlib.Path, *, dtype: str, numerics: dict[str, str]) -> None:
    """Makes a finished stage of a Hugging Face checkpoint."""
    checkpoint = convert.open_checkpoint(source, dtype, numerics)
    config = {"from": str(source), "dtype": dtype, "length": checkpoint.length, **numerics}

    def run(_: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
        write_lineage(workdir, parents={"from": source}, data=checkpoint.sources())
        checkpoint.tokenizer.save(workdir)
        return {"parameters": convert.to_orbax(checkpoint, workdir)}

    run_stage("convert", run, ml_collections.ConfigDict(config), str(workdir))


def bring_out(workdir: pathlib.Path, target: pathlib.Path, *, dtype: str, max_shard_size: int, length: int) -> None:
    """Makes a Hugging Face checkpoint of a workdir's newest checkpoint; its lineage.json names the parent."""
    require_finished(workdir, "--from")
    read_model(workdir, "--from")  # there is a checkpoint
    options = {"dtype": dtype, "max_shard_size": max_shard_size, "length": length or _read_length(workdir)}
    # The files gather beside the target, which appears when all are there.
    partial = target.absolute().with_name(f".{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with lock_workdir(partial):
        for path in partial.iterdir():
            if path.name != _LOCK:
                path.unlink()
        write_lineage(partial, parents={"from": workdir})
        record = {**read_json(partial / LINEAGE), "options": options}
        write_json(partial / LINEAGE, record)
        try:
            finished = _is_finished(target, record)
        except InputError:
            shutil.rmtree(partial)
            raise
        if finished:
            shutil.rmtree(partial)
            print(f"convert: {target} is finished; nothing to do", file=sys.stderr)
            return
        figures = convert.from_orbax(workdir, partial, **options)
        (partial / _LOCK).unlink()
        partial.rename(target)
    print(f"convert: finished; {target}", file=sys.stderr)
    for name, value in figures.items():
        print(f"{name}: {value}")


def _is_finished(target: pathlib.Path, record: dict[str, Any]) -> bool:
    """Whether the target is what this command makes.

    Raises:
      InputError: it is something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    there = read_json(target / LINEAGE) if (target / LINEAGE).is_file() else {}
    if any(there.get(part) != record[part] for part in ("parents", "options")):
        raise InputError(f"--to=hf:{target}: something else is there; remove it, or name another folder")
    return True


def _read_length(workdir: pathlib.Path) -> int:
    """The longest context that a stage has trained, or that its checkpoint came with."""
    length = read_json(workdir / CONFIG).get("length") if (workdir / CONFIG).is_file() else None
    if not length:
        raise InputError(f"--length: {workdir / CONFIG} names none; give the tokens of the longest context")
    return length


def parse_size(text: str) -> int:
    """The bytes of a size such as 500MB."""
    found = re.fullmatch(r"(\d+)([KMG]?)B?", text.upper())
    if not found or int(found[1]) < 1:
        raise InputError(f"--max_shard_size={text}: give a size such as 500MB or 5GB")
    return int(found[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[found[2]]


def parse_side(flag: str, text: str) -> tuple[str, pathlib.Path]:
    """The kind and the folder of one side."""
    kind, _, path = text.partition(":")
    if kind not in ("hf", "orbax") or not path:
        raise InputError(f"--{flag}={text}: write hf:DIR or orbax:WORKDIR")
    return kind, pathlib.Path(path)


if __name__ == "__main__":
    define_flags()
    run_program("convert", start, writes="--to")
