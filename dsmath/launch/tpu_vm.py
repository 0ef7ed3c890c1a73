"""TPU VM pods: gcloud asks for the slice and runs the same line on all of its hosts."""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dsmath.launch.job import Job, with_environment
from dsmath.runs.errors import InputError

_READY_SECONDS = 24 * 3600  # that a slice is waited for
_POLL_SECONDS = 30.0
_GONE = ("PREEMPTED", "TERMINATED", "SUSPENDED", "FAILED")


def commands(job: Job, target: Mapping[str, Any]) -> dict[str, list[str]]:
    """The commands of gcloud: `create`, `state`, `run`, `delete`.

    Args:
      job: what the hosts do.
      target: the fields of `configs/launch.py:tpu_vm`.
    """
    place = [f"--project={target['project']}", f"--zone={target['zone']}"]
    tpus = ["gcloud", "compute", "tpus"]
    create = [*tpus, "queued-resources", "create", job.name, f"--node-id={job.name}", *place]
    create += [f"--accelerator-type={target['accelerator']}", f"--runtime-version={target['runtime']}"]
    create += ["--spot"] if target["spot"] else []
    line = with_environment(job.command_of_cluster(target["python"]), dict(job.environment))
    setup = f"cd {shlex.quote(target['folder'])} && git fetch --quiet && git checkout --quiet {shlex.quote(job.code)}"
    return {
        "create": create,
        "state": [*tpus, "tpu-vm", "describe", job.name, *place, "--format=value(state)"],
        "run": [*tpus, "tpu-vm", "ssh", job.name, *place, "--worker=all", f"--command={setup} && {line}"],
        "delete": [*tpus, "queued-resources", "delete", job.name, *place, "--force", "--quiet"],
    }


def run(job: Job, target: Mapping[str, Any], poll_seconds: float = _POLL_SECONDS) -> None:
    """Asks for the slice, runs the job on it, and asks again when it has been preempted.

    Raises:
      InputError: no gcloud, or more failures than restarts.
    """
    gcloud = commands(job, target)
    for attempt in range(job.restarts + 1):
        if not _is_ready(_state(gcloud["state"])):
            _call(gcloud["create"])
            _wait(gcloud["state"], poll_seconds)
        status = _stream(gcloud["run"])
        if status == 0:
            return
        if status == 2:  # bad input: another attempt would end alike
            raise InputError(f"--target=tpu_vm: the run on {job.name} was refused; its lines above say why")
        state = _state(gcloud["state"])
        if attempt < job.restarts:
            print(f"launch: {job.name} ended ({state}); restart {attempt + 1} of {job.restarts}", file=sys.stderr)
            if state in _GONE:
                _call(gcloud["delete"])
    raise InputError(
        f"--target=tpu_vm: {job.name} failed and {job.restarts} restarts are used up; mend it and launch again"
    )


def _is_ready(state: str) -> bool:
    return state == "READY"


def _state(command: Sequence[str]) -> str:
    """The state of the slice; empty where there is none."""
    return _run(command).stdout.strip()


def _wait(command: Sequence[str], poll_seconds: float) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not _is_ready(state := _state(command)):
        if time.monotonic() > deadline:
            raise InputError(f"--target=tpu_vm: no slice came within a day (last state {state!r}); try another zone")
        time.sleep(poll_seconds)


def _call(command: Sequence[str]) -> None:
    ran = _run(command)
    if ran.returncode:
        raise InputError(f"--target=tpu_vm: {shlex.join(command[:5])} … fails: {ran.stderr.strip().splitlines()[-1]}")


def _stream(command: Sequence[str]) -> int:
    return subprocess.run(command, check=False).returncode


def _run(command: Sequence[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError("--target=tpu_vm: there is no gcloud here; install the Google Cloud CLI and log in") from error
