"""The endpoint's command: it serves, ends in good order, and names what is wrong with its flags."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import httpx
import jax
import pytest

from configs import serve as configs
from dsmath.runs.errors import InputError
from experiments import serve

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = ["--config.length=64", "--config.max_new_tokens=32", "--config.rollout.slots=4"]


@pytest.mark.parametrize("ending", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=str)
def test_a_signal_ends_the_server_in_good_order(checkpoint, ending):
    before = sorted(checkpoint.rglob("*"))
    config = "--config=configs/serve.py:nano"
    command = [sys.executable, "-m", "experiments.serve", config, f"--workdir={checkpoint}", "--port=0", *FIELDS]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r"serve: tiny at (http://127\.0\.0\.1:\d+/v1)", line)
            assert address, line + process.stderr.read()
            url = address[1]
            assert httpx.get(f"{url}/models").json()["data"][0]["id"] == "tiny"
            body = {"prompt": "Anna", "max_tokens": 32, "model": "tiny", "n": 100, "stream": True}
            with httpx.stream("POST", f"{url}/completions", json=body, timeout=60) as answer:
                lines = answer.iter_lines()
                assert next(lines).startswith("data: ")
                process.send_signal(ending)  # while a client is being served
                assert [line for line in lines if line][-1] == "data: [DONE]"
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert sorted(checkpoint.rglob("*")) == before  # a checkpoint's workdir is only read


@pytest.mark.parametrize(
    ("overrides", "workdir", "problem"),
    [
        ({"max_new_tokens": 64}, None, r"config\.max_new_tokens: 64 leaves no room for a prompt in config\.length=64"),
        ({"length": 0}, None, r"config\.length: 0 must be at least 1"),
        ({}, "nowhere", r"--workdir='nowhere'"),
    ],
)
def test_bad_fields_are_named(checkpoint, overrides, workdir, problem):
    config = configs.get_config("nano")
    config.num_cpu_devices = jax.device_count()
    config.update({"length": 64, "max_new_tokens": 32} | overrides)
    with pytest.raises(InputError, match=problem):
        serve.serve(config, workdir or checkpoint)


def test_an_address_that_cannot_be_had_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port={port}, --host=127\.0\.0\.1: [Aa]ddress already in use"):
            serve.listen("127.0.0.1", port)
    with pytest.raises(InputError, match=r"--host=nowhere\.invalid: "):
        serve.listen("nowhere.invalid", 0)
