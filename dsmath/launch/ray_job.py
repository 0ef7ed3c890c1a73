"""A job on a Ray cluster: one worker for each process, on its own node where there are enough."""

import os
import pathlib
import socket
from collections.abc import Mapping
from typing import Any

from dsmath.launch.job import Job, join
from dsmath.runs import commands
from dsmath.runs.errors import InputError, Paused
from dsmath.runs.workdir import RESULT


def run(job: Job, target: Mapping[str, Any]) -> None:
    """Runs the job until its processes have ended; starts all again when one is lost.

    Args:
      job: what the workers do.
      target: the fields of `configs/launch.py:ray`.
    Raises:
      InputError: no Ray or no such cluster, bad input, or more failures than restarts.
      Paused: the run waits for people.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would call a server
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that is started here: training is no side job
    try:
        import ray
        from ray.util.placement_group import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
    except ImportError as error:
        raise InputError("--target=ray: Ray is not installed here; pip install 'dsmath[ray]'") from error
    try:
        ray.init(
            address=target["address"] or "local",
            log_to_driver=True,
            include_dashboard=False if not target["address"] else None,
            runtime_env={"env_vars": {"PYTHONPATH": job.environment["PYTHONPATH"]}},  # workers import this file
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--target.address={target['address']}: no Ray cluster answers there ({error})") from error

    bundle = {"CPU": target["cpus"], **({"GPU": target["gpus"]} if target["gpus"] else {})}
    bundle |= {"TPU": target["tpus"]} if target["tpus"] else {}
    group = placement_group([bundle] * job.processes, strategy="SPREAD")
    options = {"num_cpus": target["cpus"], "num_gpus": target["gpus"], "max_retries": 0}
    options |= {"resources": {"TPU": target["tpus"]}} if target["tpus"] else {}
    try:
        try:
            ray.get(group.ready(), timeout=target["wait_seconds"])
        except ray.exceptions.GetTimeoutError as error:
            raise InputError(
                f"--target: the cluster has no room for {job.processes} workers with {bundle} each"
            ) from error

        def worker(function: Any, index: int) -> Any:
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            return ray.remote(function).options(**options, scheduling_strategy=strategy)

        for attempt in range(job.restarts + 1):
            waiting = []
            try:
                coordinator = ray.get(worker(find_address, 0).remote())
                for index in range(job.processes):
                    command = _command(job, target, coordinator, index)
                    waiting.append(worker(run_process, index).remote(command, dict(job.environment), os.getcwd()))
                status = _first_failure(ray, waiting)
            except ray.exceptions.RayError:  # the first node is gone
                status = 1
            if status == 0 and (pathlib.Path(job.workdir) / RESULT).exists():
                return  # else it has saved, since its node is taken away
            if status == 3:
                raise Paused("the run waits for people; its lines above say for what")
            if status == 2:
                raise InputError("--target=ray: the run was refused; its lines above say why")
            print(f"launch: a worker ended with status {status}; attempt {attempt + 1} of {job.restarts + 1}")
        raise InputError(
            f"--target=ray: the run failed and {job.restarts} restarts are used up; mend it and launch again"
        )
    finally:
        remove_placement_group(group)
        ray.shutdown()


def find_address() -> str:
    """HOST:PORT of this node with a free port, for process 0."""
    import ray

    with socket.socket() as free:
        free.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"


def run_process(command: list[str], environment: dict[str, str], folder: str) -> int:
    """Runs one process of the job in a worker, and dies with it; its output becomes the worker's."""
    return commands.start(command, cwd=folder, env={**os.environ, **environment}).wait()


def _command(job: Job, target: Mapping[str, Any], coordinator: str, index: int) -> list[str]:
    flags = join(coordinator, job.processes, index) if job.processes > 1 else []
    return job.command(target["python"], *flags)


def _first_failure(ray: Any, waiting: list[Any]) -> int:
    """The status of the first worker that fails, and then the end of all; 0 where none does."""
    left = list(waiting)
    while left:
        done, left = ray.wait(left, num_returns=1)
        try:
            status = ray.get(done[0])
        except (ray.exceptions.RayError, OSError):  # its node is gone
            status = 1
        if status:
            for task in left:
                ray.cancel(task, force=True)
            return status
    return 0
