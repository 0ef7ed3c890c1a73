"""Completions of other programs: whose they are, and what is refused."""

import json
import pathlib

import pytest

from dsmath.data.benchmarks.item import Item
from dsmath.evaluation.external import read_completions
from dsmath.runs.errors import InputError

ITEMS = [
    Item("ocw", "0", "How many a?", "1"),
    Item("ocw", "1", "How many b?", "2"),
    Item("ocw", "5", "Which is it?", "A", choices=("x", "y")),
    Item("ocw", "6", "Which is it?", "B", choices=("y", "z")),
]


def _read(folder: pathlib.Path, *records: object) -> dict[str, list[str]]:
    path = folder / "completions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_completions(path, ITEMS)


def test_a_question_says_whose_a_completion_is_where_the_id_is_a_number_of_the_record(tmp_path):
    found = _read(tmp_path, {"id": 0, "question": "How many b?", "completion": "2"})
    assert found == {"1": ["2"]}


def test_an_id_tells_problems_with_the_same_question_apart(tmp_path):
    assert _read(tmp_path, {"id": "6", "question": "Which is it?", "completion": "B"}) == {"6": ["B"]}
    with pytest.raises(InputError, match=r"jsonl:1: 2 problems have its question; give the id, one of 5, 6"):
        _read(tmp_path, {"question": "Which is it?", "completion": "B"})


def test_an_id_is_enough_where_the_question_stands_among_other_words(tmp_path):
    assert _read(tmp_path, {"id": "0", "completion": "1"}) == {"0": ["1"]}
    assert _read(tmp_path, {"id": "0", "question": "Solve.\nHow  many a?", "completion": "1"}) == {"0": ["1"]}


def test_a_file_of_another_benchmark_is_refused_though_its_ids_are_known(tmp_path):
    with pytest.raises(InputError, match=r"jsonl:1: its question is not that of the problem '1'"):
        _read(tmp_path, {"id": "1", "question": "How many wolves?", "completion": "2"})


@pytest.mark.parametrize(
    "messages", ["hello", ["hello"], [{"role": "user"}], [{"role": "user", "content": [{"type": "text"}]}], {"a": 1}]
)
def test_messages_of_other_shapes_are_refused_in_a_line(tmp_path, messages):
    with pytest.raises(InputError, match=r"jsonl:1: neither its id nor its question"):
        _read(tmp_path, {"messages": messages, "model_output": "5"})
