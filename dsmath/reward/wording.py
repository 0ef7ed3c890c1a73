"""Answers that are no formulas: letters of choices, times of day, words."""

import re

from dsmath.reward.values import Choices, Clock

_TRUE_WORDS = {
    "yes": "true",
    "no": "false",
    "对": "true",
    "错": "false",
    "是": "true",
    "否": "false",
    "正确": "true",
    "错误": "false",
    "correct": "true",
    "incorrect": "false",
}
_CLOCK = re.compile(
    r"(\d{1,2})(?:\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?)?\s*(?:\\text\s*\{)?\s*([ap])\s*\.?\s*m\s*\.?\s*\}?", re.I
)
_CLOCK_24 = re.compile(r"(\d{1,2})\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?")


def words(cleaned: str) -> str:
    """Words without markup, case and punctuation.

    Args:
      cleaned: cleaned text (`dsmath.reward.notation.clean`).
    """
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", cleaned)
    if not re.search(r"[\\^_]", text):  # \\frac{1}{23 is not \\frac{12}{3}
        text = re.sub(r"[{}]", " ", text)
    text = re.sub(r"^(?:the|a|an)\s", "", re.sub(r"[\s.,;:!?\"'`*$]+", " ", text).strip().lower())
    return _TRUE_WORDS.get(text, text).replace(" ", "")


def read_choices(cleaned: str) -> Choices | None:
    """Letters or circled numbers of a multiple-choice question, with or without the text of the option."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}|[{}]", r"\1", cleaned) if "circled" not in cleaned else cleaned
    circled = re.findall(r"\\circled\{(\d+)\}", text)
    if circled and not re.sub(r"\\circled\{\d+\}|[\s,;{}]|\\text", "", text):
        return Choices(frozenset(circled))
    text = re.sub(r"^\s*(?:选项?|答案|[Oo]ptions?|[Cc]hoices?|[Aa]nswers?)\s*:?\s*", "", text).strip()
    if re.fullmatch(r"\(?[a-d]\)?\.?", text):
        return Choices(frozenset(text.strip("().").upper()))
    listed = re.sub(r"\s(?:and|or)\s|[\s,;&]", "", text[:80]).rstrip(".")
    if not re.fullmatch(r"(?:[(\[][A-J][)\]]|[A-J]\)?)+", listed) or len(text) > 80:
        found = re.fullmatch(r"\(([A-J])\)\s*:?\s*[^\s+].{0,200}|([A-J])[.):]\s+[^\s+].{0,200}", text)
        return Choices(frozenset(found[1] or found[2])) if found else None
    letters = re.findall(r"[A-J]", listed)
    return Choices(frozenset(letters)) if len(set(letters)) == len(letters) else None


def read_clock(cleaned: str) -> Clock | None:
    """A time of day: 6:10, 18:10, 6:10 p.m., 6 pm."""
    found = _CLOCK.fullmatch(cleaned) or _CLOCK_24.fullmatch(cleaned)
    if found is None:
        return None
    hour, minute, second = (int(part or 0) for part in found.groups()[:3])
    half = found[4].lower() if found.re is _CLOCK else ""
    if hour > (12 if half else 24) or (half and not hour):
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return Clock((hour * 60 + minute) * 60 + second, bool(half) or hour > 12)
