"""The embedded generator of problems with large numbers."""

import ast
import operator
import re

import pytest

from dsmath.data import large_problems, problems
from dsmath.data.documents import prepare
from dsmath.data.tokenizer import Tokenizer
from dsmath.data.turns import BLOCK, split_turns
from dsmath.reward.answers import extract_answer, is_equivalent
from dsmath.runs.errors import InputError

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


@pytest.fixture(scope="module")
def records():
    return {split: large_problems.generate(split, 400, 7, large_problems.KINDS) for split in ("train", "test")}


def _compute(node):
    """The value of an expression of whole numbers."""
    if isinstance(node, ast.Constant):
        return node.value
    return _OPERATIONS[type(node.op)](_compute(node.left), _compute(node.right))


def _value(program):
    call = ast.parse(program).body[0].value
    assert call.func.id == "print"
    return str(_compute(call.args[0]))


def test_every_question_has_a_solution_of_each_kind(records):
    for of_split in records.values():
        assert [record.kind for record in of_split] == ["cot", "pot", "tir"] * 400
        assert len({record.question for record in of_split}) == 400
        assert {record.language for record in of_split} == {"en", "zh"}
        for cot, pot, tir in zip(of_split[::3], of_split[1::3], of_split[2::3], strict=True):
            assert (cot.question, cot.answer) == (pot.question, pot.answer) == (tir.question, tir.answer)


def test_every_solution_reaches_the_answer(records):
    for record in records["train"] + records["test"]:
        if record.kind == "cot":
            equations = re.findall(r"(\d+)([-+*])(\d+)=(\d+)", record.solution)
            assert len(equations) >= 2
            for left, sign, right, shown in equations:
                assert _value(f"print({left}{sign}{right})") == shown
        else:
            assert _value(BLOCK.search(record.solution + "\n")[1]) == record.answer
        if record.kind == "tir":
            assert split_turns(record.solution)[1] == (f"```output\n{record.answer}\n```\n", True)
        if record.kind != "pot":
            assert is_equivalent(extract_answer(record.solution), record.answer)


def test_the_numbers_are_large(records):
    assert min(int(record.answer) for record in records["train"]) >= 1
    assert sorted(int(record.answer) for record in records["train"])[600] > 10_000


def test_train_and_test_share_no_numbers(records):
    def numbers(record):
        return record.source.split("/")[1], tuple(re.findall(r"\d+", record.question))

    assert not set(map(numbers, records["test"])) & set(map(numbers, records["train"]))
    assert records["test"] == large_problems.generate("test", 400, 7, large_problems.KINDS)
    assert records["test"][::3] == problems.load("embedded_large", "test", count=400, seed=7)


def test_the_workbook_holds_training_problems_with_work_and_with_programs(records, tmp_path):
    pages = list(large_problems.documents(100, seed=0))
    text = "\n".join(pages)
    assert 100 < text.count("```output") < 300
    assert not any(record.question in text for record in records["test"])
    tokenizer = Tokenizer.train(pages, vocab_size=600)
    folder = {"workbook": "embedded_large"}
    source = prepare(folder, tmp_path, tokenizer, num_embedded=5, seed=0)["workbook"]
    assert sorted(tokenizer.decode(source[index]["tokens"]) for index in range(5)) == sorted(pages[:5])


def test_a_kind_that_problems_lack_is_an_error():
    with pytest.raises(InputError, match=r"config\.kinds: 'tir' is no kind .*'embedded' has, only cot"):
        problems.load("embedded", "train", count=5, seed=0, kinds=("cot", "tir"))
    with pytest.raises(InputError, match=r"config\.kinds: is empty"):
        problems.load("embedded_large", "train", count=5, seed=0, kinds=())
    with pytest.raises(InputError, match=r"config\.num_problems: 0 must be at least 1"):
        problems.load("embedded_large", "train", count=0, seed=0)
