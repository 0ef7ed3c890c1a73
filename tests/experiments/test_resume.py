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
from dsmath.rl.legend import unknown

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMES = (
    "seconds",
    "tokens_per_second",
    *(f"{phase}_seconds" for phase in ("rollout", "reward", "reference", "update", "reward_model")),
)
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
        "num_cpu_devices": 4,
        "mesh.data": 2,
        "mesh.fsdp": 2,
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


RL = {
    "problems": None,
    "num_problems": 0,
    "num_cpu_devices": 4,
    "mesh.data": 1,
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
    "num_groups": 4,
    "group_size": 4,
    "updates_per_rollout": 2,
    "decoding.max_new_tokens": 8,
    "num_steps": 8,
    "save_every": 3,
    "samples_every": 1,
    "optimizer.peak_learning_rate": 0.003,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"microbatch_tokens": 80},
        pytest.param({"beta": 0.0}, marks=pytest.mark.slow),
        pytest.param({"lora_rank": 4}, marks=pytest.mark.slow),
        pytest.param({"lag": 1, "zero_variance": "resample", "max_correction": 2.0}, marks=pytest.mark.slow),
        pytest.param({"coefficient": "ppo"}, marks=pytest.mark.slow),
        pytest.param({"iterations": 2}, marks=pytest.mark.slow),
        pytest.param({"source": "sft_model", "coefficient": "rft", "updates_per_rollout": 1}, marks=pytest.mark.slow),
        pytest.param({"source": "sft_model", "coefficient": "dpo", "updates_per_rollout": 1}, marks=pytest.mark.slow),
    ],
    ids=["grpo", "no_reference", "lora", "lag", "ppo", "iterative", "rft", "dpo"],
)
def test_rl_killed_twice_ends_with_the_numbers_of_the_unbroken_run(pretrain, problems, environment, tmp_path, changes):
    _, parent = pretrain
    overrides = RL | {"init_from": parent, "problems": problems} | changes
    _run(_command("rl", tmp_path / "unbroken", overrides), environment)
    records, result = _read(tmp_path / "unbroken")
    assert [record["step"] for record in records] == list(range(1, 9))
    assert len({record["reward"] for record in records}) > 2  # right and wrong answers: something is learned
    assert unknown(name for record in records for name in record) == set()  # the legend tells of every figure
    assert ("kl" in records[0]) == (changes.get("beta") != 0.0 and changes.get("coefficient") not in ("rft", "dpo"))
    if "kl" in records[0]:
        assert max(record["kl"] for record in records) > 1e-4

    command = _command("rl", tmp_path / "killed", overrides)
    _run_and_kill(command, environment, tmp_path / "killed", 2)  # before the first checkpoint
    _run_and_kill(command, environment, tmp_path / "killed", 5)
    _run(command, environment)
    assert _read(tmp_path / "killed") == (records, result)
    for name in ("histograms.jsonl", *(f"samples/{step:06}.parquet" for step in range(1, 9))):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


@pytest.mark.slow
def test_a_reward_model_that_goes_on_learning_is_resumed_too(pretrain, problems, environment, tmp_path):
    _, parent = pretrain
    shared = {name: value for name, value in RL.items() if name.startswith(("mesh", "num_cpu", "decoding"))}
    shared |= {"problems": problems, "num_problems": 0}
    for kind in ("outcome", "process"):
        rewards = {"kind": kind, "init_from": parent, "sampler": parent, "num_samples": 4, "num_completions": 2}
        rewards |= {"num_steps": 8, "batch_size": 8, "shard_size": 4, "held_out": 0.2, "save_every": 4}
        rewards["optimizer.warmup_steps"] = 1
        _run(_command("reward", tmp_path / kind, shared | rewards), environment)
        overrides = RL | {"init_from": parent, "problems": problems, "reward_model": tmp_path / kind}
        overrides |= {"reward": f"{kind}_model", "iterations": 2, "updates_per_rollout": 1, "replay.num_steps": 4}
        _run(_command("rl", tmp_path / f"{kind}-unbroken", overrides), environment)
        command = _command("rl", tmp_path / f"{kind}-killed", overrides)
        _run_and_kill(command, environment, tmp_path / f"{kind}-killed", 5)  # it has learned, after the checkpoint of 3
        _run_and_kill(command, environment, tmp_path / f"{kind}-killed", 7)  # and after that of 6
        _run(command, environment)
        assert _read(tmp_path / f"{kind}-killed") == _read(tmp_path / f"{kind}-unbroken")


@pytest.mark.slow
def test_500_steps_killed_every_40_end_where_the_unbroken_run_ends(pretrain, problems, environment, tmp_path):
    _, parent = pretrain
    overrides = RL | {
        "init_from": parent,
        "problems": problems,
        "num_steps": 500,
        "save_every": 10,
        "samples_every": 50,
    }
    overrides |= {"num_cpu_devices": 1, "mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1}
    _run(_command("rl", tmp_path / "unbroken", overrides), environment)
    command = _command("rl", tmp_path / "killed", overrides)
    for records in range(40, 500, 40):
        _run_and_kill(command, environment, tmp_path / "killed", records)
    _run(command, environment)
    records, result = _read(tmp_path / "killed")
    assert len(records) == 500
    assert (records, result) == _read(tmp_path / "unbroken")
