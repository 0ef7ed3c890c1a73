"""The catalogue: names, files, how much of upstream is here, and what is said where something is missing."""

import json

import pytest

from dsmath.data.benchmarks import catalog
from dsmath.runs.errors import InputError

# How many records of the files beside the project belong to the split, where the file is there.
HERE = {
    ("gsm8k", "test"): 916,
    ("gsm8k", "train"): 7473,
    ("math", "test"): 3551,
    ("math", "train"): 7500,
    ("math", "math500"): 365,
    ("ocw", "test"): 199,
    ("sat", "test"): 23,
    ("mmlu_stem", "test"): 2120,
    ("mgsm_zh", "test"): 166,
    ("cmath", "test"): 751,
    ("gaokao_mathcloze", "test"): 89,
    ("gaokao_mathqa", "test"): 251,
    ("minif2f", "test"): 161,
    ("minif2f", "validation"): 244,
    ("bbh", "test"): 4365,
    ("humaneval", "test"): 164,
    ("mbpp", "test"): 358,
    ("mbpp", "prompt"): 10,
    ("mbpp", "validation"): 90,
    ("mbpp", "train"): 374,
}


@pytest.mark.parametrize(("name", "split"), HERE, ids=lambda value: value)
def test_every_real_record_is_an_item(shared_data, name, split):
    items = catalog.read(name, shared_data / "benchmarks", split)
    benchmark = catalog.BENCHMARKS[name]
    assert len(items) == HERE[name, split] <= benchmark.sizes[split]
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert (item.benchmark, item.language) == (name, benchmark.language)
        assert item.question and item.id == item.id.strip()
        assert bool(item.answer) == (benchmark.kind not in ("code", "proof")) or item.solution.count("\\boxed{}")
        assert bool(item.choices) == (benchmark.kind == "choice") or name == "bbh"
        if item.choices:
            assert all(item.choices) and set(item.answer) <= set("ABCDEFGHIJKLMNOPQR"[: len(item.choices)])
        if benchmark.kind == "code":
            assert "assert" in item.extra["tests"] and "\r" not in item.solution
        if benchmark.kind == "proof":
            assert item.extra["formal_statement"].startswith(f"theorem {item.extra['problem_name']}")


def test_a_subset_is_told():
    items = [None] * 916
    assert catalog.coverage("gsm8k", "test", items) == "916 of 1,319"
    assert catalog.coverage("humaneval", "test", [None] * 164) == "all 164"


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"'GSM-8K' is no benchmark; did you mean 'gsm8k'\? known are gsm8k, math"):
        catalog.read("GSM-8K", ".")
    with pytest.raises(InputError, match=r"gsm8k has no split 'dev'; known are test, train"):
        catalog.read("gsm8k", ".", "dev")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"sat: no such folder; put SAT's files there, from https://github\.com"):
        catalog.read("sat", tmp_path)
    (tmp_path / "sat").mkdir()
    with pytest.raises(InputError, match=r"sat/test\.jsonl: no such file; fetch SAT \(test\) from https://github\.com"):
        catalog.read("sat", tmp_path)


def test_a_split_without_records_is_named(tmp_path):
    (tmp_path / "mbpp").mkdir()
    record = {"text": "Add.", "code": "1", "task_id": 3, "test_setup_code": "", "test_list": ["assert 1"]}
    (tmp_path / "mbpp" / "mbpp.jsonl").write_text(json.dumps(record))
    assert len(catalog.read("mbpp", tmp_path, "prompt")) == 1
    with pytest.raises(InputError, match=r"mbpp\.jsonl: holds no record of the split 'test'"):
        catalog.read("mbpp", tmp_path)


def test_problems_that_stand_twice_are_told_apart(tmp_path):
    (tmp_path / "cmath").mkdir()
    record = json.dumps({"grade": 1, "question": "1+1=?", "golden": "2"})
    (tmp_path / "cmath" / "test.jsonl").write_text(f"{record}\n{record}\n")
    first, second = catalog.read("cmath", tmp_path)
    assert second.id == f"{first.id}-2"
