"""The embedded generator of word problems: English and Chinese, exact answers, several solution styles.

A problem is a template filled with numbers. It belongs to the test split where a hash of its template and numbers
says so, in both languages alike: no test problem is seen in training under another name or in translation.
"""

import dataclasses
import hashlib
import os
import pathlib
import random
from collections.abc import Callable, Iterator
from fractions import Fraction

from dsmath.data.solutions import Solution

EMBEDDED = "embedded"
STYLES = ("worked", "brief", "bare")
_TEST_SHARE = 0.1
_NAMES = {
    "en": ("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo"),
    "zh": ("小明", "小红", "小刚", "小丽", "小华", "小军"),
}
_THINGS = {
    "en": ("apples", "books", "cards", "coins", "pens", "shells", "stamps", "toys"),
    "zh": ("苹果", "贝壳", "卡片", "邮票", "铅笔", "玩具"),
}
# The share of each style among the training solutions: most people who write answers down do not show the work.
STYLE_WEIGHTS = {"worked": 0.35, "brief": 0.1, "bare": 0.55}


@dataclasses.dataclass(frozen=True)
class _Template:
    """One kind of problem.

    Attributes:
      text: the question by language, with fields {name}, {things}, {a}, {b}, {c}.
      draw: gives the numbers a, b, c.
      steps: the work as (left, operator, right, result) of each step; the last result is the answer.
    """

    text: dict[str, str]
    draw: Callable[[random.Random], tuple[int, int, int]]
    steps: Callable[[int, int, int], list[tuple[object, str, object, object]]]


def _add_sub(rng: random.Random) -> tuple[int, int, int]:
    a, b = rng.randint(5, 60), rng.randint(5, 39)
    return a, b, rng.randint(2, a + b - 1)


def _mul_add(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(2, 12), rng.randint(2, 9), rng.randint(2, 40)


def _mul_sub(rng: random.Random) -> tuple[int, int, int]:
    a, b = rng.randint(2, 12), rng.randint(2, 9)
    return a, b, a * b + rng.randint(2, 40)


def _add_mul(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(2, 15), rng.randint(2, 15), rng.randint(2, 5)


def _add_div(rng: random.Random) -> tuple[int, int, int]:
    c, share = rng.randint(2, 9), rng.randint(3, 12)
    a = rng.randint(1, c * share - 1)
    return a, c * share - a, c


def _fraction(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(1, 12), rng.randint(1, 12), 1


_TEMPLATES = {
    "left": _Template(
        {
            "en": "{name} has {a} {things}, gets {b} more and gives away {c}. How many {things} are left?",
            "zh": "{name}有{a}个{things}，又得到{b}个，送出{c}个，还剩多少个？",
        },
        _add_sub,
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "-", c, a + b - c)],
    ),
    "boxes": _Template(
        {
            "en": "{name} has {b} boxes with {a} {things} each and {c} more. How many {things} in all?",
            "zh": "{name}有{b}盒{things}，每盒{a}个，另外还有{c}个，一共有多少个？",
        },
        _mul_add,
        lambda a, b, c: [(a, "*", b, a * b), (a * b, "+", c, a * b + c)],
    ),
    "change": _Template(
        {
            "en": "{name} buys {b} {things} at {a} dollars each and pays {c} dollars. How much is the change?",
            "zh": "{name}买{b}个{things}，每个{a}元，付了{c}元，应找回多少元？",
        },
        _mul_sub,
        lambda a, b, c: [(a, "*", b, a * b), (c, "-", a * b, c - a * b)],
    ),
    "each": _Template(
        {
            "en": "{a} boys and {b} girls get {c} {things} each. How many {things} are needed?",
            "zh": "{a}个男生和{b}个女生每人得到{c}个{things}，一共需要多少个？",
        },
        _add_mul,
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "*", c, (a + b) * c)],
    ),
    "share": _Template(
        {
            "en": "{name} puts {a} red and {b} blue {things} into {c} equal bags. How many {things} in each bag?",
            "zh": "{name}把{a}个红{things}和{b}个蓝{things}平均装进{c}个袋子，每袋多少个？",
        },
        _add_div,
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "/", c, (a + b) // c)],
    ),
    "part": _Template(
        {
            "en": "{name} has {a} new and {b} old {things}. What fraction of the {things} is new?",
            "zh": "{name}有{a}个新{things}和{b}个旧{things}，新{things}占几分之几？",
        },
        _fraction,
        lambda a, b, c: [(a, "+", b, a + b), (a, "/", a + b, Fraction(a, a + b))],
    ),
}


