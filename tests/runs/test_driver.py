"""The command line of a stage: what a user mistypes costs one line and exit status 2."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

_CONFIG = """
import ml_collections

def get_config(preset="nano"):
    if preset != "nano":
        raise ValueError(f"preset {preset!r} is none of nano")
    c = ml_collections.ConfigDict()
    c.left = 1
    c.inner = ml_collections.ConfigDict({"right": 2, "learning_rate": 0.5})
    return c
"""
_DRIVER = """
from dsmath.runs import driver
from dsmath.runs.errors import InputError, Paused, Preempted

def run(config, workdir):
    if config.left == 99:
        raise Paused("waits for a person; run the same line again")
    if config.left == 97:
        raise Preempted("saved")
    if config.left == 98:
        raise OSError(28, "No space left on device", "file")
    if config.left < 0:
        raise InputError("config.left: must not be negative; raise it")
    if config.left == 0:
        return {"quotient": 1 / config.left}
    with open(workdir / "calls", "a") as file:
        file.write("x")
    return {"total": config.left + config.inner.right}

driver.main("tiny", run)
"""


@pytest.fixture
def stage(tmp_path):
    """Runs a tiny stage; (arguments) -> the finished process."""
    (tmp_path / "config.py").write_text(_CONFIG)
    (tmp_path / "stage.py").write_text(_DRIVER)
    (tmp_path / "broken.py").write_text("def get_config(:\n")

    def run(*arguments: str, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, "stage.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, **options)

    return run


NANO, WORKDIR = "--config=config.py:nano", "--workdir=work"


def test_a_preempted_run_ends_with_the_status_that_its_cluster_needs(stage):
    assert stage(NANO, WORKDIR, "--config.left=97").returncode == 0
    variables = os.environ | {"DSMATH_SAVED_STATUS": "75"}
    assert stage(NANO, WORKDIR, "--config.left=97", env=variables).returncode == 75


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([NANO, WORKDIR, "--config.inner.lerning_rate=1"], ["--config.inner.lerning_rate", "inner.learning_rate"]),
        ([NANO, WORKDIR, "--config.learning_rate=1"], ["--config.learning_rate", "mean 'inner.learning_rate'"]),
        ([NANO, WORKDIR, "--config.iner.right=1"], ["--config.iner.right", "mean 'inner.right'"]),
        ([NANO, WORKDIR, "--config.lefd=1"], ["--config.lefd", "mean 'left'"]),
        ([NANO, WORKDIR, "--config.inner.zzzzz=1"], ["--config.inner.zzzzz", "no field 'zzzzz'"]),
        ([NANO, WORKDIR, "--config.left=many"], ["config.left", "'many'"]),
        ([NANO, WORKDIR, "--config.left=1.5"], ["config.left", "'1.5'"]),
        ([NANO, WORKDIR, "--config.inner.learning_rate=fast"], ["config.inner.learning_rate", "'fast'"]),
        ([NANO, WORKDIR, "--config.inner=3"], ["config.inner", "'3'"]),
        (["--config=config.py:huge", WORKDIR], ["preset 'huge'", "nano"]),
        (["--config=absent.py:nano", WORKDIR], ["--config", "absent.py"]),
        (["--config=./confg.py:nano", WORKDIR], ["--config", "mean config.py"]),
        (["--config=broken.py:nano", WORKDIR], ["--config", "invalid syntax"]),
        ([NANO], ["--workdir"]),
        ([NANO, "--workdir="], ["--workdir"]),
        ([NANO, "--workdir=config.py"], ["--workdir=config.py", "a folder"]),
        ([WORKDIR], ["--config"]),
        ([NANO, WORKDIR, "left=2"], ["'left=2'", "--config.field=value"]),
        ([NANO, WORKDIR, "--wrkdir=other"], ["wrkdir", "mean: workdir"]),
        ([NANO, WORKDIR, "--config.left=-1"], ["config.left", "must not be negative"]),
    ],
    ids=lambda value: value[-1].split("=")[0] if isinstance(value, list) and value[0].startswith("--") else None,
)
def test_bad_input_costs_one_line_and_status_2(stage, tmp_path, arguments, named):
    process = stage(*arguments)
    lines = process.stderr.splitlines()
    assert (process.returncode, len(lines), process.stdout) == (2, 1, ""), process.stderr
    assert lines[0].startswith("error: ")
    for part in named:
        assert part in lines[0].replace("--workdir=None", "--workdir")
    assert not (tmp_path / "work" / "result.json").exists()
    assert not (tmp_path / "result.json").exists()


def test_a_config_file_that_fails_is_named(stage, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config():\n    return {}[2]\n")
    done = stage("--config=broken.py", WORKDIR)
    assert (done.returncode, done.stderr) == (2, "error: --config: the file cannot be loaded: KeyError(2)\n")


def test_a_defect_of_the_code_is_no_input_error(stage):
    process = stage(NANO, WORKDIR, "--config.left=0")
    assert process.returncode not in (0, 2)
    assert "ZeroDivisionError" in process.stderr


def test_a_finished_stage_is_not_run_again_and_another_config_is_refused(stage, tmp_path):
    first = stage(NANO, WORKDIR, "--config.inner.right=5")
    assert first.returncode == 0, first.stderr
    assert "total: 6" in first.stdout.splitlines()
    result = json.loads((tmp_path / "work" / "result.json").read_text())
    assert result.keys() == {"total", "seconds"}
    assert result["total"] == 6
    config = json.loads((tmp_path / "work" / "config.json").read_text())
    assert config == {"stage": "tiny", "left": 1, "inner": {"right": 5, "learning_rate": 0.5}}

    again = stage(NANO, WORKDIR, "--config.inner.right=5")
    assert again.returncode == 0
    assert "finished; nothing to do" in again.stderr
    assert again.stdout == first.stdout
    assert (tmp_path / "work" / "calls").read_text() == "x"

    other = stage(NANO, WORKDIR, "--config.inner.right=6")
    assert other.returncode == 2
    (line,) = other.stderr.splitlines()
    assert str(pathlib.Path("work", "config.json")) in line
    assert "config.inner.right is 5 there and 6 in this command" in line
    assert "--workdir" in line


def test_help_shows_the_two_flags(stage):
    text = stage("--help").stdout
    assert "--config" in text
    assert "--workdir" in text


def test_help_lists_the_fields_of_the_config_that_is_named(stage):
    text = stage("--help", NANO).stdout
    assert "left = 1" in text and "inner.learning_rate = 0.5" in text
    wrong = stage("--help", "--config=config.py:huge")
    assert wrong.returncode == 2 and "preset 'huge'" in wrong.stderr.splitlines()[-1]


def test_run_that_waits_for_people_ends_with_a_status_of_its_own(stage):
    waiting = stage(NANO, WORKDIR, "--config.left=99")
    assert waiting.returncode == 3 and waiting.stderr.strip() == "tiny: waits for a person; run the same line again"


def test_full_disk_is_one_line(stage):
    full = stage(NANO, WORKDIR, "--config.left=98")
    assert full.returncode == 2
    assert full.stderr.strip().splitlines()[-1].startswith("error: --workdir: the disk is full ([Errno 28]")
