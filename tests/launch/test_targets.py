"""What is submitted where: manifests by their schema, scripts by a shell, clients by scripted ones."""

import dataclasses
import os
import pathlib
import subprocess

import pytest
import yaml
from kubeflow_trainer_api import models as k8s

from configs import launch
from dsmath.launch import jobset, local, slurm, tpu_vm
from dsmath.launch.job import Job, copy_code, describe_code, pid_file
from dsmath.launch.together import run_together
from dsmath.runs.errors import InputError


def _job(tmp_path: pathlib.Path, processes: int = 2) -> Job:
    overrides = ("--config.seed=1", "--config.corpora={'a b': 'it''s'}")
    variables = {"XLA_FLAGS": "--a=1 --b=2"}
    return Job("pretrain", "configs/pretrain.py:7b", overrides, str(tmp_path), processes, 3, variables, "abc1234")


def _gke(tmp_path: pathlib.Path, accelerator: str) -> dict:
    return launch.get_config("gke").to_dict() | {"accelerator": accelerator, "mount": str(tmp_path)}


@pytest.mark.parametrize(
    ("accelerator", "hosts", "resource", "labels"),
    [
        ("v5p-128", 16, {"google.com/tpu": "4"}, {"tpu-v5p-slice", "4x4x4"}),
        ("v5p-8", 1, {"google.com/tpu": "4"}, {"tpu-v5p-slice", "2x2x1"}),
        ("v5p-256", 32, {"google.com/tpu": "4"}, {"tpu-v5p-slice", "4x4x8"}),
        ("v5e-256", 64, {"google.com/tpu": "4"}, {"tpu-v5-lite-podslice", "16x16"}),
        ("v6e-32", 8, {"google.com/tpu": "4"}, {"tpu-v6e-slice", "4x8"}),
        ("8xh100", 1, {"nvidia.com/gpu": "8"}, {"nvidia-h100-80gb"}),
        ("64xh200", 8, {"nvidia.com/gpu": "8"}, {"nvidia-h200-141gb"}),
    ],
)
def test_a_manifest_is_a_jobset_by_its_schema(tmp_path, accelerator, hosts, resource, labels):
    target = _gke(tmp_path, accelerator) | {"queue": "team", "spot": True}
    manifest = yaml.safe_load(jobset.render(_job(tmp_path, hosts), target))
    # The schema's own classes read it; a field that they do not know would be missing from what they write.
    assert k8s.JobsetV1alpha2JobSet.from_dict(manifest).to_dict() == manifest
    (workers,) = manifest["spec"]["replicatedJobs"]
    inner = workers["template"]["spec"]
    assert (inner["completions"], inner["parallelism"], workers["replicas"]) == (hosts, hosts, 1)
    pod = inner["template"]["spec"]
    assert labels <= set(pod["nodeSelector"].values()) and pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == resource
    assert container["image"] == "dsmath:abc1234"
    assert "--config.seed=1" in container["command"]
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    # Bad input and a run that waits for people are not started again.
    assert inner["podFailurePolicy"]["rules"][0]["onExitCodes"] == {"operator": "In", "values": [2, 3]}
    assert policy["rules"][0]["action"] == "FailJobSet"
    assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    # A pod that saves and ends with 0 would count as done.
    assert {"name": "DSMATH_SAVED_STATUS", "value": "75"} in container["env"]
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}


def test_gpus_name_their_first_host(tmp_path):
    target = _gke(tmp_path, "8xh100") | {"slices": 2}  # as 16xh100: every process has its own number
    manifest = yaml.safe_load(jobset.render(_job(tmp_path, 2), target))
    assert manifest == yaml.safe_load(jobset.render(_job(tmp_path, 2), _gke(tmp_path, "16xh100")))
    (workers,) = manifest["spec"]["replicatedJobs"]
    assert (workers["replicas"], workers["template"]["spec"]["completions"]) == (1, 2)
    (container,) = workers["template"]["spec"]["template"]["spec"]["containers"]
    name = manifest["metadata"]["name"]
    assert f"--coordinator={name}-workers-0-0.{name}:8476" in container["command"]
    assert "--process_id=$(PROCESS)" in container["command"]


def test_slices_of_tpus_are_jobs_of_their_own(tmp_path):
    manifest = yaml.safe_load(jobset.render(_job(tmp_path, 4), _gke(tmp_path, "v5p-16") | {"slices": 2}))
    (workers,) = manifest["spec"]["replicatedJobs"]
    assert (workers["replicas"], workers["template"]["spec"]["completions"]) == (2, 2)


