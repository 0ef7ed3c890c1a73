"""Launches a stage as many processes: on this machine, on a cluster, on a pod.

    python -m experiments.launch --config=configs/pretrain.py:nano --workdir=runs/pretrain --target=local \\
        --target.processes=4 --config.mesh.data=4

--dry_run shows what would be done. Targets: local, slurm, gke, tpu_vm, ray, ssh (configs/launch.py). The config, its
overrides, the workdir and the version of the code are fixed in WORKDIR/launch; the same line resumes the run.
"""

import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import flags
from ml_collections import config_flags

from dsmath.launch import jobset, local, ray_job, slurm, tpu_vm
from dsmath.launch.job import ROOT, Job, copy_code, describe_code
from dsmath.launch.together import run_together
from dsmath.runs import driver
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import RESULT, check_workdir, lock_workdir, write_atomically

_CONFIG = config_flags.DEFINE_config_file("config", None, "config of the stage, such as configs/pretrain.py:7b")
_TARGET = config_flags.DEFINE_config_file(
    "target", None, "local, slurm, gke, tpu_vm, ray, ssh; its fields: --target.x=y"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, which all processes see")
_MODEL = config_flags.DEFINE_config_file("model", None, "for the plan, where no checkpoint tells the model's sizes")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "show what would be done, and do nothing")
flags.mark_flags_as_required(["config", "workdir", "target"])
_ELSEWHERE = ("gke", "tpu_vm")  # targets whose hosts bring the code and the workdir themselves
_STAGES = ("pretrain", "sft", "rl")  # that run as several processes, and that can be planned


def start() -> None:
    """Describes the job; checks that it fits; runs or submits it."""
    target = _TARGET.value.to_dict()
    job = describe(target)
    text, lines = render(job, target)
    print("\n".join([*lines, "", text] if text else lines))
    check_fit(job, target)
    if _DRY_RUN.value:
        return
    if target["name"] in _ELSEWHERE:  # its hosts see the workdir, this machine need not
        if job.code.endswith("-dirty"):
            raise InputError(
                f"--target={target['name']}: files have changed since commit {job.code}; commit them first"
            )
        launch(job, target, pathlib.Path("launches") / job.name)
        return
    job.logs.mkdir(parents=True, exist_ok=True)
    with lock_workdir(job.logs):
        if (pathlib.Path(job.workdir) / RESULT).exists():
            print(f"launch: {job.workdir} is finished; nothing to do", file=sys.stderr)
            return
        job.record(target)
        copy_code(local.code_folder(job.workdir))
        launch(job, target, job.logs)


def describe(target: dict[str, Any]) -> Job:
    """The job of the command line."""
    config = config_flags.get_config_filename(flags.FLAGS["config"])
    stage = pathlib.Path(config.partition(":")[0]).stem
    if not (ROOT / "experiments" / f"{stage}.py").is_file():
        raise InputError(f"--config={config}: names no stage; there is no experiments/{stage}.py")
    processes = count_processes(target)
    if processes < 1:
        raise InputError(f"--target: {processes} processes make no run; raise their number")
    if processes > 1 and stage not in _STAGES:
        raise InputError(f"--target: {stage} is one process; only {', '.join(_STAGES)} are run by several")
    elsewhere = target["name"] in _ELSEWHERE
    check_workdir(_WORKDIR.value)
    workdir = _WORKDIR.value if elsewhere else str(pathlib.Path(_WORKDIR.value).absolute())
    copied = None if elsewhere or target.get("folder") else local.code_folder(workdir)
    code = describe_code(copied)
    job = Job(
        stage=stage,
        config=config,
        overrides=tuple(_overrides(sys.argv)),
        workdir=workdir,
        processes=processes,
        restarts=target["restarts"],
        environment={"DSMATH_CODE": code} | {name: str(value) for name, value in target["environment"].items()},
        code=code,
    )
    return job.with_code(copied) if copied else job


def _overrides(argv: list[str]) -> Iterator[str]:
    """The overrides of the stage's config, each as one word."""
    words = iter(argv[1:])
    for word in words:
        name, equals, _ = word.lstrip("-").partition("=")
        if word.startswith("-") and name.startswith(("config.", "noconfig.")):
            takes_next = not equals and name in flags.FLAGS and not flags.FLAGS[name].boolean
            yield f"--{name}={next(words)}" if takes_next else f"--{word.lstrip('-')}"


def count_processes(target: dict[str, Any]) -> int:
    """Processes of the run: one a host, or as many as the target says."""
    match target["name"]:
        case "slurm":
            return target["nodes"] * target["tasks_per_node"]
        case "gke":
            return target["slices"] * jobset.find_accelerator(target["accelerator"]).hosts
        case "tpu_vm":
            return jobset.find_accelerator(target["accelerator"]).hosts
        case "ssh":
            return len(_hosts(target))
        case _:
            return target["processes"]


