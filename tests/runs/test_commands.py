"""Overrides say what differs, and a child dies with the process that started it."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from dsmath.runs.commands import differences, stage_command, start

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_only_what_differs_is_an_override():
    default = {"seed": 0, "model": {"width": 8, "heads": 2}, "corpora": {"mined": "a"}}
    assert differences(default, default) == {}
    chosen = {"seed": 1, "model": {"width": 16, "heads": 2}, "corpora": {"mined": "b"}}
    assert differences(default, chosen) == {"seed": 1, "model.width": 16, "corpora.mined": "b"}


def test_a_mapping_of_other_keys_is_an_override_as_a_whole():
    assert differences({"corpora": {"mined": "a"}}, {"corpora": {"web": "b"}}) == {"corpora": {"web": "b"}}


def test_a_command_names_its_config_its_folder_and_its_overrides():
    command = stage_command("rl", "nano", "runs/rl", {"beta": 0.0, "decoding.top_p": 0.9})
    assert command[1:] == [
        "-m",
        "experiments.rl",
        "--config=configs/rl.py:nano",
        "--workdir=runs/rl",
        "--config.beta=0.0",
        "--config.decoding.top_p=0.9",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a child of its parent's death")
def test_a_child_dies_with_a_killed_parent():
    code = (
        "import sys, time; from dsmath.runs.commands import start\n"
        "print(start([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(child, 0)  # it lives
    parent.kill()
    parent.wait()
    for _ in range(100):
        status = pathlib.Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes cannot be bound to cores here")
def test_a_command_runs_on_its_cores():
    core = max(os.sched_getaffinity(0))
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    process = start([sys.executable, "-c", code], [core], stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].strip() == f"[{core}]"


def test_a_child_gets_large_pages_unless_the_environment_says_otherwise():
    ask = [sys.executable, "-c", "import os; print(os.environ['GLIBC_TUNABLES'], os.environ.get('OTHER'))"]

    def answer(environment):
        return start(ask, stdout=subprocess.PIPE, text=True, env=environment).communicate()[0].split()

    assert answer({"OTHER": "here"}) == ["glibc.malloc.hugetlb=1", "here"]
    assert answer({"GLIBC_TUNABLES": "glibc.malloc.check=0"}) == ["glibc.malloc.check=0", "None"]