def generate(split: str, count: int, seed: int) -> list[Solution]:
    """Generates `count` distinct problems, each with one solution in a random style.

    Args:
      split: "train" or "test".
      count: number of problems; languages take turns at random.
      seed: the same seed gives the same list.
    Raises:
      ValueError: another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
    records: dict[str, Solution] = {}
    stream = _stream(random.Random(f"{split}/{seed}"), split)
    while len(records) < count:
        record = next(stream)
        records.setdefault(record.question, record)
    return list(records.values())


def load(problems: str | os.PathLike, split: str, *, count: int, seed: int) -> list[Solution]:
    """The problems of a config: `EMBEDDED`, or a folder with GSM8K's `train.jsonl` and `test.jsonl`.

    Args:
      problems: `config.problems`.
      split: "train" or "test".
      count: most records; real files give their first `count`, 0 gives all that a file holds.
      seed: of the generator.
    Raises:
      InputError: no such folder or file, or a damaged record.
    """
    if problems == EMBEDDED:
        return generate(split, count, seed)
    from dsmath.data import gsm8k

    records = gsm8k.read(problems, split)
    return records[:count] if count else records


def files(problems: str | os.PathLike, split: str) -> list[pathlib.Path]:
    """The files behind `load`, for the lineage; none for the embedded generator."""
    return [] if problems == EMBEDDED else [pathlib.Path(problems) / f"{split}.jsonl"]


def _stream(rng: random.Random, split: str) -> Iterator[Solution]:
    while True:
        kind = rng.choice(sorted(_TEMPLATES))
        template = _TEMPLATES[kind]
        numbers = template.draw(rng)
        if _split_of(kind, numbers) != split:
            continue
        language = rng.choice(("en", "zh"))
        style = rng.choices(STYLES, weights=[STYLE_WEIGHTS[style] for style in STYLES])[0]
        fields = dict(zip("abc", numbers, strict=True))
        fields |= {"name": rng.choice(_NAMES[language]), "things": rng.choice(_THINGS[language])}
        steps = template.steps(*numbers)
        yield Solution(
            question=template.text[language].format(**fields),
            answer=str(steps[-1][-1]),
            solution=_write(steps, style, language),
            language=language,
            source=f"{EMBEDDED}/{kind}/{style}",
        )


def _split_of(kind: str, numbers: tuple[int, int, int]) -> str:
    digest = hashlib.sha256(f"{kind}/{numbers}".encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") < _TEST_SHARE * 2**32 else "train"


def _write(steps: list[tuple[object, str, object, object]], style: str, language: str) -> str:
    """Writes the work in one of `STYLES`."""
    answer = f"\\boxed{{{_latex(steps[-1][-1])}}}"
    if style == "bare":
        return f"答案是{answer}。" if language == "zh" else f"The answer is {answer}."
    equations = [f"{left}{operator}{right}={_latex(result)}" for left, operator, right, result in steps]
    if style == "brief":
        return f"{equations[-1]}。{answer}" if language == "zh" else f"{equations[-1]}. {answer}"
    if language == "zh":
        return f"先算{equations[0]}。再算{equations[1]}。答案是{answer}。"
    return f"First {equations[0]}. Then {equations[1]}. The answer is {answer}."


def _latex(value: object) -> str:
    if isinstance(value, Fraction) and value.denominator > 1:
        return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    return str(value)
