"""Verdicts on completions."""

import dataclasses

import pytest

from dsmath.data.benchmarks.item import Item
from dsmath.evaluation.grading import Runner, Verdict, grade
from dsmath.runs.errors import InputError
from dsmath.sandbox import Pool

SUM = Item("gsm8k", "1", "What is 2 + 3?", "5")
MATH = Item("math", "1", "Find all roots.", "1, 2")
OCW = Item("ocw", "1", "How bright?", "4.5e33", subject="numeric")
CHOICE = Item("mmlu_stem", "1", "What is 2 + 3?", "B", choices=("4", "5", "AB", "\\frac{1}{2}"))
EXAM = Item("gaokao_mathqa", "1", "哪些正确", "AC", choices=("$1$", "$2$", "$3$", "$4$"), language="zh")
CLOZE = Item("gaokao_mathcloze", "1", "$x=(\\quad)$, $y=(\\quad)$", "$5$;$10$", language="zh")
TRUTH = Item("bbh", "1", "Does she lie?", "No", subject="web_of_lies")
BRACKETS = Item("bbh", "1", "( {", "} )", subject="dyck_languages")
TESTS = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(5) == 6\n"
FUNCTION = Item(
    "humaneval",
    "1",
    'import math\n\n\ndef more(x):\n    """One more."""\n',
    "",
    extra={"tests": TESTS, "setup": "", "entry_point": "more"},
)
TASK = Item("mbpp", "1", "One more.", "", extra={"tests": "assert more(1) == 2", "setup": "", "entry_point": ""})


@pytest.fixture(scope="module")
def runner() -> Runner:
    pool = Pool(2)
    yield Runner(pool, seconds=5, memory=1 << 30)
    pool.close()


def reason(item: Item, mode: str, completion: str, run: Runner | None = None) -> str:
    return grade(item, mode, completion, run=run).reason


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (" 2 + 3 = 5. The answer is 5.\n\nQuestion: What is 1 + 1?\nAnswer: The answer is 2.", "right"),
        (" The answer is 4. No, the answer is $5.", "right"),
        (" The answer is 5 apples. That is all.", "right"),
        (" It is $\\boxed{5}$.", "right"),
        (" The answer is 6.", "wrong"),
        (" 2 + 3 = 5", "no_answer"),
        (" The answer is", "no_answer"),
        ("", "no_answer"),
    ],
)
def test_a_base_model_answers_by_its_closing_sentence(completion, expected):
    assert reason(SUM, "few_shot", completion) == expected


def test_the_form_of_minerva_outranks_a_box():
    completion = "\nIt is $\\boxed{5}$.\nFinal Answer: The final answer is (B). I hope it is correct."
    assert grade(CHOICE, "few_shot", f"{completion}\n\nProblem:\nThe answer is (C)") == Verdict("B", True, "right")
    number = "\nAbout 7.\nFinal Answer: The final answer is $\\frac{10}{2}$. I hope it is correct."
    assert reason(dataclasses.replace(SUM, benchmark="math"), "few_shot", number) == "right"


def test_a_chat_answers_by_its_last_box():
    assert grade(SUM, "chat", " \\boxed{4}, no, $\\boxed{5}$.") == Verdict("5", True, "right")
    assert grade(SUM, "chat", " \\boxed{5}, no, $\\boxed{4}$.") == Verdict("4", False, "wrong")
    assert grade(SUM, "chat", " I do not know.") == Verdict(None, False, "no_answer")


def test_a_tool_integrated_answer_is_the_box_or_else_the_last_output():
    block = "```python\nprint('The answer is 7', 5)\n```\n```output\nWe get\n{}\n```\n"
    assert reason(SUM, "chat_tool", f" Compute.\n{block.format(5)}") == "right"
    assert reason(SUM, "chat_tool", f" Compute.\n{block.format(5)}So \\boxed{{6}}.") == "wrong"
    assert reason(SUM, "chat_tool", f" Compute.\n{block.format(6)}So \\boxed{{5}}.") == "right"
    assert reason(SUM, "chat_tool", " Compute.\n```python\nprint('the answer is 5')\n```\n") == "no_answer"


