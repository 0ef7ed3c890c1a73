"""Drafts pass where their answer is the gold and their code does what they say."""

import contextlib
import dataclasses
import io

import pytest

from dsmath.data.instructions.checking import Checks, check, question_key
from dsmath.data.instructions.duplicates import find_duplicates
from dsmath.data.instructions.formats import Draft, Rejected
from dsmath.data.instructions.statistics import count_outcomes, describe_lengths, write_table
from dsmath.data.solutions import Solution
from dsmath.reward.answers import extract_answer, is_equivalent


def _run(blocks):
    """Our own programs, in this process; the driver's test runs them in the jail."""
    found, state = [], {}
    for block in blocks:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(block, state)
        except Exception as error:
            found.append((f"{type(error).__name__}: {error}", True))
        else:
            found.append((printed.getvalue(), False))
    return found


CHECKS = Checks(
    extract=extract_answer,
    equals=is_equivalent,
    run=_run,
    is_benchmark=lambda text: "Janet" in text,
    golds={question_key("How much is 6*7?"): "42"},
)
COT = Draft("How much?", "6*7=42. The answer is 42.", "cot", "en", "set", ())


def _tir(code, output, final="It is \\boxed{42}."):
    solution = f"```python\n{code}\n```\n```output\n{output}\n```\n{final}"
    return dataclasses.replace(COT, solution=solution, kind="tir")


def _check(draft=COT, **changes):
    return check(dataclasses.replace(draft, **changes), CHECKS)


def _reason(draft=COT, **changes):
    with pytest.raises(Rejected) as error:
        _check(draft, **changes)
    return str(error.value)


def test_work_is_compared_with_the_gold_that_is_known():
    solution, witness = _check()
    assert (solution.answer, witness) == ("42", "itself")
    assert solution.solution == "6*7=42.\nThe answer is \\boxed{42}."
    solution, witness = _check(golds=("7", "\\frac{84}{2}"))
    assert (solution.answer, witness) == ("\\frac{84}{2}", "set")
    assert _check(golds=("Work.\n#### 42",))[0].answer == "42"
    assert _check(question="How much is  6*7?")[1] == "benchmark"
    assert _reason(golds=("41",)) == "wrong_answer"
    assert _reason(question="how much is 6*7?", solution="The answer is 41.") == "wrong_answer"
    assert _reason(solution="I do not know.") == "no_answer"
    assert _reason(question="How much has Janet?") == "contaminated"


def test_programs_print_the_gold():
    pot = dataclasses.replace(COT, solution="print(6 * 7)", kind="pot", golds=("42",))
    solution, _ = _check(pot)
    assert (solution.solution, solution.answer) == ("```python\nprint(6 * 7)\n```", "42")
    assert _check(pot, solution="print('so')\nprint('The answer is 42.0')")[0].answer == "42"
    assert _reason(pot, solution="print(6 + 7)") == "wrong_answer"
    assert _reason(pot, solution="print(1 / 0)") == "fails"
    assert _reason(pot, solution="x = 42") == "prints_nothing"


def test_turns_print_what_they_tell():
    assert _check(_tir("print(6 * 7)", "42"))[0].kind == "tir"
    assert _check(_tir("print(6 * 7 / 1)", "42"))[0].answer == "42"
    assert _check(_tir("print(1 / 0)", "Traceback …\nZeroDivisionError: division by zero"))[0].answer == "42"
    assert _reason(_tir("print(6 * 7)", "43")) == "other_output"
    assert _reason(_tir("print(1 / 0)", "42")) == "other_output"
    assert _reason(_tir("print(6 * 7)", "42", "So it is.")) == "no_answer"
    two = f"{_tir('x = 6', '').solution}\n{_tir('print(x * 7)', '42').solution}"
    assert _check(_tir("", ""), solution=two)[0].answer == "42"  # blocks share a state


def test_equal_and_nearly_equal_solutions_go_but_not_those_with_other_numbers():
    words = "She counts them one by one and then she adds the rest of them to what she had before."
    records = [
        Solution("Anna has 3 pens. How many?", "3", words),
        Solution("Anna has  3 pens. how many?", "3", words),  # equal
        Solution("Anna has 3 pens. How many?", "3", f"{words} Yes."),  # near
        Solution("Anna has 4 pens. How many?", "4", words),  # another problem
    ]
    gone = find_duplicates(records, lambda texts: [0] * len(texts))
    assert gone == {1: "duplicate", 2: "near_duplicate"}
    assert find_duplicates(records, lambda texts: list(range(len(texts)))) == {1: "duplicate"}


def test_outcomes_are_told_by_group():
    outcomes = {("a", "cot", "en", "kept"): 3, ("a", "pot", "en", "fails"): 1, ("b", "", "", "damaged"): 2}
    counts = count_outcomes(outcomes)
    assert (counts["records"], counts["kept"], counts["dropped"]) == (6, 3, {"damaged": 2, "fails": 1})
    assert counts["by_source"]["a"] == {"records": 4, "kept": 3, "dropped": {"fails": 1}}
    assert list(counts["by_kind"]) == ["cot", "pot"] and list(counts["by_language"]) == ["en"]
    head, first, *rest = write_table(counts).split("\n")
    assert head.split() == ["records", "kept", "damaged", "fails"] and first.split() == ["all", "6", "3", "2", "1"]
    assert len(rest) == 5
    lengths = describe_lengths([Solution("12", "", "1234"), Solution("1234", "", "12")])
    assert lengths["question"] == {"mean": 3.0, "median": 3.0, "p95": 3.9, "most": 4}