@pytest.mark.parametrize("workdir", ["runs/pretrain", "/tmp/pretrain", "/runs/../tmp", "/runs2/pretrain"])
def test_a_workdir_that_would_end_with_its_pod_is_refused(workdir):
    job = Job("pretrain", "configs/pretrain.py:7b", (), workdir, 16, 3, {}, "abc1234")
    with pytest.raises(InputError, match=rf"--workdir={workdir}: is not on the pods' volume; .* below /runs"):
        jobset.render(job, launch.get_config("gke").to_dict())


def test_jobs_of_two_workdirs_have_two_names():
    names = {Job("pretrain", "c.py", (), workdir, 1, 3, {}, "").name for workdir in ("/a/x", "/b/x", "/a/" + 90 * "x")}
    assert len(names) == 3 and all(len(name) <= 40 for name in names)


def test_a_jobset_is_followed_to_its_end_and_may_be_launched_again(tmp_path, monkeypatch, capfd):
    """kubectl is scripted: the pod comes late, its JobSet restarts once, and then is completed."""
    text = """
    echo "$*" >> calls
    count=$(cat count 2>/dev/null || echo 0)
    case "$1" in
      create) echo 0 > count; touch there ;;
      delete) rm there count ;;
      get) [ -f there ] && printf "name "; [ -f there ] && [ $count -ge 3 ] && printf "Completed"; true ;;
      logs) echo $((count + 1)) > count; [ $count = 0 ] && exit 1; echo "attempt $count" ;;
    esac
    """
    _scripted(tmp_path, "kubectl", text, monkeypatch)
    job = _job(tmp_path, 16)
    for _ in range(2):
        jobset.submit(job, "team", tmp_path / "jobset.yaml")
        jobset.follow(job, "team", poll_seconds=0.01)
        assert capfd.readouterr().out.split("\n")[:2] == ["attempt 1", "attempt 2"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls if not call.startswith(("get", "logs"))] == ["create", "delete", "create"]


def test_a_jobset_that_failed_is_told(tmp_path, monkeypatch):
    _scripted(tmp_path, "kubectl", '[ "$1" = get ] && printf "name Failed"; true', monkeypatch)
    with pytest.raises(InputError, match=r"has failed; .*the same line resumes it"):
        jobset.follow(_job(tmp_path, 16), "team", poll_seconds=0.01)


@pytest.mark.parametrize("accelerator", ["v5p-24", "v5p-4", "v5p-127", "v9-8", "h100", "4xh100", "8xb200", ""])
def test_an_unknown_accelerator_is_told(accelerator):
    with pytest.raises(InputError, match=r"--target\.accelerator"):
        jobset.find_accelerator(accelerator)


