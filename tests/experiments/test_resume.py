"""A stage that is killed twice and run again ends with the numbers of the unbroken run."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from dsmath.data.solutions import chat_prompt

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMES = ("seconds", "rollout_seconds", "tokens_per_second")  # what the clock decides
LETTERS = "abcdefghijkl"


def _command(stage: str, workdir: pathlib.Path, overrides: dict[str, object]) -> list[str]:
    fields = [f"--config.{field}={value}" for field, value in overrides.items()]
    return [
        sys.executable,
        "-m",
        f"experiments.{stage}",
        f"--config=configs/{stage}.py",
        f"--workdir={workdir}",
        *fields,
    ]


def _run(command: list[str], environment: dict[str, str]) -> None:
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def _run_and_kill(command: list[str], environment: dict[str, str], workdir: pathlib.Path, records: int) -> None:
    """Starts the command and kills it once metrics.jsonl holds so many records."""
    metrics = workdir / "metrics.jsonl"
    with open(workdir.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < records):
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL, workdir.with_suffix(".log").read_text()
    assert not (workdir / "result.json").exists()


def _read(workdir: pathlib.Path) -> tuple[list[dict], dict]:
    """metrics.jsonl and result.json without their times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    result = json.loads((workdir / "result.json").read_text())
    assert result.pop("seconds") > 0
    return records, result


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The stages share what they compile, but not with the tests around: a kill may cut a file of the cache."""
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> pathlib.Path:
    """A folder like GSM8K's whose answers a tiny model guesses now and then."""
    folder = tmp_path_factory.mktemp("problems")
    rng = random.Random(0)
    records = [{"question": f"How many {word}?", "answer": f"#### {rng.randint(1, 3)}"} for word in LETTERS]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture(scope="module")
def pretrain(tmp_path_factory, environment, problems) -> tuple[dict[str, object], pathlib.Path]:
    """Overrides of a tiny pretraining, and the workdir of its unbroken run."""
    folder = tmp_path_factory.mktemp("pretrain")
    rng = random.Random(0)

    def chat() -> str:
        return f"{chat_prompt(f'How many {rng.choice(LETTERS)}?')} \\boxed{{{rng.randint(1, 3)}}}."

    texts = ["\n".join(chat() for _ in range(3)) for _ in range(300)]
    (folder / "corpus").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "corpus" / "part.parquet")
    tokenizer = {"corpus": folder, "problems": problems, "num_problems": 0, "vocab_size": 340}
    _run(_command("tokenizer", folder / "tokenizer", tokenizer), environment)
    overrides = {
        "tokenizer": folder / "tokenizer",
        "corpora": {"mined": str(folder), "workbook": "embedded"},
        "weights": {"mined": 0.8, "workbook": 0.2},
        "num_embedded": 20,
        "num_cpu_devices": 8,
        "mesh.data": 2,
        "mesh.fsdp": 4,
        "model.num_layers": 2,
        "model.width": 32,
        "model.head_dim": 8,
        "model.mlp_width": 64,
        "length": 64,
        "batch_size": 16,
        "num_microbatches": 2,
        "num_steps": 40,
        "save_every": 4,
        "log_every": 1,
        "optimizer.peak_learning_rate": 0.01,
        "optimizer.warmup_steps": 3,
    }
    _run(_command("pretrain", folder / "unbroken", overrides), environment)
    return overrides, folder / "unbroken"


def test_pretraining_killed_twice_ends_with_the_numbers_of_the_unbroken_run(pretrain, environment, tmp_path):
    overrides, unbroken = pretrain
    records, result = _read(unbroken)
    assert [record["step"] for record in records] == list(range(1, 41))
    assert result["loss"] == pytest.approx(sum(record["loss"] for record in records[-4:]) / 4)
    assert result["loss"] < 0.6 * records[0]["loss"]
    for record in records:  # every place of a batch holds a token of one of the corpora
        assert record["tokens/mined"] + record["tokens/workbook"] == record["step"] * 16 * 64
    assert records[-1]["tokens/mined"] / (40 * 16 * 64) == pytest.approx(0.8, abs=0.05)

    command = _command("pretrain", tmp_path / "killed", overrides)
    _run_and_kill(command, environment, tmp_path / "killed", 2)  # before the first checkpoint
    _run_and_kill(command, environment, tmp_path / "killed", 18)
    _run(command, environment)
    assert _read(tmp_path / "killed") == (records, result)


@pytest.mark.parametrize("lora_rank", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_rl_killed_twice_ends_with_the_numbers_of_the_unbroken_run(
    pretrain, problems, environment, tmp_path, lora_rank
):
    _, parent = pretrain
    overrides = {
        "lora_rank": lora_rank,
        "init_from": parent,
        "problems": problems,
        "num_problems": 0,
        "num_cpu_devices": 8,
        "mesh.data": 2,
        "mesh.fsdp": 2,
        "mesh.tensor": 2,
        "num_groups": 4,
        "group_size": 4,
        "updates_per_rollout": 2,
        "decoding.max_new_tokens": 8,
        "num_steps": 16,
        "save_every": 3,
        "optimizer.peak_learning_rate": 0.003,
    }
    _run(_command("rl", tmp_path / "unbroken", overrides), environment)
    records, result = _read(tmp_path / "unbroken")
    assert [record["step"] for record in records] == list(range(1, 17))
    assert len({record["reward"] for record in records}) > 2  # right and wrong answers: something is learned
    assert max(record["kl"] for record in records) > 1e-4

    command = _command("rl", tmp_path / "killed", overrides)
    _run_and_kill(command, environment, tmp_path / "killed", 2)
    _run_and_kill(command, environment, tmp_path / "killed", 9)
    _run(command, environment)
    assert _read(tmp_path / "killed") == (records, result)
