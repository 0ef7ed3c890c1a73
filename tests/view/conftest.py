"""A folder of runs: a chain with two RL runs and their evaluations, as the stages write them."""

import json
import pathlib
import socket
import time

import pyarrow
import pyarrow.parquet
import pytest

from dsmath.runs.metrics import MetricsWriter
from dsmath.runs.workdir import fingerprint, write_json


@pytest.fixture
def make_run(tmp_path):
    """(name, stage, parents, …) -> a run's folder below tmp_path / "runs"."""
    root = tmp_path / "runs"

    def make(name, stage, parents=None, *, metrics=(), result=None, heartbeat=None, **config):
        folder = root / name
        write_json(folder / "config.json", {"stage": stage, **config})
        parents = {
            role: {"workdir": f"/moved/{parent}", "lineage": fingerprint(root / parent / "lineage.json"), "step": step}
            for role, (parent, step) in (parents or {}).items()
        }
        write_json(folder / "lineage.json", {"parents": parents, "data": {}, "code": "0.1.0+abc"})
        if metrics:
            with MetricsWriter(folder) as writer:
                for record in metrics:
                    writer.write(record["step"], {key: value for key, value in record.items() if key != "step"})
        if result is not None:
            write_json(folder / "result.json", result)
        if heartbeat is not None:
            write_json(folder / "heartbeat.json", {"host": socket.gethostname(), "time": time.time(), **heartbeat})
        return folder

    return make


def _write_samples(path: pathlib.Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "step": 20, "question": f"How much is {place // 4} + 1?", "gold": str(place // 4 + 1),
            "completion": f"It is \\boxed{{{place}}}.", "answer": str(place), "correct": place == place // 4 + 1,
            "reward": 0.25, "pieces": ["It", " is"],
        }
        for place in range(number)
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def root(make_run, tmp_path):
    """mine → tokenizer → pretrain → sft → two rl runs, the first with three evaluations."""
    make_run("mine", "mine", result={"pages": 100})
    make_run("tokenizer", "tokenizer", {"corpus": ("mine", None)}, result={})
    steps = [
        {"step": 10 * n, "loss": 5.0 / n, "tokens/mined": 100.0 * n, "tokens_per_second": 50.0} for n in range(1, 9)
    ]
    parents = {"mined": ("mine", None), "tokenizer": ("tokenizer", None)}
    make_run("pretrain", "pretrain", parents, metrics=steps, result={"loss": 0.625})
    make_run("sft", "sft", {"init_from": ("pretrain", 80)}, metrics=steps, result={"loss": 0.5})
    for seed in (0, 1):
        metrics = [
            {"step": n, "reward": n / 20, "kl": 0.01 * n * (seed + 1), "seconds": 36.0, "tokens_per_second": 10.0}
            for n in range(1, 21)
        ]
        folder = make_run(
            f"sweep/grpo-{seed}", "rl", {"init_from": ("sft", 80)}, metrics=metrics, num_steps=20, beta=0.04,
            result={"reward": 0.75 + seed / 8, "accuracy": float("nan")}, optimizer={"b1": 0.9}, seed=seed,
        )  # fmt: skip
        _write_samples(folder / "samples" / "000020.parquet", 50)
        _write_samples(folder / "samples" / "000010.parquet", 8)
        (folder / "samples.html").write_text("<!doctype html><title>samples</title><h1>Samples</h1>")
        (folder / "metrics.md").write_text("# Metrics\n")
    for step in (10, 15, 20):
        parents = {"init_from": ("sweep/grpo-0", step)}
        results = [{"title": "GSM8K", "mode": "chat", "accuracy": step / 40}, "broken"]
        make_run(f"sweep/evaluated-{step}", "evaluate", parents, step=step, result={"results": results})
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "runs"


@pytest.fixture
def append():
    """(run's folder, record): one more line of metrics.jsonl, as a run that goes on writes it."""

    def append(folder, record):
        with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(record if isinstance(record, str) else json.dumps(record) + "\n")

    return append