def test_what_is_said_before_a_program_does_not_stand_for_its_output():
    block = "```python\nprint(2 + 3)\n```\n```output\n{}\n```\n"
    announced = " The answer is computed by the program below.\n"
    assert grade(SUM, "chat_tool", announced + block.format(5)) == Verdict("5", True, "right")
    assert grade(SUM, "chat_tool", f" The answer is 5.\n{block.format(6)}") == Verdict("6", False, "wrong")
    assert reason(SUM, "chat_tool", f"{announced}{block.format(6)}The answer is 5.") == "right"
    assert reason(SUM, "chat_tool", f"{block.format(5)}{announced}{block.format(6)}It is so.") == "wrong"
    assert reason(SUM, "chat_tool", f" It is \\boxed{{5}}.\n{block.format(6)}") == "right"
    assert reason(SUM, "chat_tool", f" The answer is 5.\n{block.format('')}") == "right"  # nothing was printed


@pytest.mark.parametrize(
    ("item", "completion", "expected"),
    [
        (CHOICE, "\\boxed{B}", "right"),
        (CHOICE, "\\boxed{\\text{(B) } 5}", "right"),
        (CHOICE, "\\boxed{5}", "right"),
        (CHOICE, "\\boxed{5.0}", "right"),
        (CHOICE, "\\boxed{C}", "wrong"),
        (CHOICE, "\\boxed{AB}", "wrong"),
        (CHOICE, "\\boxed{0.5}", "wrong"),
        (CHOICE, "\\boxed{7}", "wrong"),
        (CHOICE, "I think so", "no_answer"),
        (dataclasses.replace(CHOICE, answer="C"), "\\boxed{AB}", "right"),
        (dataclasses.replace(CHOICE, answer="D"), "\\boxed{0.5}", "right"),
        (dataclasses.replace(CHOICE, choices=("5", "5", "6", "7")), "\\boxed{5}", "wrong"),
        (EXAM, "\\boxed{AC}", "right"),
        (EXAM, "答案是\\boxed{C、A}", "right"),
        (EXAM, "\\boxed{A}", "wrong"),
        (EXAM, "\\boxed{ABC}", "wrong"),
        (CHOICE, "\\boxed{b}", "right"),
        (CHOICE, "\\boxed{(b)}", "right"),
        (CHOICE, "\\boxed{c}", "wrong"),
        (CHOICE, "\\boxed{b+5}", "wrong"),
        (dataclasses.replace(CHOICE, choices=("b", "a", "c", "d"), answer="A"), "\\boxed{b}", "right"),
        (dataclasses.replace(CHOICE, choices=("b", "a", "c", "d")), "\\boxed{b}", "wrong"),
        (dataclasses.replace(CHOICE, choices=("x", "b", "$b$", "d")), "\\boxed{b}", "wrong"),
        (EXAM, "\\boxed{ac}", "right"),
        (EXAM, "\\boxed{a、c}", "right"),
        (dataclasses.replace(EXAM, answer="ABD"), "\\boxed{bad}", "wrong"),
    ],
)
def test_a_choice_counts_by_letters_or_by_the_only_option_of_that_text(item, completion, expected):
    assert reason(item, "chat", completion) == expected


def test_a_letter_by_likelihood_is_the_answer():
    assert grade(CHOICE, "choice", " B").correct and not grade(CHOICE, "choice", " A").correct
    assert grade(EXAM, "choice", "AC").correct
    assert grade(CHOICE, "choice", " b").correct and not grade(CHOICE, "choice", " a").correct
    mmlu = dataclasses.replace(CHOICE, benchmark="mmlu")
    assert grade(mmlu, "few_shot", " B\n\nWhat is") == Verdict("B", True, "right")


def test_a_closing_sentence_may_have_a_letter_in_lower_case():
    assert reason(CHOICE, "few_shot", " The final answer is (b).") == "right"
    assert reason(dataclasses.replace(EXAM, answer="C"), "few_shot", "\n答案是 c") == "right"
    assert reason(dataclasses.replace(CHOICE, benchmark="bbh"), "few_shot", " So the answer is (b).") == "right"


