"""A JobSet for Kubernetes (GKE): a pod a host, restarted whole when one is lost."""

import dataclasses
import math
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

import yaml

from dsmath.launch.job import Job, join
from dsmath.runs.errors import InputError

MANIFEST = "jobset.yaml"
_PORT = 8476
_WORKERS = "workers"
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
        if total * cores != int(number) or total % chips:
            raise InputError(f"--target.accelerator={name}: a host has {chips} chips; name a multiple")
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
    """
    from kubeflow_trainer_api import models as k8s  # hundreds of classes, two seconds

    accelerator = find_accelerator(target["accelerator"])
    slices = job.processes // accelerator.hosts
    is_tpu = accelerator.resource == "google.com/tpu"
    if is_tpu:  # the TPU's own environment names the others
        command = job.command_of_cluster(target["python"])
    elif job.processes == 1:
        command = job.command(target["python"])
    else:
        first = f"{job.name}-{_WORKERS}-0-0.{job.name}:{_PORT}"
        command = job.command(target["python"], *join(first, job.processes, "$(PROCESS)"))
    field = k8s.IoK8sApiCoreV1ObjectFieldSelector(field_path=f"metadata.annotations['{_INDEX}']")
    environment = [k8s.IoK8sApiCoreV1EnvVar(name=name, value=value) for name, value in sorted(job.environment.items())]
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
        volume_mounts=[k8s.IoK8sApiCoreV1VolumeMount(name="runs", mount_path=target["mount"])],
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
        volumes=[k8s.IoK8sApiCoreV1Volume(name="runs", persistent_volume_claim=claim)],
        tolerations=[k8s.IoK8sApiCoreV1Toleration(key=accelerator.resource, operator="Exists", effect="NoSchedule")],
    )
    template = k8s.IoK8sApiBatchV1JobTemplateSpec(
        spec=k8s.IoK8sApiBatchV1JobSpec(
            backoff_limit=0,
            completion_mode="Indexed",
            completions=accelerator.hosts,
            parallelism=accelerator.hosts,
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
            failure_policy=k8s.JobsetV1alpha2FailurePolicy(max_restarts=job.restarts),
            replicated_jobs=[k8s.JobsetV1alpha2ReplicatedJob(name=_WORKERS, replicas=slices, template=template)],
        ),
    )
    return yaml.safe_dump(manifest.to_dict(), sort_keys=False)


def submit(manifest: pathlib.Path) -> None:
    """Gives a manifest to the cluster of the current context.

    Raises:
      InputError: there is no kubectl, or the cluster refuses it.
    """
    try:
        ran = subprocess.run(["kubectl", "apply", "-f", str(manifest)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError("--target=gke: there is no kubectl here; install it and log in to the cluster") from error
    if ran.returncode:
        raise InputError(f"--target=gke: kubectl refuses {manifest}: {ran.stderr.strip().splitlines()[-1]}")


def follow_command(job: Job, namespace: str) -> list[str]:
    """What streams the log of process 0."""
    labels = f"jobset.sigs.k8s.io/jobset-name={job.name},{_INDEX}=0"
    return ["kubectl", "logs", f"--namespace={namespace}", f"--selector={labels}", "--follow", "--tail=-1"]


def _topology(kind: str, chips: int) -> str:
    """The shape of a slice, as near to a square or a cube as powers of two allow: the chip's network decides which."""
    if kind in ("v5e", "v6e"):
        rows = 2 ** (int(math.log2(chips)) // 2)
        return f"{rows}x{chips // rows}"
    power = int(math.log2(chips))
    sides = sorted(2 ** (power // 3 + (1 if index < power % 3 else 0)) for index in range(3))
    return "x".join(map(str, sides))
