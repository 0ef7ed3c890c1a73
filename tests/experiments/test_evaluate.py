"""The evaluation: its files, its verdicts, and that a kill anywhere changes nothing."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pyarrow
import pyarrow.parquet
import pytest

from configs import evaluate as configs
from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.evaluation import tasks, verdicts
from dsmath.evaluation.comparison import compare, draw_comparison
from dsmath.evaluation.prompts import MODES, modes_of
from dsmath.runs import driver
from dsmath.runs.errors import InputError
from experiments import evaluate, rescore

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = "abcdefghijkl"
OVERRIDES = {
    "benchmarks": ("gsm8k", "mmlu_stem"),
    "modes": ("chat", "choice"),
    "num_problems": 0,
    "num_samples": 4,
    "max_new_tokens": 24,
    "batch_size": 8,
    "num_cpu_devices": 8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """GSM8K and MMLU-STEM of a few problems that a tiny model answers now and then."""
    folder = tmp_path_factory.mktemp("benchmarks")
    problems = [{"question": f"How many {name}?", "answer": f"#### {1 + n % 3}"} for n, name in enumerate(NAMES)]
    choices = [
        {"question": f"Which is it {n}?", "options": ["one", "two", "three", 4.0], "answer": "ABCD"[n % 4], "id": n}
        | {"topic": ("algebra", "physics")[n % 2]}
        for n in range(6)
    ]
    for name, records in (("gsm8k", problems), ("mmlu_stem", choices)):
        (folder / name).mkdir()
        (folder / name / "test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture(scope="module")
def overrides(solver, folder) -> dict[str, object]:
    return OVERRIDES | {"init_from": str(solver), "folder": str(folder), "rollout.slots": 16, "rollout.block_steps": 4}


def _config(overrides: dict[str, object]):
    config = configs.get_config("nano")
    config.update_from_flattened_dict(overrides)
    return config


def _run(overrides: dict[str, object], workdir: pathlib.Path) -> dict:
    return driver.run_stage("evaluate", evaluate.run, _config(overrides), str(workdir))


@pytest.fixture(scope="module")
def whole(overrides, tmp_path_factory) -> pathlib.Path:
    """The workdir of an unbroken run."""
    workdir = tmp_path_factory.mktemp("evaluate") / "whole"
    _run(overrides, workdir)
    return workdir


def _outcome(workdir: pathlib.Path) -> tuple[dict, dict[str, list[dict]]]:
    """The result and the rows of all tables, without the time they took."""
    result = json.loads((workdir / "result.json").read_text())
    del result["seconds"]
    tables = {
        path.relative_to(workdir).as_posix(): pyarrow.parquet.read_table(path).to_pylist()
        for path in sorted(workdir.rglob("*.parquet"))
    }
    for rows in tables.values():
        for row in rows:
            row.pop("seconds", None)
    return result, tables


def test_every_benchmark_and_mode_has_its_files_and_figures(whole):
    result, tables = _outcome(whole)
    assert [(of["benchmark"], of["mode"]) for of in result["results"]] == [
        ("gsm8k", "chat"),
        ("mmlu_stem", "chat"),
        ("mmlu_stem", "choice"),
    ]
    gsm8k, _, choice = result["results"]
    assert gsm8k["coverage"] == "12 of 1,319" and gsm8k["samples"] == 4 and gsm8k["shots"] == 0
    assert choice["shots"] == 4 and choice["samples"] == 0 and set(choice["by_subject"]) == {"algebra", "physics"}
    assert 0 < gsm8k["accuracy"] < 1 and gsm8k["low"] <= gsm8k["accuracy"] <= gsm8k["high"]
    assert gsm8k["pass_at"]["1"] <= gsm8k["pass_at"]["4"] and set(gsm8k["maj_at"]) == {"1", "2", "4"}
    assert "accuracy" not in result  # of several benchmarks none is the one
    generated = [
        row for name, rows in tables.items() if name.startswith("generations/gsm8k/chat/samples") for row in rows
    ]
    assert len(generated) == 12 * 4 and len({row["prompt_hash"] for row in generated}) == 12
    assert [row["sample_index"] for row in generated] == [0, 1, 2, 3] * 12
    judged = tables["verdicts/gsm8k-chat-samples.parquet"]
    assert [row["completion"] for row in judged] == [row["completion"] for row in generated]
    assert {row["reason"] for row in judged} <= {"right", "wrong", "no_answer"} and "token_ids" not in judged[0]
    assert not list((whole / "generations").rglob("*.jsonl"))  # no journal stays


def test_the_likeliest_letter_is_the_answer(whole):
    for row in _outcome(whole)[1]["verdicts/mmlu_stem-choice-greedy.parquet"]:
        best = max(range(4), key=lambda option: row["option_logprobs"][option])
        assert row["answer"] == "ABCD"[best] and row["correct"] == (row["answer"] == row["gold"])
        assert row["finish_reason"] == "choice" and not row["truncated"]


def _command(workdir: pathlib.Path, overrides: dict[str, object]) -> list[str]:
    fields = [f"--config.{name}={value}" for name, value in overrides.items()]
    return [
        sys.executable,
        "-m",
        "experiments.evaluate",
        "--config=configs/evaluate.py",
        f"--workdir={workdir}",
        *fields,
    ]


def _lines(workdir: pathlib.Path) -> int:
    """Samples in journals and files."""
    journals = sum(path.read_bytes().count(b"\n") for path in workdir.glob("generations/*/*/*/*.jsonl"))
    return journals + 8 * len(list(workdir.glob("generations/*/*/*/*.parquet")))


def _kill(workdir: pathlib.Path, overrides: dict[str, object], reached) -> None:
    """Runs it and kills it when `reached()`."""
    with open(workdir.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(_command(workdir, overrides), cwd=ROOT, stdout=log, stderr=log)
        try:
            while process.poll() is None and not reached():
                time.sleep(0.002)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL, workdir.with_suffix(".log").read_text()


def test_a_run_that_is_killed_ends_with_the_same_table(whole, overrides, tmp_path):
    workdir = tmp_path / "killed"
    _kill(workdir, overrides, lambda: _lines(workdir) >= 3)
    assert not (workdir / "result.json").exists()
    _run(overrides, workdir)
    assert _outcome(workdir) == _outcome(whole)


@pytest.mark.slow
def test_a_run_that_is_killed_many_times_ends_with_the_same_table(whole, overrides, tmp_path):
    workdir = tmp_path / "killed"
    for count in (1, 6, 14, 30, 45):
        _kill(workdir, overrides, lambda count=count: _lines(workdir) >= count)
    _kill(
        workdir, overrides, lambda: any(workdir.glob("verdicts/*/*.parquet")) or any(workdir.glob("verdicts/*.parquet"))
    )
    _run(overrides, workdir)
    assert _outcome(workdir) == _outcome(whole)


def test_grading_in_processes_gives_the_same_verdicts(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "_FEW", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    target = tmp_path / "shared.parquet"
    table = verdicts.judge(whole, "gsm8k", "chat", "samples", "strict", runner=None, target=target)
    expected = pyarrow.parquet.read_table(whole / "verdicts" / "gsm8k-chat-samples.parquet")
    assert table.drop_columns("seconds").equals(expected.drop_columns("seconds"))
    assert not target.with_suffix("").exists()


def test_a_new_grading_lists_the_verdicts_that_flipped(whole, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(whole, workdir)
    path = workdir / "verdicts" / "gsm8k-chat-greedy.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    rows[3] |= {"correct": not rows[3]["correct"], "answer": "77"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)

    (flip,) = rescore.rescore(workdir, "both", "", "bubblewrap")
    assert flip["id"] == rows[3]["id"] and flip["old_answer"] == "77" and flip["new_correct"] != flip["old_correct"]
    again, _ = _outcome_of_rescore(workdir / "rescored" / "1")
    original = json.loads((whole / "result.json").read_text())["results"]
    assert [of["accuracy"] for of in again["results"]] == [of["accuracy"] for of in original]
    assert again["results"][0]["paper_accuracy"] is not None
    rescore.rescore(workdir, "strict", "", "bubblewrap")
    assert (workdir / "rescored" / "2" / "flips.json").exists()  # beside the first
    with pytest.raises(InputError, match=r"copy: made under protocol '', whose max_new_tokens is 24"):
        rescore.rescore(workdir, "strict", "paper", "bubblewrap")
    with pytest.raises(InputError, match="--protocol: 'papper' is none of paper, nano"):
        rescore.rescore(workdir, "strict", "papper", "bubblewrap")
    assert not (workdir / "rescored" / "3").exists()


def _outcome_of_rescore(folder: pathlib.Path) -> tuple[dict, list]:
    return json.loads((folder / "result.json").read_text()), json.loads((folder / "flips.json").read_text())


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("generations/gsm8k/chat/greedy/000000-000008.parquet", None, "holds 4 completions of the 12 that were made"),
        ("generations/gsm8k/chat/greedy/000000-000008.parquet", b"PAR1", "000000-000008.parquet: damaged Parquet"),
        ("verdicts/gsm8k-chat-greedy.parquet", None, "gsm8k-chat-greedy.parquet: no such file"),
        ("verdicts/gsm8k-chat-greedy.parquet", b"", "gsm8k-chat-greedy.parquet: damaged Parquet"),
        ("items/gsm8k.jsonl", None, "gsm8k.jsonl: no such file"),
    ],
)
def test_a_missing_or_damaged_file_of_an_evaluation_is_named(whole, tmp_path, path, content, message):
    workdir = tmp_path / "copy"
    shutil.copytree(whole, workdir)
    (workdir / path).unlink()
    if content is not None:
        (workdir / path).write_bytes(content)
    with pytest.raises(InputError, match=message):
        rescore.rescore(workdir, "strict", "", "bubblewrap")


def test_runs_on_the_same_problems_are_compared_problem_by_problem(whole, overrides, tmp_path):
    other = tmp_path / "other"
    _run(overrides | {"seed": 5, "benchmarks": ("gsm8k",), "modes": ("chat",)}, other)
    greedy, samples = compare(whole, other)
    assert greedy["first"] == greedy["second"] and greedy["p"] == 1.0 and greedy["difference"] == 0  # no chance in it
    assert samples["difference"] == pytest.approx(samples["second"] - samples["first"])
    assert samples["low"] <= samples["difference"] <= samples["high"]
    assert len(samples["first_wins"]) + len(samples["second_wins"]) > 0
    assert "second wins" in draw_comparison([greedy, samples])
    fewer = tmp_path / "fewer"
    _run(overrides | {"num_problems": 6, "benchmarks": ("gsm8k",), "modes": ("chat",), "num_samples": 1}, fewer)
    with pytest.raises(InputError, match="not the problems of"):
        compare(whole, fewer)
    rescore.rescore(other, "both", "", "bubblewrap")
    assert compare(whole, other / "rescored" / "1") == [greedy, samples]
    path = other / "verdicts" / "gsm8k-chat-greedy.parquet"
    table = pyarrow.parquet.read_table(path)
    hashes, place = pyarrow.array(["0" * 16] * table.num_rows), table.column_names.index("prompt_hash")
    pyarrow.parquet.write_table(table.set_column(place, "prompt_hash", hashes), path)
    with pytest.raises(InputError, match=r"the prompt_hash of problem '.*' is another in"):
        compare(whole, other)
    _write_field(other / "protocol.json", "max_new_tokens", 99)
    with pytest.raises(InputError, match="its max_new_tokens is 99, and 24 that of"):
        compare(whole, other)


def _write_field(path: pathlib.Path, name: str, value: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


def test_completions_of_others_become_an_evaluation(folder, tmp_path):
    source = tasks.read_benchmark("gsm8k", folder, "test")
    ours = [{"id": source.items[0].id, "completion": ["\\boxed{1}", "\\boxed{2}"]}]
    harness = [{"doc": {"question": "How many b?"}, "resps": [["It is \\boxed{2}.", "none"]]}]
    messages = [{"role": "user", "content": "How many c?\nPlease reason step by step."}, {"role": "assistant"}]
    released = [{"messages": messages, "model_output": text} for text in ("\\boxed{5}", "\\boxed{3}")]
    path = tmp_path / "completions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in [*ours, *harness, *released]))
    workdir = tmp_path / "external"
    about = rescore.bring_in(workdir, str(path), source, "chat", 0, "strict")
    rescore.score(workdir, workdir, [about], "strict", "", "bubblewrap")
    result = json.loads((workdir / "result.json").read_text())
    assert result["accuracy"] == pytest.approx(2 / 3) and result["samples"] == 2
    assert result["results"][0]["coverage"] == "3 of 1,319" and result["pass_at"]["2"] == 1.0
    assert rescore.rescore(workdir, "strict", "", "bubblewrap") == []
    path.write_text(json.dumps({"question": "How many wolves?", "completion": "4"}))
    with pytest.raises(InputError, match=r"completions\.jsonl:1: neither its id nor its question"):
        rescore.bring_in(tmp_path / "another", str(path), source, "chat", 0, "strict")


def test_completions_of_others_go_on_where_they_were_killed_and_are_compared(folder, tmp_path):
    source = tasks.read_benchmark("gsm8k", folder, "test")
    path, workdir = tmp_path / "completions.jsonl", tmp_path / "external"
    path.write_text(json.dumps({"question": "How many a?", "completion": "\\boxed{1}"}))
    arguments = (workdir, str(path), source, "chat", 0)
    rescore.bring_in(*arguments, "strict")  # killed here
    with pytest.raises(InputError, match="external: holds other generations; name an empty folder"):
        rescore.bring_in(*arguments, "paper")
    about = rescore.bring_in(*arguments, "strict")
    rescore.score(workdir, workdir, [about], "strict", "", "bubblewrap")
    with pytest.raises(InputError, match="external: is an evaluation; leave out --external"):
        rescore.bring_in(*arguments, "strict")
    rescore.rescore(workdir, "both", "", "bubblewrap")
    (greedy,) = compare(workdir, workdir / "rescored" / "1")
    assert greedy["first"] == greedy["second"] == 1.0 and greedy["difference"] == 0


def test_the_golds_that_count_are_those_of_the_run_that_ends(folder, tmp_path):
    source = tasks.read_benchmark("gsm8k", folder, "test")
    path, workdir = tmp_path / "completions.jsonl", tmp_path / "external"
    records = [{"question": "How many a?", "completion": "\\boxed{7}"}]
    path.write_text(json.dumps(records[0]))
    items = tuple(dataclasses.replace(item, answer="7") for item in source.items)
    tasks.write_items(workdir, dataclasses.replace(source, items=items))  # killed here, with golds of old
    about = rescore.bring_in(workdir, str(path), source, "chat", 0, "strict")
    rescore.score(workdir, workdir, [about], "strict", "", "bubblewrap")
    assert json.loads((workdir / "result.json").read_text())["accuracy"] == 0
    records += [{"question": "How many b?", "completion": ["\\boxed{2}", "\\boxed{2}"]}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(InputError, match="some problems have 1 completions and some 2"):
        rescore.bring_in(tmp_path / "refused", str(path), source, "chat", 0, "strict")
    assert not (tmp_path / "refused" / "items").exists()


def test_completions_that_were_brought_in_for_other_problems_are_refused(folder, tmp_path):
    other = tmp_path / "benchmarks"
    shutil.copytree(folder, other)
    (tmp_path / "completions.jsonl").write_text(json.dumps({"question": "How many a?", "completion": "\\boxed{1}"}))
    arguments = [tmp_path / "external", str(tmp_path / "completions.jsonl"), None, "chat", 0, "strict"]
    arguments[2] = tasks.read_benchmark("gsm8k", other, "test")
    rescore.bring_in(*arguments)  # killed here
    with (other / "gsm8k" / "test.jsonl").open("a") as file:
        file.write(json.dumps({"question": "How many z?", "answer": "#### 1"}) + "\n")
    arguments[2] = tasks.read_benchmark("gsm8k", other, "test")
    with pytest.raises(InputError, match="external: holds other generations; name an empty folder"):
        rescore.bring_in(*arguments)


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ("minif2f", "--benchmark=minif2f: Isabelle checks its proofs, and --external has no setting of it"),
        ("gsm9k", "--benchmark: 'gsm9k' is no benchmark"),
    ],
)
def test_completions_that_cannot_be_graded_make_no_folder(tmp_path, benchmark, message):
    path, workdir = tmp_path / "completions.jsonl", tmp_path / "external"
    path.write_text(json.dumps({"id": "1", "completion": "by simp"}))
    flags = [f"--workdir={workdir}", f"--external={path}", f"--benchmark={benchmark}", "--mode=few_shot"]
    command = [sys.executable, "-m", "experiments.rescore", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmarks": ("gsm9k",)}, r"config\.benchmarks: 'gsm9k' is no benchmark; did you mean 'gsm8k'"),
        ({"benchmarks": ()}, r"config\.benchmarks: empty"),
        ({"benchmarks": ("gsm8k,gsm8k",)}, r"config\.benchmarks: 'gsm8k' is there twice"),
        ({"benchmarks": ("math",)}, r"config\.folder=.*math: no such folder"),
        ({"modes": ("chat", "quiz")}, r"config\.modes: 'quiz' is none of few_shot"),
        ({"benchmarks": ("gsm8k",), "modes": ("choice",)}, r"config\.modes: gsm8k has few_shot.*and choice is asked"),
        ({"length": 20}, r"config\.length: no prompt of gsm8k in the mode chat fits into 20 tokens"),
        ({"num_problems": -3}, r"config\.num_problems: -3 is negative; 0 is all"),
        ({"max_new_tokens": 0}, r"config\.max_new_tokens"),
        ({"sampled": ("gsm8k", "gsm9k")}, r"config\.sampled: 'gsm9k' is none of embedded, gsm8k"),
        ({"grader": "kind"}, r"config\.grader: 'kind' is none of strict, paper, both"),
        ({"published": "DeepSeekMath"}, r"config\.published: 'DeepSeekMath' is none of"),
        ({"temperature": -0.5}, r"config\.temperature: -0\.5 is negative"),
        ({"top_p": 0.0}, r"config\.top_p: 0\.0 is not in"),
        ({"tool.workers": 0}, r"config\.tool\.workers: 0 must be positive"),
        ({"tool.seconds": 0.0}, r"config\.tool\.seconds: 0\.0 must be positive"),
        ({"tool.test_seconds": -1.0}, r"config\.tool\.test_seconds: -1\.0 must be positive"),
        ({"protocol": "paper"}, r"config\.protocol: 'paper' has max_new_tokens 1024, and this config 24"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_any_work(overrides, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        _run(overrides | changes, tmp_path / "run")
    assert not (tmp_path / "run" / "lineage.json").exists()


def test_solutions_that_may_outgrow_the_context_are_told_of(caplog):
    source = tasks.Source("gsm8k", "GSM8K", "test", (), 1319, "1 of 1,319", ())
    task = tasks.Task(source, "chat", (), (), ([1] * 90,), ())
    evaluate.warn_of_length([task], 38, 128)
    evaluate.warn_of_length([task], 400, 0)  # nobody knows the context
    assert not caplog.records
    evaluate.warn_of_length([task], 40, 128)
    assert "may have 130 tokens, and config.length, the model's context, is 128" in caplog.text


@pytest.mark.slow
def test_every_benchmark_runs_in_all_of_its_modes_on_real_files(overrides, shared_data, tmp_path):
    names = [name for name in BENCHMARKS if (shared_data / "benchmarks" / name).is_dir() and name != "minif2f"]
    changes = {"benchmarks": tuple(names), "modes": MODES, "folder": str(shared_data / "benchmarks")}
    changes |= {"num_problems": 3, "num_samples": 2, "sampled": ("gsm8k", "humaneval"), "grader": "both"}
    result = _run(overrides | changes, tmp_path / "run")
    asked = {(of["benchmark"], of["mode"]) for of in result["results"]}
    assert asked == {(name, mode) for name in names for mode in modes_of(name)}
    for of in result["results"]:
        assert of["questions"] == 3 and of["coverage"] == f"3 of {of['upstream']:,}" and of["left_out"] == 0
        assert of["samples"] == (2 if of["benchmark"] in ("gsm8k", "humaneval") else 0)
    assert (tmp_path / "run" / "report.html").exists()
    assert rescore.rescore(tmp_path / "run", "both", "", "bubblewrap") == []


def test_programs_need_a_jail_before_anything_is_generated(overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="bubblewrap"):
        _run(overrides | {"benchmarks": ("gsm8k",), "modes": ("few_shot_pot",)}, tmp_path / "run")
    assert not (tmp_path / "run" / "generations").exists()


def test_proofs_need_isabelle_before_anything_is_generated(overrides, shared_data, tmp_path):
    changes = {"benchmarks": ("minif2f",), "modes": ("few_shot",), "folder": str(shared_data / "benchmarks")}
    with pytest.raises(InputError, match=r"config\.isabelle is empty, and miniF2F's proofs are checked by Isabelle"):
        _run(overrides | changes | {"num_problems": 2}, tmp_path / "run")
    assert not (tmp_path / "run" / "generations").exists()


def test_answers_to_other_prompts_are_refused(whole, overrides, tmp_path):
    workdir = tmp_path / "run"
    (file,) = list((whole / "generations/gsm8k/chat/greedy").glob("000000*.parquet"))
    copy = workdir / file.relative_to(whole)
    copy.parent.mkdir(parents=True)
    table = pyarrow.parquet.read_table(file)
    hashes = pyarrow.array(["0" * 16] * table.num_rows)
    place = table.column_names.index("prompt_hash")
    pyarrow.parquet.write_table(table.set_column(place, "prompt_hash", hashes), copy)
    with pytest.raises(InputError, match=r"parquet: answers other prompts than this run's"):
        _run(overrides, workdir)
