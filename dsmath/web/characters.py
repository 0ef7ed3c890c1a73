"""Characters as numbers in arrays: what each is, and texts made of them, a page at a time."""

import functools
import sys
from collections.abc import Callable

import numpy as np

_EMPTY = 0x40000  # from here on no character is a letter or a digit


def codes(text: str) -> np.ndarray:
    """The code points of a text: uint16 where they all fit, else uint32."""
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) == 2 * len(text):  # no character takes two units
        return np.frombuffer(units, "<u2")
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def to_text(code_L: np.ndarray) -> str:
    """The text of code points as `codes` gives them."""
    return code_L.tobytes().decode("utf-16-le" if code_L.itemsize == 2 else "utf-32-le", "surrogatepass")


@functools.cache
def are_alphanumeric() -> np.ndarray:
    """Of every character whether it is a letter or a digit, as for `\\w` but without `_`: bool [0x110000]."""
    return _ask_all(np.char.isalnum)


@functools.cache
def are_digits() -> np.ndarray:
    """Of every character whether it is a decimal digit, as for `\\d`: bool [0x110000]."""
    return _ask_all(np.char.isdecimal)


def are_within(ranges: str) -> np.ndarray:
    """Of every character whether it is within one of the ranges, written as in a regular expression's class."""
    within = np.zeros(sys.maxunicode + 1, bool)
    for first, last in zip(ranges[::3], ranges[2::3], strict=True):
        within[ord(first) : ord(last) + 1] = True
    return within


def _ask_all(ask: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Planes 4 to 16 are empty, or hold tags and private characters."""
    answer = np.zeros(sys.maxunicode + 1, bool)
    answer[:_EMPTY] = ask(np.arange(_EMPTY, dtype="<u4").view("<U1"))
    return answer
