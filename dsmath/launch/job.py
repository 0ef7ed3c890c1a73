"""A stage as a job: its command line and the code that it runs, fixed when it is launched."""

import dataclasses
import hashlib
import os
import pathlib
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_atomically, write_json

RESTART_STATUS = 75  # of a run that has saved and stopped, where the cluster starts again what has failed
ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = "launch"  # of a workdir: the job, its code, its logs
_VERSION = "version.txt"  # beside the copy of the code
_NAME = re.compile(r"[^a-z0-9-]+")


@dataclasses.dataclass(frozen=True)
class Job:
    """What every process of a run does.

    Attributes:
      stage: of `experiments`.
      config: as --config takes it.
      overrides: "--config.field=value", as they were given.
      workdir: of the run; all processes see it.
      processes: how many make the run.
      restarts: how often it may be started again after a failure or a preemption.
      environment: variables of every process.
      code: the version of the code, as git describes it.
    """

    stage: str
    config: str
    overrides: tuple[str, ...]
    workdir: str
    processes: int
    restarts: int
    environment: Mapping[str, str]
    code: str

    @property
    def name(self) -> str:
        """A label that clusters accept; that of another workdir is another one."""
        label = _NAME.sub("-", f"{self.stage}-{pathlib.Path(self.workdir).name}".lower()).strip("-")[:33].strip("-")
        return f"{label}-{hashlib.sha256(self.workdir.encode()).hexdigest()[:6]}"

    @property
    def logs(self) -> pathlib.Path:
        """The folder of the job's logs."""
        return pathlib.Path(self.workdir) / FOLDER

    def command(self, python: str, *flags: str) -> list[str]:
        """The command line of one process.

        Args:
          python: the interpreter.
          flags: that join it to the others, see `join`.
        """
        stage = f"experiments.{self.stage}"
        return [python, "-m", stage, f"--config={self.config}", f"--workdir={self.workdir}", *self.overrides, *flags]

    def command_of_cluster(self, python: str) -> list[str]:
        """The command line of a process that finds the others by what the cluster tells it."""
        return self.command(python, *(["--distributed"] if self.processes > 1 else []))  # a stage alone takes no flag

    def with_code(self, folder: pathlib.Path) -> "Job":
        """The job that runs a copy of the code; its paths still begin where it was launched.

        Args:
          folder: the copy, see `copy_code`.
        """
        path, colon, preset = self.config.partition(":")
        if pathlib.Path(path).absolute().is_relative_to(ROOT):
            path = str(folder / pathlib.Path(path).absolute().relative_to(ROOT))
        environment = dict(self.environment)
        others = environment.get("PYTHONPATH") or os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), others] if others else [str(folder)])
        environment["PYTHONSAFEPATH"] = "1"  # else Python would look into the current folder first, a checkout mostly
        return dataclasses.replace(self, config=f"{path}{colon}{preset}", environment=environment)

    def record(self, target: Mapping[str, Any]) -> None:
        """Writes `launch/job.json`, which tells what was launched where."""
        write_json(self.logs / "job.json", {**dataclasses.asdict(self), "name": self.name, "target": dict(target)})


def join(coordinator: str, processes: int, process: int | str) -> list[str]:
    """The flags that join a process to a run."""
    return [f"--coordinator={coordinator}", f"--num_processes={processes}", f"--process_id={process}"]


def with_environment(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """A shell line that sets variables and becomes the command."""
    variables = [f"{name}={value}" for name, value in sorted(environment.items())]
    return shlex.join(["env", *variables, *command] if variables else list(command))


def take_place(job: Job, label: str) -> str:
    """Shell text for a host: ends what an earlier attempt has left running there, and notes the shell's number.

    Args:
      job: what runs there.
      label: of the process, among those of the host.
    """
    file = pid_file(label)
    old = f"old=$(cat {file} 2>/dev/null) && grep -qs {job.stage} /proc/$old/cmdline && kill -KILL $old && sleep 1"
    return f"{{ {old}; echo $$ > {file}; }}"


def pid_file(label: str) -> str:
    """Where `take_place` notes the number of a process."""
    return f"/tmp/{label}.pid"


def find_repository() -> str:
    """The address that this checkout was cloned from.

    Raises:
      InputError: none is known.
    """
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        raise InputError("--target.repository: is empty, and this checkout has no origin; name what hosts can clone")
    return found


def describe_code(copied: pathlib.Path | None = None) -> str:
    """The version of the code, "-dirty" where files have been changed or added since.

    Args:
      copied: where the job's copy is, or will be; the copy's version is told where there is one.
    """
    version = copied.with_name(_VERSION) if copied else None
    if version and copied.exists() and version.exists():
        return version.read_text(encoding="utf-8").strip()
    git = ["git", "-C", str(ROOT)]
    described = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    if described.returncode:
        return "unknown"
    return f"{described.stdout.strip()}{'-dirty' if changed.stdout else ''}"


def copy_code(folder: pathlib.Path) -> pathlib.Path:
    """Copies the code as it stands, changes included: an edit must not reach a run that restarts.

    Args:
      folder: is made; a job that is launched again keeps the copy that it has.
    Returns:
      the folder.
    Raises:
      InputError: the code is not in a git checkout.
    """
    if folder.exists():
        return folder
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, capture_output=True, check=False)
    if files.returncode:
        raise InputError(f"{ROOT}: is no git checkout, so what a job needs cannot be told; clone the project with git")
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    pack = ["tar", "--create", "--ignore-failed-read", "--no-recursion", "--null", "--files-from=-"]
    packed = subprocess.run(pack, input=files.stdout, capture_output=True, check=True, cwd=ROOT)
    subprocess.run(["tar", "--extract", "-C", str(partial)], input=packed.stdout, check=True)
    write_atomically(folder.with_name(_VERSION), f"{describe_code()}\n")
    partial.rename(folder)
    return folder
