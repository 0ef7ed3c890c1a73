"""The embedded generator of problems."""

import operator
import re
from fractions import Fraction

import pytest

from dsmath.data import problems
from dsmath.reward.answers import extract_answer, is_equivalent

_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\\frac\{(\d+)\}\{(\d+)\}|\d+)")


@pytest.fixture(scope="module")
def records():
    return {split: problems.generate(split, 1500, seed=7) for split in ("train", "test")}


def _numbers(record):
    """The kind of problem and its numbers, which stand in the same order in both languages."""
    return record.source.split("/")[1], tuple(re.findall(r"\d+", record.question))


def test_train_and_test_share_no_numbers_across_languages(records):
    assert {record.language for record in records["test"]} == {record.language for record in records["train"]}
    assert {record.language for record in records["test"]} == {"en", "zh"}
    assert not set(map(_numbers, records["test"])) & set(map(_numbers, records["train"]))


def test_the_same_seed_gives_the_same_problems_and_another_seed_others(records):
    assert problems.generate("train", 1500, seed=7) == records["train"]
    assert problems.generate("train", 100, seed=8) != records["train"][:100]
    assert problems.generate("train", 100, seed=7) == records["train"][:100]


def test_problems_are_distinct(records):
    assert len({record.question for record in records["train"]}) == 1500


def test_answers_follow_from_the_worked_equations(records):
    worked = 0
    for record in records["train"]:
        value = None
        for left, sign, right, shown, top, bottom in _EQUATION.findall(record.solution):
            value = Fraction(_OPERATIONS[sign](Fraction(left), Fraction(right)))
            assert value == (Fraction(int(top), int(bottom)) if top else Fraction(shown)), record
        if value is not None:
            worked += 1
            assert Fraction(record.answer) == value, record
    assert worked > 500


def test_every_solution_boxes_the_gold_answer(records):
    for split in ("train", "test"):
        for record in records[split]:
            assert is_equivalent(extract_answer(record.solution), record.answer), record


def test_an_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="neither 'train' nor 'test'"):
        problems.generate("dev", 1, seed=0)


def test_load_gives_the_embedded_problems():
    assert problems.load("embedded", "test", count=5, seed=3) == problems.generate("test", 5, seed=3)
