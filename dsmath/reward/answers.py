"""The answer at the end of a solution, and whether it means the same as the gold answer.

Rationals, radicals, polynomials and their quotients are decided exactly, by a normal form; all else that has values by
50 digits of them; both within bounds on lengths, powers and nesting. Model text is parsed by our own grammar and never
evaluated. Sums, integrals and limits go to a worker process with a time limit.
"""

import dataclasses
import functools
import itertools
import re

from dsmath.reward import symbolic
from dsmath.reward.agreement import agree
from dsmath.reward.expressions import MAX_LENGTH
from dsmath.reward.extraction import BOX, content_of_box, extract_answer
from dsmath.reward.notation import clean
from dsmath.reward.reading import read
from dsmath.reward.values import Clock, Value, Words
from dsmath.reward.wording import words

__all__ = ["Comparison", "compare", "extract_answer", "is_equivalent", "unbox"]

_LONG_DECIMAL = re.compile(r"\d*\.\d{6,}")
_NOISE_DIGITS = 12  # significant digits from which a decimal is taken for a program's rounding
_SPACE = re.compile(r"(?<!\w)\s|\s(?!\w)")  # that parts no two words or numbers
_THOUSANDS = re.compile(r"\W*\d{1,3}(?:(?:,|,\\!|\{,\})\d{3})+\W*")
_INTEGER = re.compile(r"-?\d{1,300}")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of a comparison.

    Attributes:
      outcome: "right", "wrong", or "timeout" where the worker ran out of time.
      rule: the rule that decided, in words.
      readings: the two readings that agree.
    """

    outcome: str
    rule: str
    readings: tuple[Value, Value] | None = None


def is_equivalent(prediction: str, gold: str) -> bool:
    """Whether a predicted answer means the same as the gold answer; `compare` tells why.

    Units, currency signs and words around an equal value do not matter; a tuple's order and an interval's ends do. A
    percentage equals its fraction, and the bare number where that is above 1 (40% answers "how many percent" as 40
    does). There is no tolerance beyond a program's rounding noise in decimals of 12 digits and more.

    Args:
      prediction: an answer that a model gave; whatever it holds, nothing of it is executed.
      gold: the reference answer.
    """
    return compare(prediction, gold).outcome == "right"


def compare(prediction: str, gold: str) -> Comparison:
    """Compares a predicted answer with the gold answer, as `is_equivalent` does."""
    prediction, gold = prediction.strip(), gold.strip()
    if not prediction or not gold:
        return Comparison("wrong", "there is no answer")
    if prediction == gold:
        return Comparison("right", "the texts are the same")
    if len(prediction) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        return Comparison("wrong", f"longer than {MAX_LENGTH} characters")
    if _INTEGER.fullmatch(prediction) and _INTEGER.fullmatch(gold):
        return Comparison("right" if int(prediction) == int(gold) else "wrong", "two integers")
    return _compare(prediction, gold)


@functools.lru_cache(maxsize=65536)
def _compare(prediction: str, gold: str) -> Comparison:
    prediction, gold = unbox(prediction), unbox(gold)
    if _SPACE.sub("", clean(prediction)) == _SPACE.sub("", clean(gold)) != "":
        return Comparison("right", "the texts are the same once cleaned")
    try:
        predicted, expected = read(prediction), read(gold)
        if any(isinstance(reading, Words) for reading in (*predicted, *expected)):
            text = words(clean(prediction))
            if re.search(r"[^\W\d_]", text) and text == words(clean(gold)):
                return Comparison("right", "the words are the same")
        rounded = _is_long_decimal(prediction) or _is_long_decimal(gold)
        for left, right in itertools.product(*_readings_that_count(prediction, gold, predicted, expected)):
            if agree(left, right, rounded):
                return Comparison("right", "two readings agree", (left, right))
    except RecursionError:  # a sum of a thousand terms
        return Comparison("wrong", "nested too deep")
    if symbolic.can_read(prediction) and symbolic.can_read(gold) and symbolic.needs_worker(prediction, gold):
        equal = symbolic.are_equal(prediction, gold)
        outcome = "timeout" if equal is None else "right" if equal else "wrong"
        return Comparison(outcome, "the worker for sums, integrals and limits")
    named = _named(prediction, predicted), _named(gold, expected)
    if named != (prediction, gold) and _compare(*named).outcome == "right":
        return Comparison("right", "the answer that a sentence names is the same")
    return Comparison("wrong", "no reading of the one agrees with one of the other")


def _readings_that_count(
    prediction: str, gold: str, predicted: tuple[Value, ...], expected: tuple[Value, ...]
) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Of two times of day these readings alone (10:30 is not 5:15), of two numbers with thousands the numbers."""
    clocks = tuple(tuple(value for value in side if isinstance(value, Clock)) for side in (predicted, expected))
    if all(clocks):
        return clocks
    if _THOUSANDS.fullmatch(prediction) and _THOUSANDS.fullmatch(gold):  # lists of groups would be equal as sets
        return predicted[:1], expected[:1]
    return predicted, expected


def _named(text: str, readings: tuple[Value, ...]) -> str:
    """5 of "The answer is 5"; other texts as they are."""
    return (extract_answer(text) if any(isinstance(reading, Words) for reading in readings) else None) or text


def unbox(text: str) -> str:
    """What the first box of a text holds; a text without a box as it is."""
    found = BOX.search(text)
    return (content_of_box(text, found.end()) or "") if found else text


def _is_long_decimal(text: str) -> bool:
    return any(len(found[0].replace(".", "").lstrip("0")) >= _NOISE_DIGITS for found in _LONG_DECIMAL.finditer(text))
