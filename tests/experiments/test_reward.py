"""The stage of reward models: killed and run again, on labels of others, and in evaluation."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

from dsmath.reward.answers import extract_answer
from dsmath.runs.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _config(stage: str, **overrides):
    config = importlib.import_module(f"configs.{stage}").get_config("nano")
    config.num_cpu_devices = 8
    for field, value in overrides.items():
        *parents, name = field.split("__")
        target = config
        for parent in parents:
            target = target[parent]
        target[name] = value
    return config


@pytest.fixture(scope="module")
def overrides(solver, tmp_path_factory) -> dict[str, object]:
    """Of a tiny run: twelve problems that look alike, with other answers."""
    problems = tmp_path_factory.mktemp("problems")
    records = [{"question": "How many" + "?" * (index + 1), "answer": f"#### {index % 3 + 1}"} for index in range(12)]
    for split in ("train", "test"):
        (problems / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return {
        "init_from": str(solver),
        "sampler": str(solver),
        "problems": str(problems),
        "num_problems": 0,
        "num_samples": 4,
        "num_completions": 2,
        "shard_size": 2,
        "held_out": 0.25,
        "batch_size": 4,
        "num_steps": 12,
        "save_every": 3,
        "log_every": 1,
        "optimizer__peak_learning_rate": 0.01,
        "optimizer__warmup_steps": 1,
    }


def _run_and_kill(command: list[str], environment: dict[str, str], folder: pathlib.Path, pattern: str, count: int):
    """Starts the command and kills it once so many lines or files of the pattern are there."""

    def seen() -> int:
        return sum(file.read_bytes().count(b"\n") if file.suffix == ".jsonl" else 1 for file in folder.glob(pattern))

    with open(folder.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            while process.poll() is None and seen() < count:
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL, folder.with_suffix(".log").read_text()


def _read(workdir: pathlib.Path) -> tuple[list[dict], list[dict], dict]:
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    labelled = [row for file in sorted((workdir / "labelled").iterdir()) for row in _rows(file)]
    result = json.loads((workdir / "result.json").read_text())
    return records, labelled, {name: value for name, value in result.items() if name != "seconds"}


def _rows(file: pathlib.Path) -> list[dict]:
    return pyarrow.parquet.read_table(file).to_pylist()


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Runs share what they compile, but not with the tests around: a kill may cut a file of the cache."""
    return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


def _command(workdir: pathlib.Path, overrides: dict[str, object]) -> list[str]:
    fields = [f"--config.{field.replace('__', '.')}={value}" for field, value in overrides.items()]
    command = [sys.executable, "-m", "experiments.reward", "--config=configs/reward.py:nano", f"--workdir={workdir}"]
    return [*command, "--config.kind=process", *fields]


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def process_model(overrides, environment, tmp_path_factory) -> pathlib.Path:
    """The workdir of an unbroken run that scores steps."""
    workdir = tmp_path_factory.mktemp("process")
    _run(_command(workdir, overrides), environment)
    return workdir


@pytest.mark.slow
def test_a_run_killed_while_it_samples_labels_and_learns_ends_as_the_unbroken_one(
    process_model, overrides, environment, tmp_path
):
    records, labelled, result = _read(process_model)
    assert [record["step"] for record in records] == list(range(1, 13))
    assert records[-1]["loss"] < records[0]["loss"]
    assert len(labelled) == 12 * 4
    assert {row["completions"] for row in labelled} == {2}
    assert {0, 2} <= {hits for row in labelled for hits in row["step_hits"]}
    for row in labelled:
        assert row["correct"] == (extract_answer(row["completion"]) == row["gold"])
    assert result["solutions_with_error"] + result["solutions_without_error"] == 3 * 4
    assert 0 <= result["accuracy"] <= 1

    command = _command(tmp_path / "killed", overrides)
    _run_and_kill(command, environment, tmp_path / "killed", "labelled/*.parquet", 3)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed" / "labelled").glob("*.parquet")}
    _run_and_kill(command, environment, tmp_path / "killed", "metrics.jsonl", 7)
    _run(command, environment)
    assert kept == {file: file.stat().st_mtime_ns for file in kept}
    assert _read(tmp_path / "killed") == (records, labelled, result)


@pytest.mark.slow
def test_evaluation_chooses_by_a_reward_model(process_model, overrides, tmp_path):
    config = _config(
        "evaluate",
        init_from=overrides["init_from"],
        problems=overrides["problems"],
        num_problems=0,
        num_samples=4,
        batch_size=16,
        reward_model=str(process_model),
    )
    result = importlib.import_module("experiments.evaluate").run(config, tmp_path)
    rows = _rows(tmp_path / "verdicts" / "gsm8k-chat-samples.parquet")
    for row in rows:
        assert row["score"] == pytest.approx(min(row["step_scores"]))
        assert 0 < row["score"] < 1
    best = [max(rows[start : start + 4], key=lambda row: row["score"])["correct"] for start in range(0, len(rows), 4)]
    assert result["best_of"]["4"] == pytest.approx(sum(best) / len(best))
    assert result["best_of"]["1"] == pytest.approx(result["pass_at"]["1"])
    assert result["weighted_maj"].keys() == result["maj_at"].keys()


@pytest.mark.slow
def test_labels_of_others_are_learned(overrides, tmp_path):
    records = [
        {
            "question": f"How many? {index}",
            "outputs": [
                {"response": f"I see {n}.ки\n\\boxed{{{n}}}.ки", "label": n == 2, "step_h_label": [n == 2, n == 2]}
                for n in (1, 2, 3)
            ],
        }
        for index in range(8)
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    fields = {"labelled": str(tmp_path / "labels.jsonl"), "sampler": "nowhere", "num_steps": 30}
    run = importlib.import_module("experiments.reward").run
    result = run(_config("reward", loss="pairwise", **overrides | fields), tmp_path / "pairwise")
    assert result["pair_accuracy"] == 1.0
    assert not (tmp_path / "pairwise" / "samples").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "both"}, r"config\.kind: 'both' is none of outcome, process"),
        ({"kind": "process", "loss": "pairwise"}, r"config\.loss: 'pairwise' is none of sigmoid"),
        ({"loss": "pairwise", "num_samples": 1}, r"config\.num_samples: 1 makes no pair"),
        ({"labels": "firm"}, r"config\.labels: 'firm' is none of hard, soft"),
        ({"held_out": 0.0}, r"config\.held_out: 0\.0 is not between"),
        ({"num_completions": 0}, r"config\.num_completions: 0"),
        ({"decoding__max_new_tokens": 0}, r"config\.decoding\.max_new_tokens: 0"),
        ({"labelled": "nowhere", "decoding__max_new_tokens": 0}, r"config\.decoding\.max_new_tokens: 0"),
        ({"labelled": "nowhere"}, r"nowhere: no such file; config\.labelled"),
        ({"microbatch_tokens": 10}, r"config\.microbatch_tokens: 10 cannot hold"),
    ],
)
def test_bad_fields_are_named_before_any_work(overrides, tmp_path, changes, named):
    with pytest.raises(InputError, match=named):
        importlib.import_module("experiments.reward").run(_config("reward", **overrides | changes), tmp_path)
    assert not (tmp_path / "samples").exists()


def test_a_sampler_of_another_tokenizer_is_refused(overrides, checkpoint, tmp_path):
    config = _config("reward", **overrides | {"sampler": str(checkpoint)})
    with pytest.raises(InputError, match=r"config\.sampler=.*tokenizer is not that of"):
        importlib.import_module("experiments.reward").run(config, tmp_path)