def test_parts_may_stand_in_boxes_of_their_own():
    assert reason(CLOZE, "chat", "$\\boxed{5}$ 和 $\\boxed{10}$") == "right"
    assert reason(CLOZE, "chat", "\\boxed{5; 10}") == "right"
    assert reason(CLOZE, "few_shot", "\n答案是 $5$;$10$") == "right"
    assert reason(CLOZE, "chat", "$\\boxed{10}$ 和 $\\boxed{5}$") == "wrong"
    assert reason(CLOZE, "chat", "\\boxed{10}") == "wrong"
    assert reason(MATH, "chat", "$\\boxed{2}$ or $\\boxed{1}$") == "right"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("4.5e33", "right"), ("4.53 \\times 10^{33}", "right"), ("4.6e33", "wrong"), ("4.5e32", "wrong"), ("x", "wrong")],
)
def test_numbers_of_ocw_may_differ_by_a_hundredth(answer, expected):
    assert reason(OCW, "chat", f"\\boxed{{{answer}}}") == expected
    negative = dataclasses.replace(OCW, answer="-4.5e33")
    assert reason(negative, "chat", f"\\boxed{{-{answer}}}") == expected


def test_no_other_benchmark_has_a_tolerance():
    assert reason(dataclasses.replace(OCW, benchmark="math"), "chat", "\\boxed{4.53e33}") == "wrong"


def test_targets_of_bbh_are_read_in_both_modes():
    assert reason(TRUTH, "few_shot", "\nShe says so. So the answer is No.\n\nQ: So the answer is Yes.") == "right"
    assert reason(TRUTH, "chat", "\\boxed{\\text{No}}") == "right"
    assert reason(TRUTH, "chat", "\\boxed{Yes}") == "wrong"
    assert reason(BRACKETS, "few_shot", "\nOpen are ( {. So the answer is } ).") == "right"
    assert (
        reason(BRACKETS, "chat", "$\\boxed{\\} )}$") == "right" and reason(BRACKETS, "chat", "\\boxed{} )}") == "right"
    )
    assert reason(BRACKETS, "chat", "\\boxed{) \\}}") == "wrong"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("\nprint('adding')\nprint(2 + 3)\n```\n\nProblem:\n", "right"),
        ("\nfrom sympy import Rational\nprint(Rational(10, 2))", "right"),
        ("\nprint(6)", "wrong"),
        ("\nanswer = 5", "no_answer"),
        ("", "no_answer"),
        ("\nprint(5)\n1 / 0", "error"),
        ("\nprint(5", "error"),
    ],
)
def test_a_program_answers_by_its_last_line(program, expected, runner):
    verdict = grade(SUM, "few_shot_pot", program, run=runner)
    assert verdict.reason == expected
    assert bool(verdict.detail) == (expected == "error")


def test_a_printed_value_may_take_several_lines(runner):
    item = dataclasses.replace(SUM, answer="\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}")
    program = "\nprint('We get')\nprint('[[1, 2],\\n [3, 4]]')"
    assert grade(item, "few_shot_pot", program, run=runner) == Verdict("[[1, 2],\n[3, 4]]", True, "right")


def test_a_program_without_end_is_told_from_a_wrong_one(runner):
    assert reason(SUM, "few_shot_pot", "\nwhile True: pass", dataclasses.replace(runner, seconds=0.5)) == "timeout"


PRINTED = [  # gold, output, verdict
    *[("-1,1", "[-1, 1]", "right"), ("\\{-1, 1\\}", "[1, -1]", "right"), ("[-1,1]", "[-1, 1]", "right")],
    *[("(-1,1)", "[-1, 1]", "wrong"), ("(-1,1]", "[-1, 1]", "wrong"), ("1,3", "[-1, 1]", "wrong")],
    *[("(1,2)", "[(1, 2)]", "right"), ("(2,1)", "[(1, 2)]", "wrong"), ("(1,2), (3,4)", "[(1, 2), (3, 4)]", "right")],
    *[("(1,2)", "[[1, 2]]", "wrong"), ("1", "[1, 2]", "wrong"), ("5", "[5]", "right"), ("\\emptyset", "[]", "right")],
    *[("3+4i", "3 + 4*I", "right"), ("3+4i", "(3+4j)", "right"), ("3-4i", "3 + 4*I", "wrong"), ("2i", "2*I", "right")],
    *[("\\pm i", "[-I, I]", "right"), ("\\infty", "oo", "right"), ("\\infty", "-oo", "wrong")],
]


@pytest.mark.parametrize(("gold", "output", "expected"), PRINTED)
def test_what_python_and_sympy_print_is_read(gold, output, expected, runner):
    item = dataclasses.replace(MATH, answer=gold)
    assert reason(item, "chat_tool", f" ```python\nprint(x)\n```\n```output\n{output}\n```\n") == expected
    assert reason(item, "few_shot_pot", f"\nprint({output!r})", runner) == expected


