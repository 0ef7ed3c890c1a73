"""A batch script for Slurm, and its submission."""

import pathlib
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from simple_slurm import Slurm

from dsmath.launch.job import Job, with_environment
from dsmath.runs.errors import InputError

SCRIPT = "job.sbatch"
_SAVE_SECONDS = 120  # before its end that a job hears of it


def write_script(job: Job, target: Mapping[str, Any]) -> str:
    """The batch script of a job: one task a process, on a file system that the nodes share.

    Slurm puts a preempted job into its queue again; where the job fails by itself the script starts it again, unless
    the input is bad or people are waited for.

    Args:
      job: what the tasks do.
      target: the fields of `configs/launch.py:slurm`.
    Raises:
      InputError: GPUs that cannot be shared out.
    """
    variables = {**job.environment, **_share_gpus(target["gpus_per_node"], target["tasks_per_node"])}
    chosen = {name: target[name] for name in ("partition", "account", "qos", "constraint", "reservation")}
    chosen = {name: value for name, value in chosen.items() if value}
    if target["gpus_per_node"]:
        chosen["gpus_per_node"] = target["gpus_per_node"]
    script = Slurm(
        job_name=job.name,
        nodes=target["nodes"],
        ntasks_per_node=job.processes // target["nodes"],
        cpus_per_task=target["cpus_per_task"],
        time=target["time"],
        output=str(job.logs.absolute() / "slurm.log"),
        open_mode="append",
        signal=f"TERM@{_SAVE_SECONDS}",
        requeue="",
        **chosen,
    )
    line = with_environment(job.command_of_cluster(target["python"]), variables)
    log = shlex.quote(str(job.logs.absolute() / "process-%t.log"))
    step = f"srun --cpus-per-task={target['cpus_per_task']} --kill-on-bad-exit=1 --open-mode=append --output={log}"
    script.set_shell("/bin/bash")
    for command in [
        f"cd {shlex.quote(str(pathlib.Path.cwd()))}",  # relative paths mean what they mean here
        f"for attempt in $(seq 0 {job.restarts}); do",
        f"  {step} {line}",
        "  status=$?",
        f"  [ -f {shlex.quote(str(pathlib.Path(job.workdir).absolute() / 'result.json'))} ] && exit 0",
        # 0: saved, since the job's time is over or it is preempted; 2: bad input; 3: waits for people
        f"  if [ $status = 0 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {job.restarts} ]; then",
        "    exec scontrol requeue $SLURM_JOB_ID",
        "  fi",
        "  case $status in 0|2|3) exit $status;; esac",
        '  echo "ended with status $status; attempt $attempt"',
        "done",
        "exit $status",
    ]:
        script.add_cmd(command)
    return script.script(convert=False)


def _share_gpus(gpus: int, tasks: int) -> dict[str, str]:
    """Variables that give the tasks of a node its GPUs; in a Slurm job JAX takes one for each task, unless told."""
    if tasks == 1 and gpus > 1:
        return {"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(gpus)))}
    if gpus not in (0, tasks):
        raise InputError(f"--target.tasks_per_node: {tasks} cannot share {gpus} GPUs; name 1 or {gpus}")
    return {}


def submit(script: pathlib.Path) -> str:
    """Submits a batch script.

    Returns:
      the job's number.
    Raises:
      InputError: there is no Slurm, or it refuses the job.
    """
    try:
        ran = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError("--target=slurm: there is no sbatch here; run this on a login node of the cluster") from error
    if ran.returncode:
        raise InputError(f"--target=slurm: sbatch refuses {script}: {ran.stderr.strip().splitlines()[-1]}")
    return ran.stdout.strip().partition(";")[0]


def is_queued(number: str) -> bool:
    """Whether Slurm still knows the job as waiting or running; a controller that does not answer says nothing of it."""
    asked = subprocess.run(["squeue", "-h", "-j", number], capture_output=True, text=True, check=False)
    if asked.returncode:
        return "invalid job id" not in asked.stderr.lower()
    return bool(asked.stdout.strip())
