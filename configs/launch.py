"""Where a run is launched; the presets are the targets.

    python -m experiments.launch --config=configs/pretrain.py:7b --workdir=/runs/pretrain --target=gke \\
        --target.accelerator=v5p-128 --target.image=REGISTRY/dsmath:{code}

Paths are as the hosts see them: docs/guides/launch.md tells what a pod needs on its volume.

A field of the target: --target.processes=4; one of the stage: --config.num_steps=100.
"""

import ml_collections

TARGETS = ("local", "slurm", "gke", "tpu_vm", "ray", "ssh")


def get_config(preset: str = "local") -> ml_collections.ConfigDict:
    """Presets: local, slurm, gke, tpu_vm, ray, ssh."""
    if preset not in TARGETS:
        raise ValueError(f"configs/launch.py: target {preset!r} is none of {', '.join(TARGETS)}")
    c = ml_collections.ConfigDict()
    c.name = preset  # of the target
    c.restarts = 3  # after a failure or a preemption
    c.environment = ml_collections.ConfigDict()  # variables of every process, such as {'XLA_FLAGS': '…'}
    c.device = ""  # that experiments.plan must find room on, such as h100; "": the accelerator's, else none is asked
    c.devices_per_process = 0  # of the plan; 0: the accelerator's
    if preset == "local":
        c.processes = 2  # on this machine
    if preset in ("slurm", "gke", "tpu_vm", "ray", "ssh"):
        c.python = ".venv/bin/python" if preset == "tpu_vm" else "python"  # the interpreter there
    if preset == "slurm":
        c.nodes = 1  # machines
        c.tasks_per_node = 1  # processes of a machine: one for all of its GPUs, or one for each
        c.gpus_per_node = 0  # of a machine
        c.cpus_per_task = 1  # of a process
        c.time = "24:00:00"  # after which Slurm ends the job, which has saved by then
        c.partition = ""  # of the cluster; "": its default, as below
        c.account = ""  # that pays
        c.qos = ""  # quality of service
        c.constraint = ""  # features of the nodes
        c.reservation = ""  # of nodes
    if preset == "gke":
        c.accelerator = "v5p-128"  # a TPU type, or GPUs such as 8xh100
        c.slices = 1  # of it
        c.image = "dsmath:{code}"  # from docker/Dockerfile; {code}: the version that is launched
        c.volume_claim = "dsmath"  # a persistent volume that all pods may write, for the workdirs
        c.mount = "/runs"  # where the pods see it
        c.namespace = "default"  # of the cluster
        c.queue = ""  # of Kueue; "": none
        c.service_account = ""  # of Kubernetes that may read and write the workdir
        c.spot = False  # True: nodes that may be taken away
    if preset == "tpu_vm":
        c.accelerator = "v5p-128"  # a TPU type
        c.project = ""  # of Google Cloud; "": gcloud's own, as below
        c.zone = ""  # of Google Cloud
        c.runtime = ""  # software of the VM; "": the accelerator's
        c.folder = "dsmath"  # checkout of the project on the hosts
        c.repository = ""  # that a new host clones it from; "": where this one is from
        # Shell line in the checkout before the run, on every host and attempt; it may mount the workdir too.
        c.setup = (
            "python3 -m pip install --quiet uv && python3 -m uv venv --quiet --allow-existing --python=3.12 .venv && "
            "python3 -m uv pip install --quiet --python=.venv/bin/python --editable '.[tpu]'"
        )
        c.spot = False  # True: a slice that may be taken away
    if preset == "ray":
        c.address = "auto"  # of the cluster, such as ray://HOST:10001; "": a new one on this machine
        c.processes = 2  # workers
        c.cpus = 1  # of a worker
        c.gpus = 0  # of a worker
        c.tpus = 0  # chips of a worker
        c.wait_seconds = 600.0  # for room on the cluster
    if preset == "ssh":
        c.hosts = ""  # with commas between, as ssh takes them; the first runs process 0
        c.folder = ""  # of the code, on every host; "": the copy in the workdir, which all see
        c.port = 8476  # of process 0
    return c
