"""Solution records, their file and the prompts around them."""

import pytest

from dsmath.data.solutions import Solution, chat_prompt, read_solutions, write_solutions
from dsmath.runs.errors import InputError

_PROMPTS = {  # DeepSeekMath §3 and the released models' cards
    ("cot", "en"): "User: Q\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:",
    ("cot", "zh"): "User: Q\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。\n\nAssistant:",
    ("tir", "en"): (
        "User: Q\nPlease integrate natural language reasoning with programs to solve the problem above, "
        "and put your final answer within \\boxed{}.\n\nAssistant:"
    ),
    ("tir", "zh"): "User: Q\n请结合自然语言和Python程序语言来解答问题，并把最终答案放置于\\boxed{}中。\n\nAssistant:",
}


@pytest.mark.parametrize(("kind", "language"), _PROMPTS)
def test_prompts_are_those_of_the_released_models(kind, language):
    assert chat_prompt("Q", language, kind) == _PROMPTS[kind, language]


def test_programs_have_the_tool_prompt():
    assert chat_prompt("Q", "en", "pot") == chat_prompt("Q", "en", "tir")


def test_records_survive_the_file(tmp_path):
    records = [
        Solution("1+1?", "2", "line\nThe answer is \\boxed{2}.", source="a"),
        Solution("一加一？", "2", "答案是\\boxed{2}。", kind="tir", language="zh"),
    ]
    write_solutions(tmp_path / "deep" / "solutions.jsonl", records)
    assert read_solutions(tmp_path / "deep" / "solutions.jsonl") == records


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"s\.jsonl:2: no JSON record"),
        ('{"question": "?", "answer": "1"}', r"s\.jsonl:2: .*'solution'"),
        ('{"question": "?", "answer": "1", "solution": "1", "colour": "red"}', r"s\.jsonl:2: .*'colour'"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, line, message):
    (tmp_path / "s.jsonl").write_text('{"question": "?", "answer": "1", "solution": "1"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        read_solutions(tmp_path / "s.jsonl")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent"):
        read_solutions(tmp_path / "absent.jsonl")