def test_a_batch_script_runs_one_task_a_process_and_starts_again(tmp_path, monkeypatch):
    """A shell runs the script with an srun that fails once."""
    target = launch.get_config("slurm").to_dict() | {
        "nodes": 2,
        "tasks_per_node": 4,
        "gpus_per_node": 4,
        "account": "a",
    }
    workdir, code = tmp_path / "my run", tmp_path / "code"
    (workdir / "launch").mkdir(parents=True)
    code.mkdir()
    monkeypatch.chdir(code)
    script = slurm.write_script(_job(workdir, 8), target)
    for line in (
        "--nodes               2",
        "--ntasks-per-node     4",
        "--gpus-per-node       4",
        "--account             a",
    ):
        assert f"#SBATCH {line}" in script
    assert "--partition" not in script
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text(
        '#!/bin/sh\necho "$@" >> calls\n[ $(wc -l < calls) = 2 ] && touch "$RESULT" && exit 0\nexit 9\n'
    )
    (tools / "srun").chmod(0o755)
    (tmp_path / "job.sbatch").write_text(script)
    variables = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "RESULT": str(workdir / "result.json")}
    ran = subprocess.run(["bash", tmp_path / "job.sbatch"], env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "ended with status 9; attempt 0" in ran.stdout
    first, second = (code / "calls").read_text().splitlines()
    assert first == second and "env XLA_FLAGS=--a=1 --b=2 python -m experiments.pretrain" in first
    assert first.endswith("--config.corpora={'a b': 'it''s'} --distributed")


def test_a_stage_that_is_one_process_is_given_no_flag_of_many(tmp_path):
    one = Job("evaluate", "configs/evaluate.py:7b", (), f"{tmp_path}", 1, 3, {}, "abc1234")
    scripts = [
        slurm.write_script(one, launch.get_config("slurm").to_dict()),
        jobset.render(one, _gke(tmp_path, "8xh100")),
        jobset.render(one, _gke(tmp_path, "v5p-8")),
        str(tpu_vm.commands(one, _tpu_vm(accelerator="v5p-8"))),
    ]
    assert all("evaluate" in script for script in scripts)
    assert not any("--distributed" in script or "--coordinator" in script for script in scripts)


@pytest.mark.parametrize(
    ("gpus", "tasks", "told"), [(8, 1, "0,1,2,3,4,5,6,7"), (8, 8, None), (0, 4, None), (1, 1, None)]
)
def test_slurm_tasks_use_all_gpus_of_their_node(tmp_path, gpus, tasks, told):
    """In a Slurm job JAX gives a task the GPU of its number, and no other one."""
    target = launch.get_config("slurm").to_dict() | {"gpus_per_node": gpus, "tasks_per_node": tasks}
    script = slurm.write_script(_job(tmp_path, tasks), target)
    assert (f"JAX_LOCAL_DEVICE_IDS={told} " in script) if told else "JAX_LOCAL_DEVICE_IDS" not in script
    with pytest.raises(InputError, match=r"--target\.tasks_per_node: 3 cannot share 8 GPUs; name 1 or 8"):
        slurm.write_script(_job(tmp_path, 3), target | {"gpus_per_node": 8, "tasks_per_node": 3})


def _scripted(tmp_path: pathlib.Path, name: str, text: str, monkeypatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}")
    (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("text", "queued"),
    [
        ("echo 7 RUNNING", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("", False),
    ],
)
def test_a_controller_that_does_not_answer_does_not_end_a_job(tmp_path, monkeypatch, text, queued):
    _scripted(tmp_path, "squeue", text, monkeypatch)
    assert slurm.is_queued("7") == queued


def _tpu_vm(**fields) -> dict:
    return launch.get_config("tpu_vm").to_dict() | {"project": "p", "zone": "z", "repository": "git@host:r"} | fields


_GCLOUD = """
echo "$3 $4 $5" >> calls
case "$*" in
  *" create "*) [ -f asked ] && echo ALREADY_EXISTS >&2 && exit 1; echo ACTIVE > asked; echo READY > state ;;
  *" delete "*) rm asked state ;;
  *queued-resources\\ describe*) cat asked 2>/dev/null || { echo NOT_FOUND >&2; exit 1; } ;;
  *describe*) cat state ;;
  *ssh*) %s ;;
esac
"""


@pytest.mark.parametrize("asked", ["ACTIVE", "SUSPENDED"])  # the queued resource follows its slice a little later
def test_a_preempted_slice_is_asked_for_again(tmp_path, monkeypatch, asked):
    """gcloud is scripted: the first slice is taken away while the run goes on, the second one lasts."""
    taken = f"[ -f once ] && exit 0; touch once; echo PREEMPTED > state; echo {asked} > asked; exit 255"
    _scripted(tmp_path, "gcloud", _GCLOUD % taken, monkeypatch)
    tpu_vm.run(_job(tmp_path, 16), _tpu_vm(), poll_seconds=0.01)
    assert (tmp_path / "calls").read_text().count("create") == 2
    assert (tmp_path / "calls").read_text().count("delete") == 1


def test_a_slice_that_was_asked_for_before_is_waited_for(tmp_path, monkeypatch):
    """The launcher has died meanwhile; the same line goes on."""
    waiting = _GCLOUD.replace(
        "*) cat asked", "*) echo >> asks; [ $(wc -l < asks) -gt 3 ] && echo ACTIVE > asked; cat asked"
    )
    _scripted(tmp_path, "gcloud", waiting % "exit 0", monkeypatch)
    (tmp_path / "asked").write_text("WAITING_FOR_RESOURCES\n")
    (tmp_path / "state").write_text("READY\n")
    tpu_vm.run(_job(tmp_path, 16), _tpu_vm(), poll_seconds=0.01)
    assert "create" not in (tmp_path / "calls").read_text()


def test_a_slice_that_cannot_be_had_is_told(tmp_path, monkeypatch):
    refusing = _GCLOUD.replace("echo ACTIVE > asked", "echo FAILED > asked")
    _scripted(tmp_path, "gcloud", refusing % "exit 0", monkeypatch)
    with pytest.raises(InputError, match=r"is FAILED; gcloud .* describe .* says why"):
        tpu_vm.run(_job(tmp_path, 16), _tpu_vm(), poll_seconds=0.01)


@pytest.mark.parametrize(
    ("accelerator", "kind", "runtime"),
    [("v5p-128", "v5p-128", "v2-alpha-tpuv5"), ("v5e-16", "v5litepod-16", "v2-alpha-tpuv5-lite")],
)
def test_a_slice_is_asked_for_by_cloud_tpus_own_names(tmp_path, accelerator, kind, runtime):
    create = tpu_vm.commands(_job(tmp_path, 16), _tpu_vm(accelerator=accelerator, spot=True))["create"]
    assert {"--spot", f"--accelerator-type={kind}", f"--runtime-version={runtime}"} <= set(create)
    with pytest.raises(InputError, match="name a TPU type"):
        tpu_vm.commands(_job(tmp_path, 1), _tpu_vm(accelerator="8xh100"))


def test_a_bare_host_gets_the_code_that_was_launched_and_ends_what_was_left_there(tmp_path):
    """A shell runs the line of a host twice: the first time nothing is there, the second time its process still is."""
    upstream, host = tmp_path / "upstream", tmp_path / "host"
    host.mkdir()
    git = ["git", "-C", str(upstream), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", upstream], check=True)
    for text in ("old", "new"):
        (upstream / "version").write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
    first = subprocess.run([*git, "rev-parse", "HEAD~1"], capture_output=True, text=True, check=True).stdout.strip()
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$(cat version) $(cat made) $DSMATH_SAVED_STATUS"\nwhile :; do sleep 0.1; done\n'
    )
    python.chmod(0o755)
    job = dataclasses.replace(_job(tmp_path, 16), code=first)
    target = _tpu_vm(repository=str(upstream), python=str(python), setup="echo set > made")
    line = tpu_vm.commands(job, target)["run"][-1].removeprefix("--command=")
    pid = pathlib.Path(pid_file(job.name))
    running = []
    try:
        for _ in range(2):
            running.append(subprocess.Popen(["bash", "-c", line], cwd=host, stdout=subprocess.PIPE, text=True))
            assert running[-1].stdout.readline() == "old set 75\n"
        assert running[0].wait(timeout=20) == -9 and running[1].poll() is None
        assert pid.read_text() == f"{running[1].pid}\n"
    finally:
        for process in running:
            process.kill()
        pid.unlink()


def test_hosts_are_reached_by_ssh_and_joined_by_the_first_ones_name(tmp_path, monkeypatch):
    """ssh is scripted: it runs the line here, as the host would."""
    _scripted(tmp_path, "ssh", 'for last; do :; done\nexec sh -c "$last"\n', monkeypatch)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$XLA_FLAGS" "$@" >> {tmp_path}/ran-$$\ntouch {tmp_path}/result.json\n')
    python.chmod(0o755)
    members = local.ssh_members(_job(tmp_path), ["me@a", "b"], str(tmp_path), str(python), 1234)
    run_together(lambda: members, restarts=0, is_finished=(tmp_path / "result.json").exists)
    lines = sorted(file.read_text() for file in tmp_path.glob("ran-*"))
    assert len(lines) == 2
    for index, line in enumerate(sorted(lines, key=lambda line: line[-2])):
        assert line.startswith("--a=1 --b=2 -m experiments.pretrain --config=configs/pretrain.py:7b")
        assert line.endswith(f"--coordinator=a:1234 --num_processes=2 --process_id={index}\n")


def test_a_process_on_another_host_is_asked_to_save(tmp_path, monkeypatch):
    """ssh is scripted; as the real one it would end, and not pass on, what asks it to end."""
    _scripted(tmp_path, "ssh", 'for last; do :; done\nexec sh -c "$last"\n', monkeypatch)
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/saved; exit 0' TERM\ntouch {tmp_path}/ready\nwhile :; do sleep 0.1; done\n"
    )
    python.chmod(0o755)
    job = _job(tmp_path, 1)
    (member,) = local.ssh_members(job, ["a"], str(tmp_path), str(python), 1234)
    running = subprocess.Popen(member.command)
    try:
        while not (tmp_path / "ready").exists():
            assert running.poll() is None
        assert "-tt" in member.command and "-tt" not in member.end
        assert subprocess.run(member.end, check=False).returncode == 0
        assert running.wait(timeout=20) == 0 and (tmp_path / "saved").exists()
    finally:
        running.kill()
        pathlib.Path(pid_file(f"{job.name}-0")).unlink()


def test_the_code_is_copied_with_what_has_changed_and_once(tmp_path):
    code = copy_code(tmp_path / "code")
    assert (code / "experiments" / "launch.py").read_text() == pathlib.Path("experiments/launch.py").read_text()
    assert not (code / ".git").exists() and not (code / "runs").exists()
    (code / "mine").touch()
    (tmp_path / "version.txt").write_text("1234567\n")
    assert (copy_code(code) / "mine").exists()
    assert describe_code(code) == "1234567"  # a job that is launched again is told as what it is
    assert describe_code(tmp_path / "other") == describe_code() != "1234567"
