"""Completions of a file: every sample is there, and a run that is killed anywhere ends with the same bytes."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import pyarrow
import pyarrow.parquet
import pytest

from configs import generate as configs
from dsmath.evaluation import scores
from dsmath.reward import generations
from dsmath.runs.errors import InputError
from experiments import generate

ROOT = pathlib.Path(__file__).resolve().parents[2]


class _Killed(Exception):
    pass


@pytest.fixture
def config(checkpoint, tmp_path):
    rng = random.Random(0)
    records = [
        {"id": f"r{number}", "question": f"How many {number}?" + " apples" * rng.randrange(8), "answer": "1"}
        if number % 3
        else {"prompt": "Anna has 12"}
        for number in range(14)
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = configs.get_config("nano")
    config.init_from, config.input = str(checkpoint), str(path)
    config.num_cpu_devices = jax.device_count()
    config.num_samples, config.shard_size, config.stop = 3, 4, ("7",)
    config.decoding.max_new_tokens, config.rollout.slots, config.rollout.block_steps = 12, 8, 4
    return config


def _files(workdir: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workdir.glob("completions/*")}


def test_every_prompt_gets_its_samples_in_order(config, tmp_path):
    result = generate.run(config, tmp_path / "run")
    files = sorted((tmp_path / "run" / "completions").iterdir())
    assert [file.name for file in files] == [
        f"{start:06}-{stop:06}.parquet" for start, stop in ((0, 4), (4, 8), (8, 12), (12, 14))
    ]
    table = pyarrow.concat_tables(map(pyarrow.parquet.read_table, files))
    assert result["prompts"] == 14 and result["samples"] == table.num_rows == 14 * 3
    assert result["tokens"] == sum(table["tokens"].to_pylist()) and 0 <= result["truncated"] <= 1
    assert table["sample_index"].to_pylist() == [0, 1, 2] * 14
    rows = table.to_pylist()
    assert [row["id"] for row in rows[:6:3]] == ["1", "r1"]
    assert rows[0]["prompt"] == "Anna has 12" and rows[0]["question"] is rows[0]["gold"] is None
    assert rows[3]["prompt"] is None and rows[3]["question"].startswith("How many 1?") and rows[3]["gold"] == "1"
    assert len({row["completion"] for row in rows}) > 30
    assert not any("7" in row["completion"] for row in rows)
    assert any(row["truncated"] for row in rows) and all(row["tokens"] <= 12 for row in rows)
    graded = scores.grade(table.filter(pyarrow.compute.is_valid(table["gold"])))
    assert set(graded["correct"].to_pylist()) <= {True, False}


def test_a_run_that_is_stopped_anywhere_ends_with_the_same_bytes(config, tmp_path, monkeypatch):
    generate.run(config, tmp_path / "whole")
    for stops in ((3,), (5, 11)):
        workdir = tmp_path / f"stopped-{stops[0]}"
        for stop in stops:
            with monkeypatch.context() as patch:
                _stop_after(patch, stop)
                with pytest.raises(_Killed):
                    generate.run(config, workdir)
        generate.run(config, workdir)
        assert _files(workdir) == _files(tmp_path / "whole")


def test_no_sample_that_had_ended_is_drawn_again(config, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    generate.run(config, whole)
    write, append, written, asked = generations.write_table, generations._append, [], []

    def write_one(path, table):  # and end before the second file is written, whose samples are all there
        if written:
            raise _Killed
        written.append(write(path, table))

    with monkeypatch.context() as patch:
        patch.setattr(generations, "write_table", write_one)
        with pytest.raises(_Killed):
            generate.run(config, stopped)
    journals = list((stopped / "completions").glob("*.jsonl"))
    there = sum(path.read_text().count("\n") for path in journals) + 3 * 4
    with journals[0].open("a") as file:
        file.write('{"question_index": 4, "compl')  # as a kill may leave a line
    monkeypatch.setattr(generations, "_append", lambda *row: (asked.append(row), append(*row)))
    generate.run(config, stopped)
    assert len(asked) == 14 * 3 - there < 14 * 3 - 3 * 8
    assert _files(stopped) == _files(whole)


def test_samples_of_other_prompts_are_refused(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(generations, "write_table", lambda *_: (_ for _ in ()).throw(_Killed))
        with pytest.raises(_Killed):
            generate.run(config, tmp_path / "run")
    (tmp_path / "run" / "lineage.json").unlink()
    lines = pathlib.Path(config.input).read_text().replace("many", "few")
    pathlib.Path(config.input).write_text(lines)
    with pytest.raises(InputError, match=r"jsonl: holds samples of other prompts"):
        generate.run(config, tmp_path / "run")


def _stop_after(patch: pytest.MonkeyPatch, requests: int) -> None:
    count = 0

    def advance(self):
        nonlocal count
        count += 1
        if count > requests:
            raise _Killed

    patch.setattr(generate.Progress, "advance", advance)


def test_other_limits_of_the_engine_change_no_sample(config, tmp_path):
    generate.run(config, tmp_path / "few")
    config.rollout.slots, config.rollout.block_steps, config.shard_size = 24, 6, 5
    generate.run(config, tmp_path / "many")
    few, many = (
        pyarrow.concat_tables(map(pyarrow.parquet.read_table, sorted((tmp_path / name / "completions").iterdir())))
        for name in ("few", "many")
    )
    assert few.equals(many)


def test_a_file_that_has_changed_is_refused(config, tmp_path):
    generate.run(config, tmp_path / "run")
    pathlib.Path(config.input).write_text('{"prompt": "other"}\n')
    with pytest.raises(InputError, match=r"prompts\.jsonl has changed"):
        generate.run(config, tmp_path / "run")


@pytest.mark.slow
def test_a_process_that_is_killed_ends_with_the_same_bytes(config, tmp_path):
    def command(workdir):
        fields = {"init_from": config.init_from, "input": config.input, "num_samples": 8, "shard_size": 1}
        fields |= {"rollout.slots": 4, "decoding.max_new_tokens": 200}
        overrides = [f"--config.{name}={value}" for name, value in fields.items()]
        arguments = ["--config=configs/generate.py:nano", f"--workdir={workdir}", *overrides]
        return [sys.executable, "-m", "experiments.generate", *arguments]

    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, env=environment, check=True, capture_output=True)
    for files in (1, 5, 10):
        process = subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        while len(_files(tmp_path / "killed")) < files:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(tmp_path / "killed"), cwd=ROOT, env=environment, check=True, capture_output=True)
    assert _files(tmp_path / "killed") == _files(tmp_path / "whole")
