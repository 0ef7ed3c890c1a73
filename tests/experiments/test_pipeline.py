"""The whole chain at the smallest size: every stage by its own command, then the report."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {
    "mine.pages_per_host": 15,
    "mine.positives": 300,
    "mine.negatives": 300,
    "mine.max_rounds": 1,
    "mine.validation_folds": 2,
    "tokenizer.vocab_size": 700,
    "tokenizer.num_problems": 300,
    "evaluate.num_problems": 12,
    "evaluate.num_samples": 4,
    "evaluate.max_new_tokens": 8,
    "pretrain.num_embedded": 30,
    "pretrain.num_steps": 4,
    "pretrain.model.num_layers": 1,
    "pretrain.model.width": 32,
    "pretrain.model.head_dim": 8,
    "pretrain.model.mlp_width": 32,
    "pretrain.optimizer.warmup_steps": 1,
    "sft.num_problems": 60,
    "sft.num_steps": 3,
    "sft.optimizer.warmup_steps": 1,
    "rl.num_problems": 60,
    "rl.num_steps": 2,
    "rl.num_groups": 2,
    "rl.group_size": 4,
    "rl.decoding.max_new_tokens": 8,
    "rl.optimizer.warmup_steps": 1,
}


def _run(workdir: pathlib.Path, **overrides: object) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "experiments.pipeline",
        "--config=configs/pipeline.py:nano",
        f"--workdir={workdir}",
        *(f"--config.{field}={value}" for field, value in (TINY | overrides).items()),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> tuple[pathlib.Path, subprocess.CompletedProcess]:
    workdir = tmp_path_factory.mktemp("chain")
    return workdir, _run(workdir)


def test_the_chain_ends_with_a_report_and_every_number(chain):
    workdir, process = chain
    assert process.returncode == 0, process.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["mine"]["pages"] > summary["mine"]["collected"] > 0
    assert summary["mine"]["rounds"] >= 1
    assert summary["pretrain"]["loss"] > 0
    for stage in ("sft", "rl"):
        assert 0 <= summary[stage]["accuracy"] <= 1
    stages = {"mine", "tokenizer", "pretrain", "sft", "evaluate_sft", "rl", "evaluate_rl"}
    assert stages <= summary["seconds"].keys()
    assert (workdir / "report.html").stat().st_size > 10_000
    assert str(workdir / "report.html") in process.stdout
    assert str(workdir / "summary.json") in process.stdout


def test_every_stage_names_its_parent(chain):
    workdir, _ = chain
    for child, parent in (("sft", "pretrain"), ("rl", "sft"), ("evaluate_rl", "rl")):
        lineage = json.loads((workdir / child / "lineage.json").read_text())
        assert lineage["parents"]["init_from"]["workdir"] == str(workdir / parent)
        assert lineage["parents"]["init_from"]["lineage"]


def test_a_finished_chain_is_not_run_again(chain):
    workdir, _ = chain
    process = _run(workdir)
    assert process.returncode == 0, process.stderr
    assert "nothing to do" in process.stderr
    assert "[1/" not in process.stderr


def test_a_failing_stage_ends_the_chain_with_its_error(tmp_path):
    process = _run(tmp_path / "chain", input=tmp_path / "nowhere" / "*.warc.gz")
    assert process.returncode == 2
    assert "config.input" in process.stderr
    assert process.stderr.strip().splitlines()[-1].startswith("error: stage mine ended with status 2")
