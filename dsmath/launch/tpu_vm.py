"""TPU VM pods: gcloud asks for the slice and runs the same line on all of its hosts."""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dsmath.launch.job import RESTART_STATUS, Job, find_repository, take_place, with_environment
from dsmath.runs.errors import SAVED_STATUS, InputError, Paused

_READY_SECONDS = 24 * 3600  # that a slice is waited for
_POLL_SECONDS = 30.0
_REFUSED, _TAKEN = ("FAILED", "SUSPENDED"), ("PREEMPTED", "TERMINATED")  # of a queued resource, of its slice
# cloud.google.com/tpu/docs/runtimes: Cloud TPU's name of a type, and the software of its hosts.
_TYPES = {
    "v4": ("v4", "tpu-ubuntu2204-base"),
    "v5p": ("v5p", "v2-alpha-tpuv5"),
    "v5e": ("v5litepod", "v2-alpha-tpuv5-lite"),
    "v6e": ("v6e", "v2-alpha-tpuv6e"),
}


def commands(job: Job, target: Mapping[str, Any]) -> dict[str, list[str]]:
    """The commands of gcloud: `create`, `asked`, `state`, `run`, `delete`.

    Args:
      job: what the hosts do.
      target: the fields of `configs/launch.py:tpu_vm`.
    Raises:
      InputError: the accelerator is no TPU, or there is no repository that a new host could clone.
    """
    kind, _, number = target["accelerator"].partition("-")
    if kind not in _TYPES:
        raise InputError(f"--target.accelerator={target['accelerator']}: name a TPU type ({', '.join(_TYPES)})")
    accelerator, runtime = _TYPES[kind]
    place = [f"--{name}={target[name]}" for name in ("project", "zone") if target[name]]
    tpus = ["gcloud", "compute", "tpus"]
    create = [*tpus, "queued-resources", "create", job.name, f"--node-id={job.name}", *place]
    create += [f"--accelerator-type={accelerator}-{number}", f"--runtime-version={target['runtime'] or runtime}"]
    create += ["--spot"] if target["spot"] else []
    folder, repository = shlex.quote(target["folder"]), target["repository"] or find_repository()
    variables = {SAVED_STATUS: str(RESTART_STATUS), **job.environment}
    steps = [
        f"{{ test -d {folder} || git clone --quiet {shlex.quote(repository)} {folder}; }}",  # hosts come bare
        f"cd {folder} && git fetch --quiet && git checkout --quiet {shlex.quote(job.code)}",
        f"{{ {target['setup'] or 'true'}; }}",
        take_place(job, job.name),
        f"exec {with_environment(job.command_of_cluster(target['python']), variables)}",
    ]
    line = " && ".join(steps)
    return {
        "create": create,
        "asked": [*tpus, "queued-resources", "describe", job.name, *place, "--format=value(state.state)"],
        "state": [*tpus, "tpu-vm", "describe", job.name, *place, "--format=value(state)"],
        "run": [*tpus, "tpu-vm", "ssh", job.name, *place, "--worker=all", f"--command={line}"],
        "delete": [*tpus, "queued-resources", "delete", job.name, *place, "--force", "--quiet"],
    }


def run(job: Job, target: Mapping[str, Any], poll_seconds: float = _POLL_SECONDS) -> None:
    """Asks for the slice, runs the job on it, and asks again when it has been preempted.

    Raises:
      InputError: no gcloud, no slice, bad input, or more failures than restarts.
      Paused: the run waits for people.
    """
    gcloud = commands(job, target)
    for attempt in range(job.restarts + 1):
        _get_slice(job, gcloud, poll_seconds)
        status = _stream(gcloud["run"])
        if status in (0, 2, 3):
            _say(f"the slice stays, and costs; {shlex.join(gcloud['delete'])} gives it back")
        if status == 0:
            return
        if status == 2:  # another attempt would end alike
            raise InputError(f"--target=tpu_vm: the run on {job.name} was refused; its lines above say why")
        if status == 3:
            raise Paused("the run waits for people; its lines above say for what")
        if attempt < job.restarts:
            _say(f"{job.name} ended with status {status}; restart {attempt + 1} of {job.restarts}")
    raise InputError(
        f"--target=tpu_vm: {job.name} failed and {job.restarts} restarts are used up; mend it and launch again"
    )


def _get_slice(job: Job, gcloud: Mapping[str, Sequence[str]], poll_seconds: float) -> None:
    """Waits for the slice, which may be there, or asked for, since an earlier launch."""
    created, deadline = False, time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        asked = _state(gcloud["asked"])
        if asked in _REFUSED and created:
            raise InputError(f"--target=tpu_vm: {job.name} is {asked}; {shlex.join(gcloud['asked'][:-1])} says why")
        state = _state(gcloud["state"]) if asked == "ACTIVE" else ""
        if state == "READY":
            return
        if asked in _REFUSED or state in _TAKEN:
            _call(gcloud["delete"])
        elif not asked:
            _call(gcloud["create"])
            created = True
        else:
            time.sleep(poll_seconds)
    raise InputError("--target=tpu_vm: no slice came within a day; try another zone")


def _state(command: Sequence[str]) -> str:
    """The state of a resource; empty where there is none."""
    ran = _run(command)
    if ran.returncode and "NOT_FOUND" not in ran.stderr:
        raise _failure(command, ran)
    return ran.stdout.strip()


def _call(command: Sequence[str]) -> None:
    ran = _run(command)
    if ran.returncode:
        raise _failure(command, ran)


def _failure(command: Sequence[str], ran: subprocess.CompletedProcess) -> InputError:
    told = ran.stderr.strip().splitlines() or ["no reason"]
    return InputError(f"--target=tpu_vm: {shlex.join(command[:5])} … fails: {told[-1]}")


def _stream(command: Sequence[str]) -> int:
    return subprocess.run(command, check=False).returncode


def _run(command: Sequence[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError("--target=tpu_vm: there is no gcloud here; install the Google Cloud CLI and log in") from error


def _say(line: str) -> None:
    print(f"launch: {line}", file=sys.stderr, flush=True)
