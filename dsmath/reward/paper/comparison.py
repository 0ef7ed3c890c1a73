"""How the released evaluation compares answers.

Source: deepseek-ai/DeepSeek-Math, `evaluation/eval/eval_script.py`, `eval_utils.py` and `ocwcourses_eval_utils.py`,
written anew. Where it parses model text with SymPy (and Python's eval), our own grammar reads it instead: its verdicts
can differ from the released code's on texts that only one of the two grammars reads.
"""

import ast
import math
import operator
import re

import numpy as np

from dsmath.reward import algebra, numerics
from dsmath.reward.expressions import MAX_LENGTH, Tree, UnreadableError, parse_expression
from dsmath.reward.notation import clean as rewrite
from dsmath.reward.paper.cleaning import clean, clean_expression
from dsmath.reward.paper.extraction import extract

_PRECISION = 1e-3
_OCW_THRESHOLD = 0.01
_MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", re.S)
_OCW_UNITS = (  # noqa: SIM905 removed in this order
    "eV| \\mathrm{~kg} \\cdot \\mathrm{m} / \\mathrm{s}| kg m/s|kg*m/s|kg|m/s|m / s|m s^{-1}|\\text{ m/s}|"
    " \\mathrm{m/s}| \\text{ m/s}|g/mole|g/mol|\\mathrm{~g}|\\mathrm{~g} / \\mathrm{mol}|W|erg/s|years|year|"
    "cm|\\mathrm{m}|\\mathrm{~m}|\\mathrm{s}|\\mathrm{~s}|\\mathrm{cm}|\\mathrm{~cm}"
).split("|")
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.BitXor: operator.xor,
}


def is_correct(answers: list[str], gold: str, benchmark: str, gold_solution: str = "", question: str = "") -> bool:
    """Whether the answers of a solution are the gold ones, by the benchmark's rule.

    Args:
      answers: of `dsmath.reward.paper.extraction.extract`.
      gold: the gold answer as the benchmark's file has it.
      benchmark: a name such as "gsm8k".
      gold_solution, question: of MATH, where every box of the gold solution is a gold answer.
    """
    if not answers or any(len(text) > MAX_LENGTH for text in (*answers, gold)):
        return False
    if benchmark == "math":
        golds = (
            extract(gold_solution, "math", few_shot=False, question=question)
            if "boxed" in gold_solution
            else [clean(gold)]
        )
        golds, answers = list(dict.fromkeys(golds)), list(dict.fromkeys(answers))
        return _lists_match(answers[-len(golds) :], golds)
    if benchmark == "gaokao_mathcloze":
        golds = [clean(part) for part in gold.strip().split(";")]
        blanks = list(dict.fromkeys(part for answer in answers for part in _split_blanks(answer)))[-len(golds) :]
        return len(blanks) == len(golds) and all(map(_texts_match, blanks, golds))
    if benchmark == "gaokao_mathqa":  # of several letters the one that first appears last: several never match
        letters = [letter for letter in "ABCD" if letter in answers[0]]
        return bool(letters) and max(letters, key=answers[0].index) == gold
    if benchmark in ("sat", "mmlu_stem"):
        return answers[0].lower() == gold.lower()
    if benchmark == "ocw":
        return _ocw_matches(answers[0], gold)
    return _texts_match(answers[0], gold.strip().replace(",", ""))


def _lists_match(answers: list[str], golds: list[str]) -> bool:
    """Whether every answer has its like among the golds and the other way round."""
    return all(any(_texts_match(answer, gold) for gold in golds) for answer in answers) and all(
        any(_texts_match(answer, gold) for answer in answers) for gold in golds
    )


