"""The commands that drivers print at their end are commands that run."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from dsmath.runs import fields
from dsmath.runs.next_commands import NEXT, find_next

_DRIVERS = {path.stem for path in pathlib.Path("experiments").glob("[a-z]*.py")}


def test_every_driver_names_three():
    assert NEXT.keys() == _DRIVERS - {"completion", "grade"}
    assert all(len(set(commands)) == 3 for commands in NEXT.values())


@pytest.mark.parametrize("preset", ["nano", "7b"])
@pytest.mark.parametrize("stage", sorted(NEXT))
def test_drivers_configs_and_fields_exist(stage, preset):
    for command in find_next(stage, f"runs/{stage}", preset):
        words = shlex.split(command)
        driver = next((word.removeprefix("experiments.") for word in words if word.startswith("experiments.")), None)
        assert driver in _DRIVERS | {None}, command
        config = next((word.partition("=")[2] for word in words if word.startswith("--config=")), None)
        if config is not None:
            path, _, named = config.partition(":")
            assert named.split(",")[0] in fields.read_presets(path), command
            known = {field.name for field in fields.read_fields(config)}
            overrides = re.findall(r"--config\.([\w.]+)=", command)
            assert set(overrides) <= known, command


def test_a_bucket_is_read_and_no_workdir_lies_in_it():
    commands = find_next("convert", "gs://bucket/run", "")
    assert any("--config.init_from=gs://bucket/run" in command for command in commands)
    assert not [command for command in commands if "gs:/b" in command]
    (evaluate,) = (command for command in commands if "experiments.evaluate" in command)
    assert "--workdir=runs/evaluate" in evaluate


@pytest.mark.parametrize(("name", "size"), [("laptop", "nano"), ("h100", "7b"), ("v5p128", "7b")])
def test_the_size_of_a_chain_is_that_of_its_stages(tmp_path, name, size):
    config = fields.load(f"configs/speedruns/{name}.py")("try")
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    sizes = re.findall(r"configs/\w+(?:/\w+)?\.py:(\w+)", " ".join(find_next("pipeline", str(tmp_path), "try")))
    assert sizes == [size, size]


def test_folders_are_those_of_the_run():
    assert any("--config.init_from='my runs/sft'" in command for command in find_next("sft", "my runs/sft", "nano"))
    assert all(":7b" in command for command in find_next("sft", "runs/sft", "7b") if "--config=" in command)


def test_a_dry_run_of_a_sweep_tells_no_command_that_reads_what_it_did_not_write(tmp_path):
    words = ["--config=configs/ablations/fig5.py:nano", f"--workdir={tmp_path}/sweep", "--dry_run"]
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.sweep", *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert " new" in ended.stdout.splitlines()[-1] and "next:" not in ended.stdout + ended.stderr
    assert not (tmp_path / "sweep").exists()
