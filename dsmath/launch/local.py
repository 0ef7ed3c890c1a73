"""Processes of this machine, or of a list of hosts that ssh reaches."""

import pathlib
import shlex
import socket
import sys
from collections.abc import Sequence

from dsmath.launch.job import FOLDER, Job, join, pid_file, take_place, with_environment
from dsmath.launch.together import Member


def local_members(job: Job) -> list[Member]:
    """The processes of one attempt on this machine, with a free port for the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        Member(
            f"process {index}",
            ["env", *_variables(job), *job.command(sys.executable, *_flags(job, coordinator, index))],
            job.logs / f"process-{index}.log",
        )
        for index in range(job.processes)
    ]


def ssh_members(job: Job, hosts: Sequence[str], folder: str, python: str, port: int) -> list[Member]:
    """The processes of one attempt, one a host.

    Args:
      job: what they do.
      hosts: as ssh takes them; the first runs process 0, and the others reach it by its name.
      folder: where they run, on every host.
      python: the interpreter there.
      port: of process 0.
    """
    coordinator = f"{hosts[0].rpartition('@')[2]}:{port}"
    members = []
    for index, host in enumerate(hosts):
        line = with_environment(job.command(python, *_flags(job, coordinator, index)), dict(job.environment))
        label = f"{job.name}-{index}"
        # -tt: a terminal, whose end takes the process along when this one goes
        remote = f"cd {shlex.quote(folder)} && {take_place(job, label)} && exec {line}"
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15"]
        members.append(
            Member(
                f"process {index} on {host}",
                [*ssh, "-tt", host, remote],
                job.logs / f"process-{index}.log",
                end=[*ssh, host, f"kill -TERM $(cat {pid_file(label)})"],  # ending ssh would kill it unsaved
            )
        )
    return members


def _variables(job: Job) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(job.environment.items())]


def _flags(job: Job, coordinator: str, index: int) -> list[str]:
    """None for a run of one process: a stage that knows no others takes none."""
    return join(coordinator, job.processes, index) if job.processes > 1 else []


def code_folder(workdir: str) -> pathlib.Path:
    """Where a job that runs on a file system of ours keeps its code."""
    return pathlib.Path(workdir) / FOLDER / "code"
