"""Stages as several processes: the curve of one, a pause, and kills at random moments."""

import importlib
import json
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from dsmath.data import problems
from dsmath.data.tokenizer import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERRIDES = {
    "corpora": {"workbook": "embedded"},
    "weights": {"workbook": 1.0},
    "num_embedded": 40,
    "mesh.data": 4,
    "mesh.fsdp": 2,
    "model.num_layers": 1,
    "model.width": 32,
    "model.head_dim": 8,
    "model.mlp_width": 32,
    "length": 32,
    "batch_size": 8,
    "num_steps": 12,
    "save_every": 5,
    "log_every": 1,
    "optimizer.warmup_steps": 3,
}
RL = {
    "num_problems": 0,
    "mesh.fsdp": 2,
    "num_groups": 4,
    "group_size": 4,
    "updates_per_rollout": 2,
    "decoding.max_new_tokens": 16,
    "num_steps": 4,
    "samples_every": 2,
    "optimizer.peak_learning_rate": 0.003,
}
PHASES = ("rollout", "reward", "reference", "update")
TIMES = ("seconds", "tokens_per_second", *(f"{phase}_seconds" for phase in PHASES))  # what the clock decides
KILLS = 30


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory) -> Iterator[None]:
    """The processes share what they compile, but not with the tests around: a kill may cut a file of the cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="module")
def overrides(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(problems.documents(200, 0), vocab_size=420).save(folder)
    return OVERRIDES | {"tokenizer": str(folder)}


def _start(
    workdir: pathlib.Path, overrides: dict[str, object], *, processes: int, devices: int, stage: str = "pretrain"
) -> list:
    """Starts a stage; the output of process I goes to WORKDIR-I.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fields = [f"--config.{name}={value}" for name, value in (overrides | {"num_cpu_devices": devices}).items()]
    command = [sys.executable, "-m", f"experiments.{stage}", f"--config=configs/{stage}.py", f"--workdir={workdir}"]
    joined = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"]
    started = []
    for index in range(processes):
        with open(f"{workdir}-{index}.log", "a") as log:
            flags = [*joined, f"--process_id={index}"] if processes > 1 else []
            started.append(subprocess.Popen([*command, *fields, *flags], cwd=ROOT, stdout=log, stderr=log))
    return started


def _wait(workdir: pathlib.Path, started: list, seconds: float = 120.0) -> None:
    for index, process in enumerate(started):
        assert process.wait(seconds) == 0, pathlib.Path(f"{workdir}-{index}.log").read_text()


def _records(workdir: pathlib.Path) -> list[dict[str, float]]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


@pytest.mark.slow
def test_two_processes_pause_and_one_goes_on_with_the_curve_of_an_unbroken_run(overrides, tmp_path):
    started = _start(tmp_path / "run", overrides, processes=2, devices=4)
    while not (tmp_path / "run" / "config.json").exists():  # from then on both know each other
        assert started[0].poll() is None, pathlib.Path(f"{tmp_path}/run-0.log").read_text()
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    _wait(tmp_path / "run", started)
    assert not (tmp_path / "run" / "result.json").exists()
    (paused,) = [line for line in (tmp_path / "run-0.log").read_text().splitlines() if "paused at" in line]
    step = len(_records(tmp_path / "run"))
    assert paused == f"pretrain: paused at step {step}; the same line resumes"
    assert 0 < step < 12

    config = importlib.import_module("configs.pretrain").get_config("nano")
    config.update_from_flattened_dict(overrides | {"num_cpu_devices": 8})
    run = importlib.import_module("experiments.pretrain").run
    for workdir in (tmp_path / "unbroken", tmp_path / "run"):  # in this process, on its eight devices
        workdir.mkdir(exist_ok=True)
        run(config, workdir)
    unbroken, resumed = _records(tmp_path / "unbroken"), _records(tmp_path / "run")
    assert [record["step"] for record in resumed] == list(range(1, 13))
    assert json.loads((tmp_path / "run" / "heartbeat.json").read_text())["step"] == 12
    for one, two in zip(unbroken, resumed, strict=True):
        assert two == pytest.approx(one, rel=1e-5)  # sums over devices may be in another order
        assert two["tokens/workbook"] == one["tokens/workbook"]