def render(job: Job, target: dict[str, Any]) -> tuple[str, list[str]]:
    """The script or manifest, where the target takes one, and lines that tell what will be done."""
    where = target["name"]
    lines = [f"{job.name}: {job.stage} as {job.processes} processes, target {where}, code {job.code}"]
    lines += [f"workdir: {job.workdir}", f"restarts: {job.restarts}"]
    if where == "slurm":
        return slurm.write_script(job, target), lines
    if where == "gke":
        return jobset.render(job, target), lines
    if where == "tpu_vm":
        gcloud = tpu_vm.commands(job, target)
        return "", lines + [f"{name}: {shlex.join(command)}" for name, command in gcloud.items()]
    members = _members(job, target)
    return "", lines + [f"{member.name}: {shlex.join(member.command)}" for member in members]


def launch(job: Job, target: dict[str, Any], written: pathlib.Path) -> None:
    """Runs the job, or submits it and follows the log of process 0."""
    finished = pathlib.Path(job.workdir) / RESULT
    match target["name"]:
        case "slurm":
            script = written / slurm.SCRIPT
            write_atomically(script, slurm.write_script(job, target))
            follow_slurm(job, slurm.submit(script))
        case "gke":
            written.mkdir(parents=True, exist_ok=True)
            manifest = written / jobset.MANIFEST
            write_atomically(manifest, jobset.render(job, target))
            jobset.submit(job, target["namespace"], manifest)
            jobset.follow(job, target["namespace"])
        case "tpu_vm":
            tpu_vm.run(job, target)
        case "ray":
            ray_job.run(job, target)
        case _:
            run_together(lambda: _members(job, target), restarts=job.restarts, is_finished=finished.exists)


def follow_slurm(job: Job, number: str) -> None:
    """Prints what process 0 writes until the job has left the queue."""
    print(f"launch: job {number}; ends of this program leave it running; scancel {number} ends it", file=sys.stderr)
    log = job.logs / "process-0.log"
    log.touch()
    with subprocess.Popen(["tail", "--lines=0", "--follow", str(log)]) as follower:
        while slurm.is_queued(number):
            time.sleep(2)
        time.sleep(1)
        follower.terminate()
    if not (pathlib.Path(job.workdir) / RESULT).exists():
        raise InputError(
            f"job {number} has left the queue unfinished; {job.logs} holds its logs; the same line resumes it"
        )


def check_fit(job: Job, target: dict[str, Any]) -> None:
    """Refuses a config that `experiments.plan` finds no room for.

    Raises:
      InputError: it does not fit, or cannot be planned.
    """
    device, per_process = target["device"], target["devices_per_process"]
    if "accelerator" in target:
        accelerator = jobset.find_accelerator(target["accelerator"])
        device, per_process = device or accelerator.device, per_process or accelerator.chips
    if not device or job.stage not in _STAGES:
        return
    if per_process < 1:
        raise InputError(f"--target.devices_per_process: is {per_process}; --target.device={device} needs it")
    mesh = {axis: int(size) for axis, size in _CONFIG.value.mesh.items()}
    known = [size for size in mesh.values() if size > 0]
    total, fixed = job.processes * per_process, 1
    for size in known:
        fixed *= size
    if len(known) == len(mesh) and total != fixed:
        raise InputError(f"--config.mesh: takes {fixed} of the {total} devices of {job.processes} processes; take all")
    if total % fixed:
        raise InputError(f"--config.mesh: {fixed} does not divide the {total} devices of {job.processes} processes")
    shape = ",".join(f"{axis}={size if size > 0 else total // fixed}" for axis, size in mesh.items())
    given = config_flags.get_config_filename(flags.FLAGS["config"])  # the job's own copy is made when it is launched
    config = job.config if pathlib.Path(job.config.partition(":")[0]).exists() else given
    command = [sys.executable, "-m", "experiments.plan", f"--config={config}", *job.overrides]
    command += [f"--mesh={shape}", f"--device={device}", *(arg for arg in sys.argv if arg.startswith("--model"))]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=os.getcwd())
    told = (ran.stdout + ran.stderr).strip().splitlines()
    if ran.returncode == 2:
        raise InputError(f"the plan on {total} {device} ({shape}): {told[-1].removeprefix('error: ')}")
    if ran.returncode == 1:
        raise InputError(f"--config: does not fit {total} {device} ({shape}): {told[-1]}")
    print(f"plan: {told[-1]}")


def _members(job: Job, target: dict[str, Any]) -> list[Any]:
    if target["name"] == "ssh":
        folder = target["folder"] or os.getcwd()
        return local.ssh_members(job, _hosts(target), folder, target["python"], target["port"])
    return local.local_members(job)


def _hosts(target: dict[str, Any]) -> list[str]:
    hosts = [host.strip() for host in target["hosts"].split(",") if host.strip()]
    if not hosts:
        raise InputError("--target.hosts: is empty; name hosts, as ssh takes them, with commas between")
    return hosts


if __name__ == "__main__":
    targets = ROOT / "configs" / "launch.py"
    sys.argv = [f"--target={targets}:{arg[9:]}" if arg.startswith("--target=") else arg for arg in sys.argv]
    driver.run_program("launch", start, configs=[_CONFIG, _TARGET, _MODEL])