def _split_blanks(answer: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for index, char in enumerate(answer + ";"):
        if char == ";" or (char == "," and not depth):
            parts.append(answer[start:index].strip())
            depth, start = 0, index + 1
        else:
            depth += (char in "([{") - (char in ")]}")
    return parts


def _texts_match(answer: str, gold: str) -> bool:
    if "\\cup" in answer and "\\cup" in gold:
        return _lists_match(answer.split("\\cup"), gold.split("\\cup"))
    numbers = _float(answer.replace(",", "")), _float(gold.replace(",", ""))
    if None not in numbers and abs(numbers[0] - numbers[1]) < _PRECISION:
        return True
    return _maths_match(answer, gold)


def _maths_match(answer: str, gold: str) -> bool:
    answer, gold = answer.strip(), gold.strip()
    if answer == gold:
        return True
    first, second = _digits(answer), _digits(gold)
    if first is not None and second is not None:  # a percentage and a hundred times it are the same
        return any(math.isclose(value, first, abs_tol=_PRECISION) for value in (second / 100, second, second * 100))
    if not answer:
        return False
    if all(re.match(r"[(\[].+[)\]]", side, re.S) for side in (answer, gold)) and _parts_match(
        answer[1:-1].split(","), gold[1:-1].split(",")
    ):
        return True
    matrices = [_MATRIX.fullmatch(side) for side in (answer, gold)]
    if all(matrices):
        rows = [[row.split("&") for row in found[1].split("\\\\") if row.strip()] for found in matrices]
        if len(rows[0]) == len(rows[1]) and all(map(_parts_match, *rows)):
            return True
    return _equations_match(answer, gold)


def _parts_match(answers: list[str], golds: list[str]) -> bool:
    return len(answers) == len(golds) and all(map(_maths_match, answers, golds))


def _equations_match(answer: str, gold: str) -> bool:
    """Equations by the difference of their sides; "x = 5" and "5" by the value; else expressions."""
    if answer.count("=") == gold.count("=") == 1:
        sides = [[_parse(part) for part in side.split("=")] for side in (answer, gold)]
        if None not in sides[0] + sides[1]:
            left, right = (("add", first, ("neg", second)) for first, second in sides)
            if _trees_match(left, right) or _trees_match(("neg", left), right):
                return True
    for equation, other in ((answer, gold), (gold, answer)):
        name, _, value = equation.partition("=")
        if equation.count("=") == 1 and "=" not in other and len(name.strip()) <= 2 and _maths_match(value, other):
            return True
    trees = [_parse(side) for side in (answer, gold)]
    return None not in trees and _trees_match(*trees)


def _trees_match(left: Tree, right: Tree) -> bool:
    if algebra.are_equal(left, right):
        return True
    values = [numerics.approximate(tree) for tree in (left, right)]
    return None not in values and math.isclose(*(float(value) for value in values), abs_tol=_PRECISION)


def _parse(text: str) -> Tree | None:
    try:
        return parse_expression(rewrite(text))
    except (UnreadableError, RecursionError):
        return None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _digits(text: str) -> float | None:
    """A number, with thousands commas or a percent sign."""
    text = text.replace(",", "")
    value = _float(text)
    if value is None and text.endswith("%"):
        value = _float(text[:-1].removesuffix("\\"))
        return None if value is None else value / 100
    return value


# ---------------------------------------------------------------------------------------------------------------- OCW


def _ocw_matches(answer: str, gold: str) -> bool:
    """Numbers within a tolerance, equations side by side, expressions as texts.

    The tolerance's defect is kept: at a difference of 0 it asks 0 < 0.01 x, so 0 = 0 and -1 = -1 come out unequal.
    """
    if _float(gold) is not None:
        values = _ocw_number(answer), _ocw_number(gold)
        if None in values:
            return False
        if np.isclose(values[0], 0) or np.isclose(values[1], 0) or np.isclose(values[0] - values[1], 0):
            return bool(abs(values[0] - values[1]) < _OCW_THRESHOLD * (values[0] + values[1]) / 2)
        return bool(np.isclose(*values))
    if "=" not in gold:
        return clean_expression(answer) == clean_expression(gold)
    equations = [[_parse(part) for part in re.sub(r"^\\\[|\\\]$", "", side).split("=")] for side in (answer, gold)]
    if any(len(side) != 2 or None in side for side in equations):
        return False
    return all(map(algebra.are_equal, *equations))


def _ocw_number(text: str) -> float | None:
    for unit in _OCW_UNITS:
        text = text.replace(unit, "").strip()
    text = text.strip("$")
    value = _python_value(text)
    if value is None:
        tree = _parse(text)
        number = None if tree is None else numerics.approximate(tree)
        value = None if number is None else float(number)
    return value


def _python_value(text: str) -> float | None:
    """What Python makes of arithmetic, in which 10^3 is 9: numbers and operators alone are looked at, nothing runs."""
    if len(text) > 100 or not re.fullmatch(r"[-+*/^().\deE\s]+", text):
        return None
    try:
        return float(_value_of(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value_of(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_value_of(node.operand) if isinstance(node.op, ast.USub) else _value_of(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value_of(node.left), _value_of(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > 1000 or abs(left) > 1e6):
            raise ValueError("the power is too large")
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError("no arithmetic")
