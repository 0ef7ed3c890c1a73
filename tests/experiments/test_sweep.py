"""A tiny sweep by its command: killed and resumed, with a variant that fails; and another that shares its stages."""

import csv
import os
import pathlib
import random
import re
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
import ml_collections

from configs import pretrain


def get_config(preset="nano"):
    c = ml_collections.ConfigDict()
    c.seeds = (0, 1)
    c.jobs = 2
    c.store = ""
    c.parents = {{
        "tokenizer": {{
            "stage": "tokenizer", "preset": "nano", "workdir": "",
            "overrides": {{"corpus": {corpus!r}, "num_problems": 60, "vocab_size": 600}},
        }},
    }}
    c.defaults = ml_collections.ConfigDict({{"pretrain": pretrain.get_config()}})
    c.common = c.defaults.copy_and_resolve_references()
    tiny = c.common.pretrain
    tiny.tokenizer = "{{tokenizer}}"
    tiny.corpora = ml_collections.ConfigDict({{"web": {corpus!r}}})
    tiny.weights = ml_collections.ConfigDict({{"web": 1.0}})
    tiny.update(length=32, batch_size=8, num_steps=3, log_every=1)
    tiny.model.update(num_layers=1, width=16, head_dim=4, mlp_width=16)
    tiny.optimizer.warmup_steps = 1
    c.runs = (
        {{"label": "slow", "stage": "pretrain", "preset": "nano", "overrides": {{}}}},
        {{
            "label": "fast", "stage": "pretrain", "preset": "nano",
            "overrides": {{"optimizer": {{"peak_learning_rate": 0.02}}}},
        }},
    )
    if preset == "broken":
        c.runs += ({{"label": "broken", "stage": "pretrain", "preset": "nano", "overrides": {{"log_every": 0}}}},)
    if preset == "mistyped":
        c.runs[0]["overrides"]["num_stops"] = 4
    c.evaluation = {{"stage": "", "preset": "nano", "overrides": {{}}, "steps": ()}}
    c.metrics = ("loss",)
    c.figure = {{"kind": "by_run", "metrics": ("loss",), "title": "Tiny", "marks": ()}}
    return c
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("config")
    rng = random.Random(0)
    texts = [" ".join(f"{rng.randint(1, 99)} plus {rng.randint(1, 99)}" for _ in range(20)) for _ in range(200)]
    (folder / "corpus").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "corpus" / "part.parquet")
    (folder / "tiny.py").write_text(CONFIG.format(corpus=str(folder / "corpus")))
    return folder / "tiny.py"


def _start(config: pathlib.Path, preset: str, workdir: pathlib.Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.sweep", f"--config={config}:{preset}", f"--workdir={workdir}", *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finished(store: pathlib.Path) -> dict[str, int]:
    """When each stage in the store ended, by its folder."""
    return {file.parent.name: file.stat().st_mtime_ns for file in store.glob("*/result.json")}


@pytest.fixture(scope="module")
def sweep(config, tmp_path_factory) -> tuple[pathlib.Path, dict[str, int], str, str]:
    """A sweep with a broken variant, killed once the first stage had ended, and run again.

    Its folder, what had finished at the kill, and what the second command printed.
    """
    workdir = tmp_path_factory.mktemp("sweep")
    process = _start(config, "broken", workdir)
    while process.poll() is None and not _finished(workdir / "stages"):
        time.sleep(0.02)
    assert process.poll() is None, process.stderr.read()
    process.kill()
    process.communicate()
    before = _finished(workdir / "stages")
    process = _start(config, "broken", workdir)
    out, err = process.communicate()
    assert process.returncode == 2, err
    return workdir, before, out, err


def test_a_killed_sweep_goes_on_with_what_is_missing(sweep):
    workdir, before, _, _ = sweep
    after = _finished(workdir / "stages")
    assert before and before.items() <= after.items()  # none of them ran again
    names = sorted(name.rsplit("-", 1)[0] for name in after)
    assert names == ["fast-seed-0", "fast-seed-1", "slow-seed-0", "slow-seed-1", "tokenizer"]


def test_a_failing_variant_is_kept_apart_and_told(sweep):
    _, _, out, err = sweep
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: 4 of 6 figures are there; broken, seed 0 failed with status 2 (")
    log = pathlib.Path(re.search(r"broken, seed 0 failed with status 2 \((.*?)\)", line)[1])
    assert "config.log_every: 0 must be at least 1" in log.read_text()
    assert "| fast | 2 |" in out and "broken" not in out


def test_results_hold_every_run_and_seed(sweep):
    workdir, _, out, _ = sweep
    lines = list(csv.DictReader((workdir / "results.csv").open()))
    assert [line["label"] + line["seed"] for line in lines] == ["slow0", "fast0", "slow1", "fast1"]
    assert len({line["loss"] for line in lines}) == 4
    assert (workdir / "table.md").read_text() in out
    assert re.search(r"\| fast \| 2 \| [\d.]+ ± [\d.e-]+ \|", out)
    assert (workdir / "figure.png").stat().st_size > 1000 and (workdir / "figure.svg").exists()


def test_the_script_of_commands_finds_all_finished(sweep):
    workdir, _, _, _ = sweep
    script = (workdir / "commands.sh").read_text()
    assert script.count("-m experiments.") == 7
    first = "\n".join(script.splitlines()[:7])  # up to the tokenizer's
    done = subprocess.run(["sh", "-c", first], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0 and "nothing to do" in done.stderr


def test_another_sweep_shares_what_is_there(sweep, config, tmp_path):
    workdir, _, _, _ = sweep
    before = _finished(workdir / "stages")
    process = _start(config, "nano", tmp_path / "other", f"--config.store={workdir / 'stages'}", "--config.seeds=(1,)")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "starts" not in err
    assert "| slow | 1 |" in out
    assert _finished(workdir / "stages") == before
    assert not (tmp_path / "other" / "stages").exists()


def test_a_dry_run_tells_what_is_there_and_does_nothing(sweep, config, tmp_path):
    workdir, _, _, _ = sweep
    process = _start(config, "nano", tmp_path / "dry", f"--config.store={workdir / 'stages'}", "--dry_run")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "5 finished, 0 begun, 0 new"
    assert out.count("-m experiments.pretrain") == 4 and "# slow, seed 0: finished" in out
    assert not (tmp_path / "dry").exists()


def test_a_mistyped_field_ends_the_sweep_at_its_start(config, tmp_path):
    process = _start(config, "mistyped", tmp_path / "sweep")
    _, err = process.communicate()
    assert process.returncode == 2
    assert (
        err.strip()
        .splitlines()[-1]
        .endswith("config.runs[0]: the config of pretrain has no field 'num_stops'; did you mean 'num_steps'?")
    )
    assert not (tmp_path / "sweep").exists()
