"""Graders by name: `strict`, in which mathematics decides, and `paper`, the released evaluation's conventions."""

import dataclasses

import mpmath

from dsmath.reward import numerics
from dsmath.reward.agreement import value_of_equation
from dsmath.reward.answers import Comparison, compare, extract_answer, unbox
from dsmath.reward.paper import comparison, extraction
from dsmath.reward.reading import read
from dsmath.reward.values import Assignment, Expression, Relation
from dsmath.runs.errors import InputError

GRADERS = ("strict", "paper")
_OCW_TOLERANCE = 0.01  # relative, of numeric answers: Minerva's (Lewkowycz et al. 2022), as OCW's golds are rounded


@dataclasses.dataclass(frozen=True)
class Grade:
    """What a grader says of one solution.

    Attributes:
      answer: the answer that was found; None where there is none.
      outcome: "right", "wrong", "no_answer", or "timeout" where the comparison ran out of time.
      rule: the rule that decided, in words.
    """

    answer: str | None
    outcome: str
    rule: str


def grade(
    solution: str,
    gold: str,
    benchmark: str = "",
    *,
    grader: str = "strict",
    few_shot: bool = False,
    question: str = "",
    gold_solution: str = "",
) -> Grade:
    """Grades a whole solution.

    Args:
      solution: what the model wrote.
      gold: the gold answer as the benchmark's file has it.
      benchmark: its name, e.g. "ocw"; "" for the rule of plain answers.
      grader: one of `GRADERS`.
      few_shot: whether a few-shot prompt asked; the paper's extraction depends on it.
      question, gold_solution: of MATH, for the paper's grader: all boxes of the gold solution are gold answers there.
    Raises:
      InputError: no such grader.
    """
    _check(grader)
    if grader == "paper":
        answers = extraction.extract(solution, benchmark, few_shot=few_shot, question=question)
        return _paper_grade(answers, gold, benchmark, gold_solution, question)
    answer = extract_answer(solution)
    if answer is None:
        return Grade(None, "no_answer", "the solution names no answer")
    return grade_answer(answer, gold, benchmark)


def grade_answer(prediction: str, gold: str, benchmark: str = "", *, grader: str = "strict") -> Grade:
    """Grades an answer that was extracted already.

    Args:
      prediction: the answer alone.
      gold, benchmark, grader: as of `grade`.
    Raises:
      InputError: no such grader.
    """
    _check(grader)
    if grader == "paper":
        return _paper_grade([prediction] if prediction else [], gold, benchmark)
    result = _compare_ocw(prediction, gold) if benchmark == "ocw" else compare(prediction, gold)
    return Grade(prediction, result.outcome, result.rule)


def _check(grader: str) -> None:
    if grader not in GRADERS:
        raise InputError(f"grader {grader!r} is unknown; choose one of {', '.join(GRADERS)}")


def _paper_grade(answers: list[str], gold: str, benchmark: str, gold_solution: str = "", question: str = "") -> Grade:
    if not answers:
        return Grade(None, "no_answer", "the released evaluation finds no answer")
    try:
        is_right = comparison.is_correct(answers, gold, benchmark, gold_solution, question)
    except RecursionError:  # a sum of a thousand terms
        is_right = False
    rule = f"the released evaluation's rule for {benchmark or 'single answers'}"
    return Grade("; ".join(answers), "right" if is_right else "wrong", rule)


def _compare_ocw(prediction: str, gold: str) -> Comparison:
    """Numbers within the relative tolerance; all else as ever."""
    result = compare(prediction, gold)
    if result.outcome == "right":
        return result
    try:
        expected, found = _number(gold), _number(prediction)
    except RecursionError:
        return result
    if expected is None or found is None:
        return result
    is_close = abs(found - expected) <= _OCW_TOLERANCE * abs(expected)
    return Comparison("right" if is_close else "wrong", f"numbers, within {_OCW_TOLERANCE:.0%} of the gold")


def _number(text: str) -> mpmath.mpf | None:
    """The number that an answer is or that it gives a name: 4.5e33, -1./3, v = 3 m/s."""
    for reading in read(unbox(text)):
        if isinstance(reading, Assignment):
            reading = reading.value
        elif isinstance(reading, Relation):
            reading = value_of_equation(reading)
        value = numerics.approximate(reading.tree) if isinstance(reading, Expression) else None
        if value is not None:
            return value
    return None
