"""The steps of a solution: its lines, or the sentences of a solution of one paragraph, in English and Chinese."""

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dsmath.rollout.batches import size_of
from dsmath.rollout.texts import HALF

_STRIDE = 8  # tokens between two marks; the fastest of 8, 16, 32 and 64

# What no step ends in. Dollars are Pandoc's: they open before a sign, close after one, and not before a digit, so that
# "$5. Then $3" is money.
_WHOLE = re.compile(
    r"""```.*?(?:```|\Z)                                        # a block of code, if need be cut short
      | \$\$.+?\$\$ | \\\[.+?\\\] | \\\(.+?\\\)
      | \\begin\{(?P<name>[^{}]*)\}.*?\\end\{(?P=name)\}
      | (?<!\\)\$(?![\s$])(?:\\.|(?!\n\s*\n)[^$\\])*(?<![\s\\])\$(?!\d)
      | \\(?:boxed|fbox)\s*(?=\{)                              # its braces are matched by hand
    """,
    re.VERBOSE | re.DOTALL,
)
# A formula on lines of its own ends what the line before it says.
_LINE = re.compile(r"\n(?!\s*(?:\\\[|\$\$|\\begin\b))\s*")
# A full stop ends a sentence before a space; a Chinese one anywhere. Numbers (3.14) and so on have none behind them.
_SENTENCE = re.compile(r"""[.!?]["'”’)\]]*(?:\s+|\Z)|[。！？]["'”’」』）)]*\s*""")
# Behind these, a full stop is none: abbreviations, initials, the numbers of a list ("1. First").
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|cf|vs|Mr|Mrs|Ms|Dr|St|No|Eq|Fig|resp|approx)|\b[A-Za-z]|^\s*\d+)$")


def split_steps(text: str) -> list[str]:
    """Cuts a solution into steps; joined they are the text.

    Steps are lines; where the whole text is one line, they are its sentences. No step ends within a formula, a box, a
    block of code or a number. White space belongs to the step before it.

    Args:
      text: a solution.
    Returns:
      the steps; none of an empty text.
    Source: Lightman et al. 2023 (a line a step); sentences are ours, for solutions of one paragraph.
    """
    protected = list(_protected(text))
    steps = _cut(text, (found.end() for found in _LINE.finditer(text) if not _is_within(found.start(), protected)))
    if len(steps) == 1:
        steps = _cut(text, _sentence_ends(text, protected))
    return steps


def step_ends(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """The place of each step's last token; the last step ends with the last token, such as that of the end of text.

    Args:
      tokens: ids of a solution.
      decode: ids to text, of any tokenizer; a character may be cut between two tokens.
    Returns:
      one index a step, not descending: two steps may share a token.
    """
    return find_ends(tokens, decode, split_steps(decode(tokens)))


def find_ends(tokens: Sequence[int], decode: Callable[[Sequence[int]], str], steps: Sequence[str]) -> list[int]:
    """As `step_ends`, for steps that are known; joined they are the tokens' text.

    A step ends where its last sign that is no white space is complete: the space behind is often one token with the
    word that follows.
    """
    if not len(tokens):
        return []
    text, marks = decode(tokens), list(_marks(tokens, decode))
    ends, start = [], 0
    for step in steps[:-1]:
        wanted = start + len(step.rstrip())
        start += len(step)
        index = max(0, bisect.bisect_left(marks, wanted, key=lambda mark: mark.length) - 1)
        mark = marks[index]
        last = marks[index + 1].place - 1 if index + 1 < len(marks) else len(tokens) - 1
        end = _first_end(tokens, decode, mark, last, text[mark.length : wanted])
        ends.append(max([end, *ends[-1:]]))
    return [*ends, len(tokens) - 1]


def group_step_ends(tokens: np.ndarray, lengths: np.ndarray, decode: Callable[[Sequence[int]], str]) -> np.ndarray:
    """The ends of the steps of groups of samples.

    Args:
      tokens: int32 [questions, group_size, max_new_tokens].
      lengths: int32 [questions, group_size], tokens of each sample.
      decode: see `step_ends`.
    Returns:
      int32 [questions, group_size, steps], -1 where there is no step; few numbers of steps, so few programs.
    """
    found = {place: step_ends(tokens[place][:length].tolist(), decode) for place, length in np.ndenumerate(lengths)}
    ends = np.full((*lengths.shape, size_of(max(map(len, found.values())) or 1)), -1, np.int32)
    for place, of_sample in found.items():
        ends[place][: len(of_sample)] = of_sample
    return ends


class _Mark(NamedTuple):
    """A place between two tokens, and between two characters.

    Attributes:
      place: the token behind it.
      length: characters of the text before it.
      back: an earlier place from which to decode: a tokenizer may drop the space with which what it decodes begins.
      known: characters of what is decoded from there up to the mark.
    """

    place: int
    length: int
    back: int
    known: int


def _marks(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Iterator[_Mark]:
    """Marks in order, the first at 0, so that no end needs more decoded than what lies between two or three of them."""
    mark = _Mark(0, 0, 0, 0)
    yield mark
    for place in range(_STRIDE, len(tokens)):
        if place < mark.place + _STRIDE:
            continue
        piece = decode(tokens[mark.back : place])
        if not piece.endswith(HALF):  # else a character may be cut here
            known = len(decode(tokens[mark.place : place]))
            mark = _Mark(place, mark.length + len(piece) - mark.known, mark.place, known)
            yield mark


def _first_end(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str], mark: _Mark, last: int, wanted: str
) -> int:
    """The first token with which the text behind a mark begins as wanted; the last one where none is."""

    def is_complete(end: int) -> bool:
        return decode(tokens[mark.back : end + 1]).startswith(wanted, mark.known)

    return mark.place + bisect.bisect_left(range(mark.place, last), True, key=is_complete)


def _protected(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of what no step ends in."""
    place = 0
    while found := _WHOLE.search(text, place):
        place = found.end()
        if text[place : place + 1] == "{" and found.group().startswith(("\\boxed", "\\fbox")):
            place = _closing_brace(text, place)
        yield found.start(), place


def _closing_brace(text: str, start: int) -> int:
    """The end of the braces that open at `start`, or of their line where they never close."""
    depth = 0
    for place in range(start, len(text)):
        if text[place - 1] != "\\":
            depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return place + 1
    return next((found.start() for found in [_LINE.search(text, start)] if found), len(text))


def _is_within(place: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= place < end for start, end in spans)


def _sentence_ends(text: str, protected: Sequence[tuple[int, int]]) -> Iterator[int]:
    start = 0
    for found in _SENTENCE.finditer(text):
        if not _is_within(found.start(), protected) and not _ABBREVIATION.search(text[start : found.start()]):
            start = found.end()
            yield start


def _cut(text: str, places: Iterator[int]) -> list[str]:
    """Cuts a text; white space at its ends makes no step of its own."""
    first = len(text) - len(text.lstrip())
    last = len(text.rstrip())
    borders = [0, *(place for place in places if first < place < last), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders)] if text else []
