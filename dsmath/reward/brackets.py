"""Splitting of texts outside their brackets."""

import functools
import re

OPEN, CLOSE = "([{", ")]}"


def top_level(text: str, pattern: re.Pattern) -> list[re.Match]:
    """The matches of a pattern that stand in no bracket."""
    spots = list(pattern.finditer(text))
    if not spots:
        return []
    kept, depth, bars = [], 0, 0
    waiting = iter(spots)
    spot = next(waiting, None)
    for token in re.finditer(r"\\begin|\\end|\\?[{(\[]|\\?[})\]]|\||$", text):
        while spot is not None and spot.start() < token.start():
            if depth == 0 and not bars:
                kept.append(spot)
            spot = next(waiting, None)
        mark = token[0]
        if mark == "|":
            bars ^= depth == 0
        elif mark in ("\\begin",) or mark[-1:] in ("{", "(", "["):
            depth += 1
        elif mark in ("\\end",) or mark[-1:] in ("}", ")", "]"):
            depth -= 1
    return kept


def split_pattern(text: str, pattern: re.Pattern) -> list[str]:
    """The parts between a pattern's matches that stand in no bracket."""
    parts, start = [], 0
    for found in top_level(text, pattern):
        parts.append(text[start : found.start()])
        start = found.end()
    return [*parts, text[start:]]


@functools.cache
def _separator(character: str) -> re.Pattern:
    return re.compile(re.escape(character))


def split(text: str, character: str) -> list[str]:
    """The parts between a character's places that stand in no bracket."""
    return split_pattern(text, _separator(character)) if character in text else [text]


def is_one_bracket(text: str) -> bool:
    """Whether the first bracket closes at the end; intervals mix the kinds of bracket."""
    depth = 0
    for index, char in enumerate(text):
        if char in OPEN:
            depth += 1
        elif char in CLOSE:
            depth -= 1
            if depth == 0:
                return index == len(text) - 1
    return False
