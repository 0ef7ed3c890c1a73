"""Answers that are no mathematics: the letters of options, and BBH's truth values, words and brackets."""

import re
from collections.abc import Iterator

from dsmath.data.benchmarks.item import Item
from dsmath.evaluation.prompts.layouts import LETTERS
from dsmath.reward.answers import is_equivalent

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed|fbox)\s*\{([^{}]*)\}")
_OPTION = re.compile(r"\(([A-Z])\)(?:\s*[:.]?\s*\S.*)?|([A-Z])(?:[.):：]\s*\S.*|\s*[.)]?)", re.DOTALL)
_SEVERAL = re.compile(r"\(?[A-Z]\)?(?:(?:\s*[,，、;&]\s*|\s+and\s+|\s*和\s*|\s*)\(?[A-Z]\)?)*[.。]?")
_SEVERAL_SMALL = re.compile(_SEVERAL.pattern.replace("A-Z", "a-z"))
_LEAD = re.compile(r"(?:options?|choices?|answers?|选项?|答案)\s*(?:is|are|是|为)?\s*[:：]?\s*", re.IGNORECASE)
_TRUTH = {"yes": "no", "true": "false", "valid": "invalid"}
_TRUTH |= {contrary: value for value, contrary in _TRUTH.items()}
_BRACKETS = re.compile(r"[()\[\]{}<>\s]+")
_BOXED_LINE = re.compile(r"\\boxed\s*\{(.*)\}")


def options(item: Item) -> Iterator[tuple[str, str]]:
    """Letter and text of each option."""
    return zip(LETTERS, item.choices, strict=False)


def read_letters(answer: str, count: int) -> str | None:
    """The letters of the options that an answer names, in order: "B", "(B) 5", "B. 5", "A, C and D", "ACD".

    Args:
      answer: an extracted answer.
      count: of the options.
    Returns:
      the letters, without the options' texts; None where it names none, or one that there is not.
    """
    text = _without_lead(answer)
    found = _SEVERAL.fullmatch(text)
    if found:
        letters = sorted(set(re.findall(r"[A-Z]", re.sub(r"\sand\s", " ", text))))
    else:
        found = _OPTION.fullmatch(text)
        letters = [found[1] or found[2]] if found else []
    return _known(letters, count)


def read_small_letters(answer: str, count: int) -> str | None:
    """The letters of the options that an answer names in lower case and without a text: "b", "(b)", "a, c and d".

    They may be words, variables or an option's text as well, so that this is asked last.

    Args:
      answer, count: as of `read_letters`.
    """
    text = _without_lead(answer)
    if not _SEVERAL_SMALL.fullmatch(text):
        return None
    words = re.findall(r"[a-z]+", re.sub(r"\sand\s", " ", text))
    if any(list(word) != sorted(set(word)) for word in words):  # "acd" names three options, "bad" is a word
        return None
    return _known(sorted(set("".join(words).upper())), count)


def is_option(answer: str, option: str) -> bool:
    """Whether an answer is the text of an option, as words or as mathematics."""
    return _words(answer) == _words(option) != [] or is_equivalent(answer, option)


def agree(answer: str, gold: str) -> bool:
    """Whether an answer means a target of BBH: a truth value, brackets, a list of words, a number.

    Source: Suzgun et al. 2022 (exact match); here case, quotes and LaTeX's markup do not matter.
    """
    if _BRACKETS.fullmatch(gold):
        return _tight(answer) == _tight(gold)
    words, expected = _words(answer), _words(gold)
    if words == expected != []:
        return True
    if len(expected) == 1 and expected[0] in _TRUTH:  # "No, she lies"
        return words[:1] == expected and _TRUTH[expected[0]] not in words
    return len(expected) == 1 and is_equivalent(answer, gold)


def find_brackets(completion: str, gold: str) -> str | None:
    """What the last box holds where the target is brackets, which need not be balanced; None for other targets."""
    if not _BRACKETS.fullmatch(gold):
        return None
    lines = _BOXED_LINE.findall(completion)
    return re.sub(r"\\text\s*\{(.*)\}", r"\1", lines[-1]).strip() if lines else None


def _without_lead(answer: str) -> str:
    text = _plain(answer)
    return _LEAD.sub("", text, count=1) if _LEAD.match(text) else text


def _known(letters: list[str], count: int) -> str | None:
    return "".join(letters) if letters and set(letters) <= set(LETTERS[:count]) else None


def _plain(text: str) -> str:
    """A text without LaTeX's markup and emphasis."""
    before = None
    while before != text:
        before, text = text, _MARKUP.sub(r"\1", text)
    return re.sub(r"[$*`]|\\[()]", "", text).strip()


def _words(text: str) -> list[str]:
    text = re.sub(r"\\([&%_#])", r"\1", _plain(text)).casefold()
    return [word for part in re.split(r"[\s,;]+", text) if (word := part.strip(".\"'“”‘’!?:"))]


def _tight(text: str) -> str:
    return re.sub(r"\s|\\(?=[{}])|\\[a-z]+|\$|\.$", "", text)
