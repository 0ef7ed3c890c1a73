"""Launching a stage: what a dry run shows, what is refused, and a lost process."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dsmath.data import problems
from dsmath.data.tokenizer import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
_NANO = "--config=configs/pretrain.py:nano"
TINY = {
    "corpora": "{'workbook': 'embedded'}",
    "weights": "{'workbook': 1.0}",
    "num_embedded": 40,
    "mesh.data": 4,
    "model.num_layers": 1,
    "model.width": 32,
    "model.head_dim": 8,
    "model.mlp_width": 32,
    "length": 32,
    "batch_size": 8,
    "num_steps": 40,
    "save_every": 10,
    "log_every": 1,
}


def _launch(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.launch", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_a_dry_run_shows_what_would_be_done_and_does_nothing(tmp_path):
    shown = _launch(
        "--config=configs/pretrain.py:nano",
        f"--workdir={tmp_path}/run",
        "--target=local",
        "--dry_run",
        "--config.seed=3",
    )
    assert shown.returncode == 0, shown.stderr
    code = tmp_path / "run" / "launch" / "code"
    assert shown.stdout.count(f"experiments.pretrain --config={code}/configs/pretrain.py:nano") == 2
    assert "--config.seed=3" in shown.stdout and "--process_id=1" in shown.stdout
    assert not (tmp_path / "run").exists()


def test_flags_may_stand_apart_from_their_values(tmp_path):
    """As absl takes them everywhere else."""
    words = ["--config", "configs/pretrain.py:nano", "--config.seed", "-3", "-config.num_steps=7", "--config.length=32"]
    shown = _launch(*words, f"--workdir={tmp_path}/run", "--target=local", "--target.processes=1", "--dry_run")
    assert shown.returncode == 0, shown.stderr
    assert "--config.seed=-3 --config.num_steps=7 --config.length=32" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--target=moon"], "target 'moon' is none of local, slurm"),
        (["--target=local", "--target.proceses=4"], "did you mean 'processes'"),
        (["--target=local", "--target.processes=0"], "0 processes make no run"),
        (["--target=ssh"], "--target.hosts: is empty"),
        (["--target=gke", "--target.accelerator=v5p-3"], "--target.accelerator=v5p-3"),
        (["--target=gke", "--target.mount=/", "--config.mesh.fsdp=7"], "7 does not divide the 64 devices"),
        (["--target=gke", "--target.mount=/", "--config.mesh.data=4"], "takes 4 of the 64 devices of 16 processes"),
        (["--target=gke"], "is not on the pods' volume"),
        (["--target=tpu_vm", "--workdir=gs://bucket/run"], "--workdir=gs://bucket/run: is no folder; mount the bucket"),
        (["--target=local", "--target.device=h100"], "--target.devices_per_process"),
    ],
)
def test_bad_input_costs_one_line_and_status_2(tmp_path, arguments, named):
    given = (
        arguments
        if any(word.startswith("--config=") for word in arguments)
        else ["--config=configs/pretrain.py:nano", *arguments]
    )
    refused = _launch(f"--workdir={tmp_path}/run", "--dry_run", *given)  # of two workdirs the last holds
    assert refused.returncode == 2, refused.stdout
    assert named in refused.stderr.strip().splitlines()[-1]


def test_a_first_launch_is_planned_before_its_copy_of_the_code_is_there(tmp_path):
    device = ["--target=slurm", "--target.device=h100", "--target.devices_per_process=1"]
    shown = _launch(_NANO, "--config.mesh.data=-1", f"--workdir={tmp_path}/run", *device, "--dry_run")
    assert shown.returncode == 0, shown.stderr
    assert "plan: fits: H100" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accelerator", "stage", "fits"),
    [("v5p-128", "pretrain", True), ("v5p-8", "pretrain", False), ("64xh100", "rl", True)],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, accelerator, stage, fits):
    model = ["--config.model.attention=splash"] if stage == "pretrain" else ["--model=configs/pretrain.py:7b"]
    ran = _launch(
        f"--config=configs/{stage}.py:7b", f"--workdir={tmp_path}/run", "--dry_run",
        "--target=gke", f"--target.mount={tmp_path}",
        f"--target.accelerator={accelerator}", *model,
    )  # fmt: skip
    assert (ran.returncode == 0) == fits, ran.stderr
    assert "fits" in ran.stdout if fits else "does not fit" in ran.stderr


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(problems.documents(200, 0), vocab_size=420).save(folder)
    overrides = TINY | {"tokenizer": folder, "num_cpu_devices": 1}
    fields = [f"--config.{name}={value}" for name, value in overrides.items()]

    def make(workdir: pathlib.Path | str, *arguments: str) -> list[str]:
        start = [
            sys.executable,
            "-m",
            "experiments.launch",
            "--config=configs/pretrain.py:nano",
            f"--workdir={workdir}",
        ]
        return [*start, *fields, *arguments]

    make.folder = folder
    return make


def test_relative_paths_begin_where_the_run_is_launched(command, tmp_path):
    """The code is a copy elsewhere; the folders of parents, by default runs/…, are not in it."""
    where = tmp_path / "here"
    where.mkdir()
    (where / "runs").symlink_to(command.folder.parent)
    overrides = {"tokenizer": f"runs/{command.folder.name}", "mesh.data": 1}
    fields = [f"--config.{name}={value}" for name, value in overrides.items()]
    line = command("runs/run", *fields, "--target=local", "--target.processes=1")
    line = [word.replace("=configs/", f"={ROOT}/configs/") for word in line]
    ran = subprocess.run(
        line, cwd=where, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    workdir = where / "runs" / "run"
    job = json.loads((workdir / "launch" / "job.json").read_text())
    assert job["config"] == f"{workdir.absolute()}/launch/code/configs/pretrain.py:nano"
    assert json.loads((workdir / "lineage.json").read_text())["code"].endswith(f"+{job['code']}")


def _records(workdir: pathlib.Path) -> list[dict[str, float]]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if "second" not in name} for line in lines]


def _kill_one(workdir: pathlib.Path, pattern: str) -> None:
    """Kills a process of a run, once it has written some metrics."""
    metrics = workdir / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 12:
        time.sleep(0.1)
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(found[-1]), signal.SIGKILL)


@pytest.mark.slow
def test_four_local_processes_one_killed_end_at_the_unbroken_result(command, tmp_path):
    for name in ("unbroken", "killed"):
        workdir = tmp_path / name
        launcher = subprocess.Popen(
            command(workdir, "--target=local", "--target.processes=4"), cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        if name == "killed":
            _kill_one(workdir, f"workdir={workdir}.*--process_id=2")
        _, told = launcher.communicate(timeout=600)
        assert launcher.returncode == 0, told
    assert "process 2 ended by SIGKILL" in told
    assert _records(tmp_path / "killed") == _records(tmp_path / "unbroken")


@pytest.mark.slow
def test_ray_runs_two_processes_with_the_curve_of_two_local_ones(command, tmp_path):
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'dsmath[ray]'")
    two = ("--config.mesh.data=2", "--config.num_steps=20")
    ray = ("--target=ray", "--target.address=", f"--target.python={sys.executable}")
    ran = subprocess.run(
        command(tmp_path / "ray", *ray, *two), cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    subprocess.run(command(tmp_path / "local", "--target=local", *two), cwd=ROOT, check=True)
    assert len(_records(tmp_path / "ray")) == 20
    assert _records(tmp_path / "ray") == _records(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("sinfo") is None or subprocess.run(["sinfo", "-h"], capture_output=True, check=False).returncode != 0,
    reason="no Slurm answers here",
)
def test_slurm_runs_four_tasks_one_killed_to_the_unbroken_result(command, tmp_path):
    slurm = ("--target=slurm", "--target.tasks_per_node=4", f"--target.python={sys.executable}")
    launcher = subprocess.Popen(command(tmp_path / "slurm", *slurm), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _kill_one(tmp_path / "slurm", f"workdir={tmp_path / 'slurm'}.*--distributed")
    _, told = launcher.communicate(timeout=600)
    assert launcher.returncode == 0, told
    subprocess.run(command(tmp_path / "local", "--target=local", "--target.processes=4"), cwd=ROOT, check=True)
    assert _records(tmp_path / "slurm") == _records(tmp_path / "local")
