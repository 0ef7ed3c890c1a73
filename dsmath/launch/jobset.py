"""A JobSet for Kubernetes (GKE): a pod a host, restarted whole when one is lost."""

import dataclasses
import datetime
import math
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import yaml

from dsmath.launch.job import RESTART_STATUS, Job, join
from dsmath.runs.errors import SAVED_STATUS, InputError

MANIFEST = "jobset.yaml"
_PORT = 8476
_WORKERS = "workers"
_POLL_SECONDS = 10.0
_SAVE_SECONDS = 300  # between the warning of a preemption and its end
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"  # a slice is one node pool, and one job's alone
_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A node pool's accelerator.

    Attributes:
      selector: labels of its nodes.
      resource: what a pod asks for, and how many of it.
      chips: of a host.
      hosts: of a slice, or of the whole where there are no slices.
      device: its name in `dsmath.plan.devices`.
    """

    selector: Mapping[str, str]
    resource: str
    chips: int
    hosts: int
    device: str


# cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus and .../how-to/gpus, machine types.
_TPUS = {"v4": ("tpu-v4-podslice", 4, 2), "v5p": ("tpu-v5p-slice", 4, 2), "v5e": ("tpu-v5-lite-podslice", 4, 1)}
_TPUS["v6e"] = ("tpu-v6e-slice", 4, 1)  # GKE's label, chips of a host, cores of a chip in the type's name
_GPUS = {"h100": "nvidia-h100-80gb", "h200": "nvidia-h200-141gb", "a100-80": "nvidia-a100-80gb"}


def find_accelerator(name: str) -> Accelerator:
    """The accelerator of a name: a TPU type such as v5p-128 (128 cores, 64 chips), or GPUs such as 8xh100.

    Raises:
      InputError: it is neither.
    """
    kind, _, number = name.rpartition("-")
    if kind in _TPUS and number.isdigit():
        label, chips, cores = _TPUS[kind]
        total = int(number) // cores
        if total * cores != int(number) or total < chips or total & (total - 1):
            raise InputError(f"--target.accelerator={name}: a host has {chips} chips, a slice 1, 2, 4, 8 … hosts")
        selector = {
            "cloud.google.com/gke-tpu-accelerator": label,
            "cloud.google.com/gke-tpu-topology": _topology(kind, total),
        }
        return Accelerator(selector, "google.com/tpu", chips, total // chips, kind)
    count, _, gpu = name.partition("x")
    if gpu in _GPUS and count.isdigit() and int(count) % 8 == 0:
        return Accelerator({"cloud.google.com/gke-accelerator": _GPUS[gpu]}, "nvidia.com/gpu", 8, int(count) // 8, gpu)
    raise InputError(
        f"--target.accelerator={name}: is none known; name a TPU type ({', '.join(_TPUS)}, as v5p-128) or whole hosts "
        f"of GPUs ({', '.join(_GPUS)}, as 8xh100)"
    )


def render(job: Job, target: Mapping[str, Any]) -> str:
    """The manifest of a job.

    Args:
      job: with a process for every host of every slice.
      target: the fields of `configs/launch.py:gke`.
    Raises:
      InputError: the workdir is not on the volume, so that it would end with its pod.
    """
    mount = pathlib.PurePosixPath(target["mount"])
    if ".." in pathlib.PurePosixPath(job.workdir).parts or not pathlib.PurePosixPath(job.workdir).is_relative_to(mount):
        raise InputError(f"--workdir={job.workdir}: is not on the pods' volume; name a folder below {mount}")
    from kubeflow_trainer_api import models as k8s  # hundreds of classes, two seconds

    accelerator = find_accelerator(target["accelerator"])
    is_tpu = accelerator.resource == "google.com/tpu"
    hosts = accelerator.hosts if is_tpu else job.processes  # of one Job: GPUs know no slices
    if is_tpu:  # the TPU's own environment names the others
        command = job.command_of_cluster(target["python"])
    elif job.processes == 1:
        command = job.command(target["python"])
    else:
        first = f"{job.name}-{_WORKERS}-0-0.{job.name}:{_PORT}"
        command = job.command(target["python"], *join(first, job.processes, "$(PROCESS)"))
    variables = {SAVED_STATUS: str(RESTART_STATUS), **job.environment}  # a pod that ends with 0 is never started again
    field = k8s.IoK8sApiCoreV1ObjectFieldSelector(field_path=f"metadata.annotations['{_INDEX}']")
    environment = [k8s.IoK8sApiCoreV1EnvVar(name=name, value=value) for name, value in sorted(variables.items())]
    environment += [
        k8s.IoK8sApiCoreV1EnvVar(name="PROCESS", value_from=k8s.IoK8sApiCoreV1EnvVarSource(field_ref=field)),
    ]
    amount = k8s.IoK8sApimachineryPkgApiResourceQuantity(str(accelerator.chips))
    container = k8s.IoK8sApiCoreV1Container(
        name=job.stage,
        image=target["image"].format(code=job.code),
        command=command,
        env=environment,
        ports=[k8s.IoK8sApiCoreV1ContainerPort(container_port=_PORT)],
        volume_mounts=[
            k8s.IoK8sApiCoreV1VolumeMount(name="runs", mount_path=target["mount"]),
            k8s.IoK8sApiCoreV1VolumeMount(name="shared-memory", mount_path="/dev/shm"),
        ],
        resources=k8s.IoK8sApiCoreV1ResourceRequirements(
            limits={accelerator.resource: amount}, requests={accelerator.resource: amount}
        ),
    )
    claim = k8s.IoK8sApiCoreV1PersistentVolumeClaimVolumeSource(claim_name=target["volume_claim"])
    selector = dict(accelerator.selector)
    if target["spot"]:
        selector["cloud.google.com/gke-spot"] = "true"
    pod = k8s.IoK8sApiCoreV1PodSpec(
        containers=[container],
        host_network=True,
        dns_policy="ClusterFirstWithHostNet",
        node_selector=selector,
        restart_policy="Never",  # the JobSet starts all again, not one alone
        service_account_name=target["service_account"] or None,
        termination_grace_period_seconds=_SAVE_SECONDS,
        volumes=[
            k8s.IoK8sApiCoreV1Volume(name="runs", persistent_volume_claim=claim),
            # NCCL and data workers need more of it than the 64 MiB that a container has
            k8s.IoK8sApiCoreV1Volume(
                name="shared-memory", empty_dir=k8s.IoK8sApiCoreV1EmptyDirVolumeSource(medium="Memory")
            ),
        ],
        tolerations=[k8s.IoK8sApiCoreV1Toleration(key=accelerator.resource, operator="Exists", effect="NoSchedule")],
    )
    hopeless = k8s.IoK8sApiBatchV1PodFailurePolicyOnExitCodesRequirement(
        operator="In",
        values=[2, 3],  # bad input, people who are waited for: another attempt would end alike
    )
    template = k8s.IoK8sApiBatchV1JobTemplateSpec(
        spec=k8s.IoK8sApiBatchV1JobSpec(
            backoff_limit=0,
            completion_mode="Indexed",
            completions=hosts,
            parallelism=hosts,
            pod_failure_policy=k8s.IoK8sApiBatchV1PodFailurePolicy(
                rules=[k8s.IoK8sApiBatchV1PodFailurePolicyRule(action="FailJob", on_exit_codes=hopeless)]
            ),
            template=k8s.IoK8sApiCoreV1PodTemplateSpec(spec=pod),
        )
    )
    labels = {"kueue.x-k8s.io/queue-name": target["queue"]} if target["queue"] else {}
    annotations = {"dsmath/code": job.code, "dsmath/workdir": job.workdir}
    if is_tpu:
        annotations[_EXCLUSIVE] = "cloud.google.com/gke-nodepool"
    manifest = k8s.JobsetV1alpha2JobSet(
        api_version="jobset.x-k8s.io/v1alpha2",
        kind="JobSet",
        metadata=k8s.IoK8sApimachineryPkgApisMetaV1ObjectMeta(
            name=job.name, namespace=target["namespace"], labels=labels or None, annotations=annotations
        ),
        spec=k8s.JobsetV1alpha2JobSetSpec(
            failure_policy=k8s.JobsetV1alpha2FailurePolicy(
                max_restarts=job.restarts,
                rules=[
                    k8s.JobsetV1alpha2FailurePolicyRule(
                        name="hopeless", action="FailJobSet", on_job_failure_reasons=["PodFailurePolicy"]
                    )
                ],
            ),
            replicated_jobs=[
                k8s.JobsetV1alpha2ReplicatedJob(name=_WORKERS, replicas=job.processes // hosts, template=template)
            ],
        ),
    )
    return yaml.safe_dump(manifest.to_dict(), sort_keys=False)


def submit(job: Job, namespace: str, manifest: pathlib.Path) -> None:
    """Gives a manifest to the cluster of the current context; a JobSet of its name that has ended makes room.

    Raises:
      InputError: there is no kubectl, or the cluster refuses it.
    """
    state = _state(job, namespace)
    if state in ("Completed", "Failed"):  # Kubernetes changes no job that is there
        _call("delete", "jobset", job.name, f"--namespace={namespace}", "--wait")
    elif state:
        print(f"launch: {job.name} is there already; kubectl delete jobset {job.name} ends it", file=sys.stderr)
        return
    _call("create", "-f", str(manifest))


def follow(job: Job, namespace: str, poll_seconds: float = _POLL_SECONDS) -> None:
    """Prints what process 0 writes, that of later attempts too, until the JobSet has ended.

    Raises:
      InputError: it has failed, or is gone.
    """
    labels = f"jobset.sigs.k8s.io/jobset-name={job.name},jobset.sigs.k8s.io/job-index=0,{_INDEX}=0"
    logs = ["logs", f"--namespace={namespace}", f"--selector={labels}", "--follow", "--tail=-1"]
    seen: list[str] = []
    while True:
        state = _state(job, namespace)
        ran = subprocess.run(["kubectl", *logs, *seen], stderr=subprocess.DEVNULL, check=False)
        if ran.returncode == 0:  # else there is no such pod yet
            seen = [f"--since-time={datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"]
        if state == "Completed":
            return
        if state in ("Failed", ""):
            raise InputError(
                f"--target=gke: {job.name} {'has failed' if state else 'is gone'}; its log says why, and so does "
                f"kubectl describe jobset {job.name}; the same line resumes it"
            )
        time.sleep(poll_seconds)


def _state(job: Job, namespace: str) -> str:
    """Completed, Failed or Active; empty where there is no such JobSet."""
    path = '{.metadata.name} {.status.conditions[?(@.status=="True")].type}'
    found = _call("get", "jobset", job.name, f"--namespace={namespace}", "--ignore-not-found", f"-o=jsonpath={path}")
    ended = [state for state in ("Completed", "Failed") if state in found.split()[1:]]
    return ended[0] if ended else "Active" if found.strip() else ""


def _call(*words: str) -> str:
    try:
        ran = subprocess.run(["kubectl", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError("--target=gke: there is no kubectl here; install it and log in to the cluster") from error
    if ran.returncode:
        told = ran.stderr.strip().splitlines() or ["no reason"]
        raise InputError(f"--target=gke: kubectl {words[0]} fails: {told[-1]}")
    return ran.stdout


def _topology(kind: str, chips: int) -> str:
    """The shape of a slice, as near to a square or a cube as powers of two allow: the chip's network decides which."""
    if kind in ("v5e", "v6e"):
        rows = 2 ** (int(math.log2(chips)) // 2)
        return f"{rows}x{chips // rows}"
    power = int(math.log2(chips))
    if chips == 4:
        return "2x2x1"
    sides = sorted(2 ** (power // 3 + (1 if index < power % 3 else 0)) for index in range(3))
    return "x".join(map(str, sides))
