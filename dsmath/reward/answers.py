"""The answer at the end of a solution, and whether it means the same as the gold answer.

Rationals, radicals, polynomials and their quotients are decided exactly, by a normal form; all else that has values by
50 digits of them; both within bounds on lengths, powers and nesting. Model text is parsed by our own grammar and never
evaluated. Sums, integrals and limits go to a worker process with a time limit.
"""

import functools
import re

from dsmath.reward import symbolic
from dsmath.reward.agreement import agree
from dsmath.reward.expressions import MAX_LENGTH
from dsmath.reward.notation import clean
from dsmath.reward.reading import read
from dsmath.reward.values import Clock, Words
from dsmath.reward.wording import words

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_END = r"(?=\s*(?:[.!](?:\s|$)|。|！|\n|$|,?\s*(?:because|since|so|as|which)\s|[，,;；]?\s*(?:因为|所以|因此|故|其中)))"
_PHRASES = [  # from the plainest mark to the vaguest; the last match of the first kind that is present counts
    r"####[ \t]*(.+?)[ \t]*(?:\n|$)",
    r"(?:最终答案|最后答案|正确答案|答案|结果)\s*(?:应该|应当)?\s*(?:是|为|选|应选)?\s*[:：]?\s*(?<!答案)(?<!结果)(.+?)"
    + _END,
    r"(?i:(?:the|final|correct|our|my|an)\s+(?:final\s+|correct\s+)?(?:answer|result|choice|option)(?:\s+choice)?\s*"
    r"(?:is|are|must be|should be|:|=)(?:\s*(?:therefore|thus|then|simply|just|option|choice|:))*)\s*(.+?)" + _END,
    r"(?i:\banswers?\s*(?:is\b|are\b|:|=)|\bans\s*[:=])\s*:?\s*(.+?)" + _END,
    r"(?:故|因此|所以|综上|应|正确的?)?[，,]?\s*(?:选项?|选择)\s*(?:是|为)?\s*[:：]?\s*(\(?[A-H](?:\s*[,、和]?\s*[A-H])*\)?)(?![A-Za-z])",
    r"(?:^|\n)\s*(?:答|A)\s*[:：]\s*(.+?)\s*(?=\n|$)",
]
_PHRASES = [re.compile(phrase) for phrase in _PHRASES]
_TAIL = 4_000  # characters at the end in which a phrase is looked for
_LONG_DECIMAL = re.compile(r"\d*\.\d{6,}")
_NOISE_DIGITS = 12  # significant digits from which a decimal is taken for a program's rounding
_SPACE = re.compile(r"(?<!\w)\s|\s(?!\w)")  # that parts no two words or numbers
_THOUSANDS = re.compile(r"\W*\d{1,3}(?:(?:,|,\\!|\{,\})\d{3})+\W*")
_INTEGER = re.compile(r"-?\d{1,300}")


def extract_answer(solution: str) -> str | None:
    """The final answer of a solution: its last box, else what follows "####" or a phrase such as "The answer is".

    Args:
      solution: a whole solution, in English or Chinese.
    Returns:
      The answer as it stands there; None where the solution names none (its last box may be cut off), which is not
      the same as a wrong answer.
    """
    boxes = None
    for boxes in _BOX.finditer(solution):  # noqa: B007 the last one counts
        pass
    if boxes is not None:
        return _content_of_box(solution, boxes.end())
    tail = solution[-_TAIL:]
    for phrase in _PHRASES:
        found = None
        for found in phrase.finditer(tail):  # noqa: B007
            pass
        if found is not None:
            answer = found[1]
            nested = phrase.search(answer)  # "Final Answer: The final answer is (D)."
            answer = nested[1] if nested else answer
            if _trim(answer):
                return _trim(answer)
    return None


def is_equivalent(prediction: str, gold: str) -> bool:
    """Whether a predicted answer means the same as the gold answer.

    Units, currency signs and words around an equal value do not matter; a tuple's order and an interval's ends do. A
    percentage equals its fraction, and the bare number where that is above 1 (40% answers "how many percent" as 40
    does). There is no tolerance beyond a program's rounding noise in decimals of 12 digits and more.

    Args:
      prediction: an answer that a model gave; whatever it holds, nothing of it is executed.
      gold: the reference answer.
    """
    prediction, gold = prediction.strip(), gold.strip()
    if not prediction or not gold:
        return False
    if prediction == gold:
        return True
    if len(prediction) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        return False
    if _INTEGER.fullmatch(prediction) and _INTEGER.fullmatch(gold):
        return int(prediction) == int(gold)
    return _is_equivalent(prediction, gold)


@functools.lru_cache(maxsize=65536)
def _is_equivalent(prediction: str, gold: str) -> bool:
    prediction, gold = _unbox(prediction), _unbox(gold)
    if _SPACE.sub("", clean(prediction)) == _SPACE.sub("", clean(gold)) != "":
        return True
    try:
        predicted, expected = read(prediction), read(gold)
        if any(isinstance(reading, Words) for reading in (*predicted, *expected)):
            text = words(clean(prediction))
            if re.search(r"[^\W\d_]", text) and text == words(clean(gold)):
                return True
        clocks = [[value for value in side if isinstance(value, Clock)] for side in (predicted, expected)]
        if all(clocks):  # 10:30 is not 5:15
            predicted, expected = clocks
        if _THOUSANDS.fullmatch(prediction) and _THOUSANDS.fullmatch(gold):  # lists of groups would be equal as sets
            predicted, expected = predicted[:1], expected[:1]
        rounded = _is_long_decimal(prediction) or _is_long_decimal(gold)
        if any(agree(left, right, rounded) for left in predicted for right in expected):
            return True
    except RecursionError:  # a sum of a thousand terms
        return False
    return symbolic.can_read(prediction) and symbolic.can_read(gold) and symbolic.are_equal(prediction, gold)


def _unbox(text: str) -> str:
    found = _BOX.search(text)
    return (_content_of_box(text, found.end()) or "") if found else text


def _content_of_box(text: str, start: int) -> str | None:
    """What the box holds whose command ends at `start`: a group in braces or the next word; None if it is cut off."""
    rest = text[start : start + 1]
    while rest.isspace():
        start += 1
        rest = text[start : start + 1]
    if rest != "{":
        found = re.match(r"[^\s$,;。，]+?(?=[.]?(?:[\s$,;。，]|$))", text[start:])
        return found[0] if found else None
    depth = 0
    for found in re.compile(r"\\.|[{}]", re.S).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return text[start + 1 : found.start()].strip() or None
    return None


def _trim(answer: str) -> str:
    """An answer without emphasis; of "$5$, which …" the formula alone."""
    answer = answer.strip().strip("*").strip().removeprefix(":").strip()
    formula = re.match(r"(?:\$([^$]+)\$|\\\((.+?)\\\))(.*)", answer, re.S)
    if formula and len(formula[3].split()) > 2 and "$" not in formula[3]:
        return (formula[1] or formula[2]).strip()
    return answer.rstrip(" .。,，;；!！")


def _is_long_decimal(text: str) -> bool:
    return any(len(found[0].replace(".", "").lstrip("0")) >= _NOISE_DIGITS for found in _LONG_DECIMAL.finditer(text))
