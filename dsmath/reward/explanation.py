"""A grader's verdict step by step: what was extracted, how both sides were cleaned and read, which rule decided."""

from collections.abc import Iterable

from dsmath.reward import graders
from dsmath.reward.answers import compare, unbox
from dsmath.reward.expressions import MAX_LENGTH, Tree
from dsmath.reward.notation import clean
from dsmath.reward.paper import cleaning
from dsmath.reward.reading import read
from dsmath.reward.values import (
    Assignment,
    Choices,
    Clock,
    Expression,
    Finite,
    Matrix,
    Ratio,
    Relation,
    Sequence,
    Union,
    Value,
)

_SIGNS = {"add": " + ", "mul": "·", "div": "/", "pow": "^"}
_MOST_CHARACTERS = 200


def explain(
    prediction: str,
    gold: str,
    benchmark: str = "",
    *,
    grader: str = "strict",
    is_solution: bool = False,
    few_shot: bool = False,
) -> tuple[graders.Grade, list[tuple[str, str]]]:
    """Grades and tells how.

    Args:
      prediction: a final answer, or a whole solution.
      gold, benchmark, grader, few_shot: as of `dsmath.reward.graders.grade`.
      is_solution: whether the answer is to be extracted first.
    Returns:
      The grade, and the steps as pairs of what was done and what came of it.
    """
    if is_solution:
        grade = graders.grade(prediction, gold, benchmark, grader=grader, few_shot=few_shot)
    else:
        grade = graders.grade_answer(prediction, gold, benchmark, grader=grader)
    steps = [("grader", f"{grader}, {benchmark or 'plain answers'}")]
    if is_solution:
        steps.append(("extracted", "nothing" if grade.answer is None else _short(grade.answer)))
    if grade.answer is not None:
        sides = (("prediction", grade.answer), ("gold", gold))
        for name, text in sides:
            if len(text) <= MAX_LENGTH:
                steps += _steps_of_side(name, text, grader)
        readings = compare(grade.answer, gold).readings if grader == "strict" else None
        if readings:
            steps.append(("agree", " and ".join(map(describe, readings))))
    return grade, [*steps, ("rule", grade.rule), ("verdict", grade.outcome)]


def _steps_of_side(name: str, text: str, grader: str) -> list[tuple[str, str]]:
    if grader == "paper":
        return [(f"{name} cleaned", _short(cleaning.clean(text)))]
    text = unbox(text)
    readings = "; ".join(map(describe, read(text)))
    return [(f"{name} cleaned", _short(clean(text))), (f"{name} read", _short(readings))]


def describe(value: Value) -> str:
    """A reading in words, such as "the interval (0, 1]"."""
    if isinstance(value, Expression):
        return f"the expression {show(value.tree)}" + (f" in {value.unit}" if value.unit else "")
    if isinstance(value, Sequence):
        kind = "blanks" if value.closing == ";" else "a list" if not value.opening else "a tuple or an interval"
        return f"{kind} {value.opening}{_inner(value.members)}{value.closing.strip(';')}"
    if isinstance(value, Finite):
        return f"the set {{{_inner(value.members)}}}"
    if isinstance(value, Union):
        return f"{'all' if value.all_hold else 'one'} of {_inner(value.members)}"
    if isinstance(value, Matrix):
        return "a matrix of " + "; ".join(_inner(row) for row in value.rows)
    if isinstance(value, Relation):
        parts = [show(value.sides[0])]
        for sign, side in zip(value.operators, value.sides[1:], strict=True):
            parts += [sign, show(side)]
        return f"the relation {' '.join(parts)}"
    if isinstance(value, Assignment):
        return f"{value.name} which is {describe(value.value)}"
    if isinstance(value, Ratio):
        return f"the ratio {':'.join(map(show, value.members))}"
    if isinstance(value, Choices):
        return f"the choice {', '.join(sorted(value.letters))}"
    if isinstance(value, Clock):
        return f"the time {value.seconds // 3600}:{value.seconds // 60 % 60:02d}"
    return f"the words {value.text!r}"


def show(tree: Tree) -> str:
    """An expression in plain signs, every operation in brackets."""
    kind = tree[0]
    if kind in ("num", "sym"):
        return str(tree[1])
    if kind in _SIGNS:
        return f"({show(tree[1])}{_SIGNS[kind]}{show(tree[2])})"
    if kind == "root":
        return f"root_{show(tree[1])}({show(tree[2])})"
    if kind == "fn":
        return f"{tree[1]}({', '.join(map(show, tree[2:]))})"
    return {"neg": "-{}", "pct": "{}%", "deg": "{}°"}[kind].format(show(tree[1]))


def _inner(members: Iterable[Value]) -> str:
    return ", ".join(show(member.tree) if isinstance(member, Expression) else describe(member) for member in members)


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}… ({len(text):,} characters)"