def test_what_is_written_in_words_is_no_output():
    assert reason(dataclasses.replace(MATH, answer="-1,1"), "chat_tool", " It is \\boxed{[-1, 1]}.") == "wrong"


@pytest.mark.parametrize(
    ("program", "strict", "paper"),
    [
        ("print(5)\nexit()", "right", "error"),
        ("print(5)\nquit(0)", "right", "error"),
        ("import sys\nprint(5)\nsys.exit(0)\nprint(6)", "right", "error"),
        ("print(6)\nraise SystemExit", "wrong", "error"),
        ("print(5)\nexit(1)", "error", "error"),
        ("print(5)\nexit('no solution')", "error", "error"),
        ("exit()", "error", "error"),
        ("from __future__ import annotations\nprint(5)", "right", "right"),
    ],
)
def test_a_program_may_end_itself_once_it_has_answered(program, strict, paper, runner):
    for grader, expected in (("strict", strict), ("paper", paper)):
        assert grade(SUM, "few_shot_pot", f"\n{program}", grader=grader, run=runner).reason == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("    return x + 1\n\n\ndef unrelated(", "right"),
        ("    return math.floor(x + 1)\n", "right"),
        ("    return 2\n", "wrong"),
        ("    return x +\n", "error"),
        ("", "no_answer"),
    ],
)
def test_a_function_is_completed_and_tested(body, expected, runner):
    assert reason(FUNCTION, "few_shot", body, runner) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("```python\ndef more(x):\n    return math.floor(x + 1)\n```\nTry it:\n```python\nmore(1)\n```", "right"),
        ("First:\n```\npip install more\n```\n```py\ndef more(x):\n    return x + 1\n", "right"),
        ("```python\ndef more(x):\n    return x\n```", "wrong"),
        ("def more(x): return x + 1", "no_answer"),
    ],
)
def test_a_chat_writes_the_function_in_a_block(answer, expected, runner):
    assert reason(FUNCTION, "chat", f" {answer}", runner) == expected


def test_mbpp_is_tested_by_its_assertions(runner):
    assert reason(TASK, "few_shot", "\ndef more(x):\n    return x + 1\n[DONE]\n\nYou are", runner) == "right"
    assert reason(TASK, "few_shot", "\ndef more(x):\n    return x\n[DONE]", runner) == "wrong"
    assert reason(TASK, "chat", " ```python\ndef more(x): return x + 1\n```", runner) == "right"


@pytest.mark.parametrize(
    ("item", "mode", "completion", "strict", "paper"),
    [
        (SUM, "few_shot", " It is 5", "no_answer", "right"),  # the last number
        (SUM, "chat", " \\boxed{5}", "right", "right"),
        (EXAM, "few_shot", "\n答案是 AC", "right", "wrong"),  # several letters never score
        (
            dataclasses.replace(OCW, answer="-10"),
            "few_shot",
            "\nThe final answer is -10. I hope it is correct.",
            "right",
            "wrong",
        ),
        (dataclasses.replace(SUM, benchmark="cmath", answer="1/2"), "few_shot", "所以答案是：1/2。", "right", "wrong"),
        (TRUTH, "chat", "\\boxed{No}", "right", "right"),  # no convention: as strict
        (CHOICE, "chat", "\\boxed{B}", "right", "right"),
    ],
)
def test_the_papers_grader_has_the_conventions_of_the_released_evaluation(item, mode, completion, strict, paper):
    assert grade(item, mode, completion, grader="strict").reason == strict
    assert grade(item, mode, completion, grader="paper").reason == paper


def test_the_papers_grader_compares_what_a_program_printed(runner):
    for grader, expected in (("strict", "wrong"), ("paper", "right")):
        assert grade(SUM, "few_shot_pot", "\nprint(5.0004)", grader=grader, run=runner).reason == expected


def test_what_cannot_be_graded_is_refused():
    with pytest.raises(InputError, match="humaneval in the mode few_shot is graded by running programs"):
        grade(FUNCTION, "few_shot", "    return x")
    with pytest.raises(InputError, match="gsm8k has no mode 'choice'"):
        grade(SUM, "choice", "5")
    with pytest.raises(InputError, match="no grader 'kind', but strict, paper"):
        grade(SUM, "chat", "5", grader="kind")
    with pytest.raises(InputError, match="minif2f is graded by Isabelle"):
        grade(Item("minif2f", "1", "Show it.", ""), "few_shot", "by simp")