@pytest.mark.slow
def test_four_processes_have_the_curve_of_two_and_of_one(overrides, tmp_path):
    runs = {}
    for processes in (1, 2, 4):
        workdir = tmp_path / f"{processes}"
        _wait(workdir, _start(workdir, overrides, processes=processes, devices=8 // processes), 600)
        runs[processes] = _records(workdir)
    for one, two, four in zip(*runs.values(), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
        assert four == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_reinforcement_learning_as_two_processes_has_the_curve_of_one(solver, tmp_path):
    records = [{"question": "How many" + "?" * (index + 1), "answer": f"#### {index % 3 + 1}"} for index in range(12)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    overrides = RL | {"init_from": solver, "problems": tmp_path}
    runs = []
    for processes in (1, 2):
        workdir = tmp_path / f"{processes}"
        _wait(workdir, _start(workdir, overrides, processes=processes, devices=2 // processes, stage="rl"), 600)
        runs.append(_records(workdir))
        assert (workdir / "samples.html").exists()
    one, two = runs
    assert [record["step"] for record in two] == list(range(1, 5))
    assert len({record["reward"] for record in one}) > 1
    assert max(record["grad_norm"] for record in one) > 0
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-3, abs=1e-5)  # sums over devices may be in another order
        assert together["length"] == alone["length"]  # the same samples


@pytest.mark.slow
def test_two_processes_killed_at_random_moments_end_as_the_unbroken_run(overrides, tmp_path):
    """Either process or both are killed; the one that is left ends by itself. Takes 20 minutes."""
    overrides = overrides | {"num_steps": 120, "save_every": 2, "mesh.data": 2, "mesh.fsdp": 1}
    rng = random.Random(0)
    unbroken = tmp_path / "unbroken"
    begun = time.monotonic()
    _wait(unbroken, _start(unbroken, overrides, processes=2, devices=1), 600)
    whole = time.monotonic() - begun
    records = _records(unbroken)
    kills = saving = chains = 0
    longest = 0.0
    while kills < KILLS:
        workdir = tmp_path / f"chain-{chains}"
        chains += 1
        for _ in range(rng.randint(2, 6)):
            started = _start(workdir, overrides, processes=2, devices=1)
            _kill(workdir, started, rng, whole)
            if (workdir / "result.json").exists():
                break
            kills += 1
            saving += any(workdir.glob("checkpoints/*tmp*"))
            died = time.monotonic()
            for process in started:
                process.wait(400)
            longest = max(longest, time.monotonic() - died)
        _wait(workdir, _start(workdir, overrides, processes=2, devices=1), 600)
        assert _records(workdir) == records, workdir
        left = [entry.name for entry in (workdir / "checkpoints").iterdir()]
        assert sorted(left) == sorted(entry.name for entry in (unbroken / "checkpoints").iterdir())
    print(
        f"\n{kills} kills in {chains} runs, {saving} in the middle of a save; a process left ended in {longest:.0f} s"
    )


def _kill(workdir: pathlib.Path, started: list, rng: random.Random, seconds: float) -> None:
    """Kills at a random moment: one in five within a whole run's time, the others soon after a step."""
    steps = len(_records(workdir)) if (workdir / "metrics.jsonl").exists() else 0
    moment = rng.uniform(0, seconds)
    if rng.random() > 0.2:
        while all(process.poll() is None for process in started):
            if (workdir / "metrics.jsonl").exists() and len(_records(workdir)) != steps:
                break
            time.sleep(0.01)
        moment = rng.uniform(0, 0.5)
    time.sleep(moment)
    for process in rng.choice([started, started, started[:1], started[1:]]):
        process.kill()
