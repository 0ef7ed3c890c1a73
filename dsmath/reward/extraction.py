"""The final answer in a solution."""

import re

BOX = re.compile(  # a backslash may have been lost on the way: "\\b" is a backspace to most languages
    r"\\(?:boxed|fbox|framebox)(?![A-Za-z])|(?<![A-Za-z\\])(?:boxed|fbox|framebox)(?=\{)|\x08oxed(?=\{)"
)
FALLBACKS = ("none", "last_number")

_END = (
    r"(?=\s*(?:[.!](?:\s|$)|[。！．]|\n|$|,?\s*(?<!\w)(?:because|since|so|as|which)(?:\s|$)"
    r"|,\s*(?:and|but|where|when|if|for|with|meaning)\s+[a-z']{2,}|[，,;；]?\s*(?:因为|所以|因此|故|其中)))"
)
_LETTERS = r"[（(]?\$?\s*[A-H](?:\s*[,、，和]?\s*[A-H])*\s*\$?[)）]?"
_PHRASES = [  # from the plainest mark to the vaguest; the last match of the first kind that is present counts
    r"####[ \t]*(?!#|(?i:step|final|answer|solution|part|conclusion|verif|explanation|note)\b)(.+?)[ \t]*(?:\n|$)",
    r"(?:【答案】|(?:最终答案|最后答案|正确答案|答案|结果)\s*(?:应该|应当)?\s*(?:是|应为|为|应选|选)?\s*[:：]?)"
    r"\s*(?<!答案)(?<!结果)(.+?)" + _END,
    r"(?i:(?:the|final|correct|our|my|an)\s+(?:final\s+|correct\s+)?(?:answer|result|choice|option)(?:\s+choice)?\s*"
    r"(?:is|are|must be|should be|:|=)"
    r"(?:\s*(?:therefore|thus|then|simply|just|approximately|about|exactly|option|choice|:))*)\s*(.+?)" + _END,
    r"(?i:\banswers?\s*(?:is\b|are\b|:|=)|\bans\s*[:=])\s*:?\s*(.+?)" + _END,
    r"(?i:(?:^|\n)[#\s]*(?:final\s+)?answer)[ \t]*\n+\s*(.+?)" + _END,
    rf"(?:故|因此|所以|综上|应|正确的?)?[，,]?\s*(?:选项?|选择)\s*(?:是|为)?\s*[:：]?\s*({_LETTERS})(?![A-Za-z])",
    r"(?i:\boption|\bchoice|[.,]|^|\n|\bthus|\bso|\bhence|\btherefore)\s*(\(?\b[A-J]\b\)?)\s+is\s+"
    r"(?:the\s+)?(?:correct|right|answer)",
    r"(?:^|\n)\s*(?:答|A)\s*[:：]\s*(.+?)\s*(?=\n|$)",
    r"\sA:\s*(-?\$?\d[\d,.]*%?)\s*$",
]
_PHRASES = [re.compile(phrase) for phrase in _PHRASES]
_TAIL = 4_000  # characters at the end in which a phrase is looked for
_OUTPUT = re.compile(r"```output\s*\n(.*?)(?:```|$)", re.S)
_SPACES, _BLANK_LINES = re.compile(r"[^\S\n]+"), re.compile(r"(?: ?\n ?){2,}")
_BOLD = re.compile(r"(?<![\w)\]}])\*\*|\*\*(?![\w(\\])")  # no power of a program
_DISPLAY = re.compile(r"\$\$\s*([^$]{1,800}?)\s*\$\$|\\\[\s*([^\\](?:(?!\\\[).){0,800}?)\s*\\\]", re.S)
_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?%?")


def extract_answer(solution: str, fallback: str = "none") -> str | None:
    """The final answer of a solution.

    That is its last box, else what follows "####" or a phrase such as "The answer is", else the output of its last
    program.

    Args:
      solution: a whole solution, in English or Chinese.
      fallback: "last_number" takes the last number of a solution that names no answer.
    Returns:
      The answer as it stands there; None where the solution names none (its last box may be cut off), which is not
      the same as a wrong answer.
    """
    boxes = None
    for boxes in BOX.finditer(solution):  # noqa: B007 the last one counts
        pass
    if boxes is not None:
        return content_of_box(solution, boxes.end())
    tail = _BOLD.sub("", _BLANK_LINES.sub("\n\n", _SPACES.sub(" ", solution[-_TAIL:])))  # long runs stall the phrases
    tail = _DISPLAY.sub(lambda found: f"${(found[1] or found[2]).strip()}$".replace("\n", " "), tail)
    answer = _after_phrase(tail) or _last_output(solution[-_TAIL:])
    if answer is None and fallback == "last_number":
        numbers = _NUMBER.findall(tail)
        return numbers[-1].rstrip(",") if numbers else None
    return answer


def _after_phrase(tail: str) -> str | None:
    for phrase in _PHRASES:
        found = None
        for found in phrase.finditer(tail):  # noqa: B007
            pass
        if found is not None:
            answer = found[1]
            nested = phrase.search(answer)  # "Final Answer: The final answer is (D)."
            answer = _trim(nested[1] if nested else answer)
            if answer:
                return answer
    return None


def _last_output(tail: str) -> str | None:
    outputs = _OUTPUT.findall(tail)
    lines = outputs[-1].strip().splitlines() if outputs else []
    return lines[-1].strip() or None if lines else None


def content_of_box(text: str, start: int) -> str | None:
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
