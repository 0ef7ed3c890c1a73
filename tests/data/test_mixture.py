"""Mixtures of solutions: files, workdirs and folders of problems, each so often as is wanted."""

import json

import pytest

from dsmath.data import mixture
from dsmath.data.solutions import SOLUTIONS, Solution, write_solutions
from dsmath.runs.errors import InputError


def _solutions(name, count):
    return [Solution(f"{name} {number}?", "1", "\\boxed{1}", source=name) for number in range(count)]


@pytest.fixture
def places(tmp_path):
    write_solutions(tmp_path / "a.jsonl", _solutions("a", 4))
    write_solutions(tmp_path / "b" / SOLUTIONS, _solutions("b", 3))
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text(json.dumps({"question": "c?", "answer": "#### 1"}))
    return {"a": str(tmp_path / "a.jsonl"), "b": str(tmp_path / "b"), "c": str(tmp_path / "gsm8k")}


def _counts(records):
    return {name: sum(record.source.startswith(name) for record in records) for name in ("a", "b", "gsm8k")}


def test_each_place_comes_so_often_as_is_wanted(places):
    assert _counts(mixture.load(places, {}, 0)) == {"a": 4, "b": 3, "gsm8k": 1}
    mixed = mixture.load(places, {"a": 0.5, "b": 2, "c": 1.4}, 0)
    assert _counts(mixed) == {"a": 2, "b": 6, "gsm8k": 1}
    assert mixed == mixture.load(places, {"a": 0.5, "b": 2, "c": 1.4}, 0)
    assert any(mixed[:2] != mixture.load(places, {"a": 0.5}, seed)[:2] for seed in range(1, 5))


def test_the_files_are_named_for_the_lineage(places):
    assert [path.name for path in mixture.files(places)] == ["a.jsonl", SOLUTIONS, "train.jsonl"]


def test_what_is_wrong_is_named(places, tmp_path):
    with pytest.raises(InputError, match=r"config\.repeats: 'x' is no name of config\.solutions \(a, b, c\)"):
        mixture.load(places, {"x": 1}, 0)
    with pytest.raises(InputError, match=r"config\.repeats\.a: 0 must be positive"):
        mixture.load(places, {"a": 0}, 0)
    with pytest.raises(InputError, match=r"absent: no such folder"):
        mixture.load({"a": str(tmp_path / "absent")}, {}, 0)
    write_solutions(tmp_path / "none.jsonl", [])
    with pytest.raises(InputError, match=r"config\.solutions\.a=.*none\.jsonl.*: holds no solution"):
        mixture.load({"a": str(tmp_path / "none.jsonl")}, {}, 0)
    (tmp_path / "odd.jsonl").write_text('{"question": "?", "answer": "1", "solution": "1", "kind": "essay"}\n')
    with pytest.raises(InputError, match=r"odd\.jsonl:1: kind 'essay' is none of cot, pot, tir"):
        mixture.load({"a": str(tmp_path / "odd.jsonl")}, {}, 0)
    (tmp_path / "odd.jsonl").write_text('{"question": "?", "answer": 1, "solution": "1"}\n')
    with pytest.raises(InputError, match=r"odd\.jsonl:1: answer is 1, not a text"):
        mixture.load({"a": str(tmp_path / "odd.jsonl")}, {}, 0)
