"""Each public form of an instruction set, in small records of our own."""

import time

import pytest

from dsmath.data.instructions.formats import Rejected, box_answer, read_record, strip_request

TIR = "We compute it.\n```python\nprint(6 * 7)\n```\n```output\n42\n```\nThe answer is $\\boxed{42}$."


def _read(**record):
    (draft,) = read_record(record, "file")
    return draft


def test_mathinstruct_holds_work_and_programs():
    cot = _read(source="data/CoT/a.json", instruction="How much is 1+1?", output="1+1=2. The answer is 2")
    assert (cot.kind, cot.source, cot.golds, cot.language) == ("cot", "data/CoT/a.json", (), "en")
    program = "def solve():\n  return 1 + 1\nprint(solve())"
    pot = _read(
        source="data/PoT/a.json",
        instruction="How much is 1+1? Let's write a Python program to solve it.",
        input="",
        output=program,
    )
    assert (pot.kind, pot.question, pot.solution) == ("pot", "How much is 1+1?", program)


def test_lila_holds_several_programs_and_answers():
    record = {
        "Input": "1+1?",
        "Output Program": ["print(2)", "print(1+1)"],
        "Output Answer": [2, "2.0"],
        "dataset": "x",
    }
    first, second = read_record(record, "file")
    assert (first.kind, first.golds, first.source) == ("pot", ("2", "2.0"), "x")
    assert second.solution == "print(1+1)"
    assert _read(question="1+1?", program="a = 1\nprint(a + a)", answer=2).golds == ("2",)


def test_tora_as_text_and_as_turns_is_the_same():
    text = _read(question="How much is 6*7?", solution=TIR, answer="42")
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How much is 6*7?"},
        {"role": "assistant", "content": "We compute it.\n```python\nprint(6 * 7)\n```"},
        {"role": "user", "content": "```output\n42\n```"},
        {"role": "assistant", "content": "The answer is $\\boxed{42}$."},
    ]
    chat = _read(messages=turns, answer="42")
    assert text == chat
    assert (text.kind, text.solution) == ("tir", TIR)
    shares = [{"from": "human", "value": "How much is 6*7?"}, {"from": "gpt", "value": TIR}]
    assert _read(conversations=shares, answer="42") == text


def test_numina_takes_the_telling_with_code():
    chat = [{"role": "user", "content": "How much is 6*7?"}, {"role": "assistant", "content": TIR}]
    draft = _read(problem="How much is 6*7?", solution="It is 42.", messages=chat, source="synthetic_math")
    assert (draft.kind, draft.solution, draft.source) == ("tir", TIR, "synthetic_math")
    assert _read(problem="6*7?", solution="$\\boxed{42}$", messages=chat).kind == "tir"
    assert _read(problem="6*7?", solution="$\\boxed{42}$", messages=chat[:1]).kind == "cot"


def test_work_before_an_answer_is_a_solution():
    draft = _read(question="How much is 6*7?", answer="6*7=<<6*7=42>>42\n#### 42")
    assert (draft.solution, draft.golds, draft.kind) == ("6*7=42\n#### 42", ("42",), "cot")


def test_metamath_and_chinese_are_read():
    draft = _read(query="How?", response="6*7=42\n#### 42\nThe answer is: 42", type="GSM_AnsAug")
    assert (draft.kind, draft.source) == ("cot", "GSM_AnsAug")
    assert _read(question="小明有几个苹果？", solution="答案是3。").language == "zh"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"answer": "2"}, "no_question"),
        ({"question": " ", "solution": "2"}, "no_question"),
        ({"question": "1+1?", "answer": "2"}, "no_solution"),
        ({"question": "1+1?", "solution": None, "messages": "x"}, "no_solution"),
        ({"messages": [{"role": "user", "content": "Hi"}, "x"]}, "damaged"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": ["x"]}]}, "damaged"),
        ({"messages": [{"role": r, "content": "Hi"} for r in ("user", "assistant", "user")]}, "conversation"),
        ({"question": "1+1?", "solution": "So:\n```python\nprint(2)\n```\nIt is \\boxed{2}."}, "no_output"),
        ({"question": "1+1?", "solution": f"{TIR}\n```python\nprint(2)\n```"}, "no_output"),
    ],
)
def test_what_is_no_solution_is_rejected_with_its_reason(record, reason):
    with pytest.raises(Rejected, match=f"^{reason}$"):
        read_record(record, "file")


def test_a_lone_fenced_program_is_a_program():
    assert _read(question="1+1?", solution="```python\nprint(2)\n```").kind == "pot"
    assert _read(question="1+1?", solution="while True:\n  x = 2").kind == "pot"
    assert _read(question="1+1?", solution="x = 2").kind == "cot"


@pytest.mark.parametrize(
    "request_",
    [
        " Please write a python program to solve it.",
        "\nLet's program in Python in the response.",
        "\nPlease reason step by step, and put your final answer within \\boxed{}.",
        "\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。",
    ],
)
def test_requests_go(request_):
    assert strip_request(f"What is 1.5+1?{request_}") == "What is 1.5+1?"
    assert strip_request("Please add 1 and 1.") == "Please add 1 and 1."


@pytest.mark.parametrize(
    ("question", "stripped"),
    [
        ("Please, what is code?", "Please, what is code?"),  # nothing but a request
        ("Please add. Then what? Let us see it step by step. Thanks!", "Please add. Then what?"),
        ("Is it please let's please a program.", "Is it"),
        ("Let's write a program.\nHow long is it?", "Let's write a program.\nHow long is it?"),
        ("Pleased by python? \n\n LET'S use Python 3.11!", "Pleased by python?"),
        ("请问几个？请写程序。", "请问几个？"),
        ("几个？ \n请逐步推理。Please write code.", "几个？"),
    ],
)
def test_a_request_is_the_end_of_the_last_line(question, stripped):
    assert strip_request(question) == stripped


@pytest.mark.parametrize(
    "part", [" ", "\n", " \n", "please ", "please. ", "please code\n", "let us", "请", "请。", "."]
)
def test_a_long_question_takes_no_longer_than_its_length(part):
    question = f"a{part * (200_000 // len(part))}b"
    started = time.perf_counter()
    assert strip_request(question) == question
    assert time.perf_counter() - started < 5  # by the square it was minutes


@pytest.mark.parametrize(
    ("solution", "boxed"),
    [
        ("6*7=42\n#### 42\nThe answer is: 42", "6*7=42\nThe answer is \\boxed{42}."),
        ("6*7=42. So the answer is 42.", "6*7=42.\nThe answer is \\boxed{42}."),
        (
            "The answer is a number. It is 6*7. The answer is 42.",
            "The answer is a number. It is 6*7.\nThe answer is \\boxed{42}.",
        ),
        ("The answer is 42.0", "The answer is \\boxed{42}."),
        ("It is $\\boxed{42}$.", "It is $\\boxed{42}$."),
    ],
)
def test_the_last_line_boxes_the_answer(solution, boxed):
    assert box_answer(solution, "42", "en") == boxed


def test_a_chinese_answer_is_boxed():
    assert box_answer("先算6*7=42。所以答案是42。", "42", "zh") == "先算6*7=42。\n答案是\\boxed{42}。"
