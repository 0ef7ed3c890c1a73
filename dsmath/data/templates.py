"""What the embedded generators share: templates of problems, their wording in two languages, and their splits.

A problem is a template filled with numbers. It belongs to the test split where a hash of its template and numbers
says so, in both languages alike: no test problem is seen in training under another name or in translation.
"""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from dsmath.runs.errors import InputError

T = TypeVar("T")
Numbers = tuple[int, ...]
Step = tuple[object, str, object, object]  # left, operator, right, result

SPLITS = ("train", "test")
_TEST_SHARE = 0.1
_MOST_REPEATED = 1000  # draws in a row that give nothing new
_LETTERS = "abcdefgh"  # fields of the numbers
_NAMES = {
    "en": ("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo"),
    "zh": ("小明", "小红", "小刚", "小丽", "小华", "小军"),
}
_THINGS = {
    "en": ("apples", "books", "cards", "coins", "pens", "shells", "stamps", "toys"),
    "zh": ("苹果", "贝壳", "卡片", "邮票", "铅笔", "玩具"),
}


@dataclasses.dataclass(frozen=True)
class Template:
    """One kind of problem.

    Attributes:
      text: the question by language, with fields {name}, {things}, {a}, {b}, …
      draw: gives the numbers a, b, …
      steps: the work as (left, operator, right, result) of each step; the last result is the answer.
    """

    text: Mapping[str, str]
    draw: Callable[[random.Random], Numbers]
    steps: Callable[..., list[Step]]


def draw(templates: Mapping[str, Template], rng: random.Random, split: str) -> Iterator[tuple[str, Numbers]]:
    """Kinds of problem with their numbers, those of one split."""
    while True:
        kind = rng.choice(sorted(templates))
        numbers = templates[kind].draw(rng)
        if _split_of(kind, numbers) == split:
            yield kind, numbers


def fields(numbers: Numbers) -> dict[str, int]:
    """The numbers by the letters of their fields."""
    return dict(zip(_LETTERS, numbers, strict=False))


def pose(template: Template, rng: random.Random, numbers: Numbers) -> tuple[str, str]:
    """The question in a random language, and the language."""
    language = rng.choice(("en", "zh"))
    words = {"name": rng.choice(_NAMES[language]), "things": rng.choice(_THINGS[language])}
    return template.text[language].format(**fields(numbers), **words), language


def distinct(stream: Iterator[tuple[str, T]], split: str, count: int) -> list[T]:
    """What the first `count` distinct questions of a stream of (question, anything) bring.

    Raises:
      InputError: the stream has nothing new any more.
    """
    found: dict[str, T] = {}
    repeated = 0
    while len(found) < count:
        question, value = next(stream)
        repeated = repeated + 1 if question in found else 0
        if repeated > _MOST_REPEATED:
            raise InputError(f"config.num_problems: {count} is more than the generator knows for {split!r}; lower it")
        found.setdefault(question, value)
    return list(found.values())


def check_split(split: str) -> None:
    """Refuses, by a ValueError, what is neither "train" nor "test"."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'test'")


def _split_of(kind: str, numbers: Numbers) -> str:
    digest = hashlib.sha256(f"{kind}/{numbers}".encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") < _TEST_SHARE * 2**32 else "train"
