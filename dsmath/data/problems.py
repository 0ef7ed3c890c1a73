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

from dsmath.data.benchmarks import gsm8k
from dsmath.data.solutions import Solution
from dsmath.runs.errors import InputError

EMBEDDED = "embedded"
STYLES = ("worked", "brief", "bare")
PROBLEMS_PER_DOCUMENT = 4
DRILLS_PER_DOCUMENT = 12  # problems whose equations alone are written down
_TEST_SHARE = 0.1
_MOST_REPEATED = 1000  # draws in a row that give nothing new
_NAMES = {
    "en": ("Anna", "Ben", "Carl", "Dora", "Emma", "Finn", "Gina", "Hugo"),
    "zh": ("小明", "小红", "小刚", "小丽", "小华", "小军"),
}
_THINGS = {
    "en": ("apples", "books", "cards", "coins", "pens", "shells", "stamps", "toys"),
    "zh": ("苹果", "贝壳", "卡片", "邮票", "铅笔", "玩具"),
}
_BRIEF_SHARE = 0.1  # of the training solutions


Numbers = tuple[int, int, int]
Step = tuple[object, str, object, object]  # left, operator, right, result


@dataclasses.dataclass(frozen=True)
class _Template:
    """One kind of problem.

    Attributes:
      text: the question by language, with fields {name}, {things}, {a}, {b}, {c}.
      draw: gives the numbers a, b, c.
      steps: the work as (left, operator, right, result) of each step; the last result is the answer.
      worked_share: share of the training solutions that show the work; of the rest most are bare answers. People show
        it for some kinds of problem more than for others, and so does a model that learns from them.
    """

    text: dict[str, str]
    draw: Callable[[random.Random], Numbers]
    steps: Callable[[int, int, int], list[Step]]
    worked_share: float


def _add_sub(rng: random.Random) -> Numbers:
    a, b = rng.randint(2, 15), rng.randint(2, 15)
    return a, b, rng.randint(1, min(15, a + b - 1))


def _mul_add(rng: random.Random) -> Numbers:
    return rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 9)


def _mul_sub(rng: random.Random) -> Numbers:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return a, b, a * b + rng.randint(1, 9)


def _add_mul(rng: random.Random) -> Numbers:
    return rng.randint(1, 6), rng.randint(1, 6), rng.randint(2, 9)


def _add_div(rng: random.Random) -> Numbers:
    c, share = rng.randint(2, 9), rng.randint(2, 9)
    a = rng.randint(1, c * share - 1)
    return a, c * share - a, c


def _fraction(rng: random.Random) -> Numbers:
    return rng.randint(1, 9), rng.randint(1, 9), 1


_TEMPLATES = {
    "left": _Template(
        {
            "en": "{name} has {a} {things}, gets {b} more and gives away {c}. How many are left?",
            "zh": "{name}有{a}个{things}，又得到{b}个，送出{c}个，还剩多少个？",
        },
        _add_sub,
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "-", c, a + b - c)],
        0.3,
    ),
    "boxes": _Template(
        {
            "en": "{name} has {b} boxes of {a} {things} and {c} more. How many in all?",
            "zh": "{name}有{b}盒{things}，每盒{a}个，另外还有{c}个，一共有多少个？",
        },
        _mul_add,
        lambda a, b, c: [(a, "*", b, a * b), (a * b, "+", c, a * b + c)],
        0.6,
    ),
    "change": _Template(
        {
            "en": "{name} buys {b} {things} at {a} dollars each and pays {c} dollars. How much is the change?",
            "zh": "{name}买{b}个{things}，每个{a}元，付了{c}元，应找回多少元？",
        },
        _mul_sub,
        lambda a, b, c: [(a, "*", b, a * b), (c, "-", a * b, c - a * b)],
        0.3,
    ),
    "each": _Template(
        {
            "en": "{a} boys and {b} girls get {c} {things} each. How many in all?",
            "zh": "{a}个男生和{b}个女生每人得到{c}个{things}，一共需要多少个？",
        },
        _add_mul,
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "*", c, (a + b) * c)],
        0.6,
    ),
    "share": _Template(
        {
            "en": "{name} puts {a} red and {b} blue {things} into {c} equal bags. How many in each bag?",
            "zh": "{name}把{a}个红{things}和{b}个蓝{things}平均装进{c}个袋子，每袋多少个？",
        },
        _add_div,
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "/", c, (a + b) // c)],
        0.6,
    ),
    "part": _Template(
        {
            "en": "{name} has {a} new and {b} old {things}. What fraction of the {things} is new?",
            "zh": "{name}有{a}个新{things}和{b}个旧{things}，新{things}占几分之几？",
        },
        _fraction,
        lambda a, b, c: [(a, "+", b, a + b), (a, "/", a + b, Fraction(a, a + b))],
        0.3,
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
    repeated = 0
    while len(records) < count:
        record = next(stream)
        repeated = repeated + 1 if record.question in records else 0
        if repeated > _MOST_REPEATED:
            raise InputError(f"config.num_problems: {count} is more than the generator knows for {split!r}; lower it")
        records.setdefault(record.question, record)
    return list(records.values())


def documents(count: int, seed: int) -> Iterator[str]:
    """Pages of a workbook for pretraining: training problems with their work shown, then a drill of equations.

    Args:
      count: number of pages.
      seed: the same seed gives the same pages.
    """
    rng = random.Random(f"workbook/{seed}")
    stream = _draw(rng, "train")
    for _ in range(count):
        page = []
        for _ in range(PROBLEMS_PER_DOCUMENT):
            kind, numbers = next(stream)
            record = _pose(rng, kind, numbers, "worked")
            page.append(f"{record.question}\n{record.solution}")
        drill = [step for _ in range(DRILLS_PER_DOCUMENT) for step in _steps(*next(stream))]
        page.append("\n".join(f"{left}{operator}{right}={_latex(result)}" for left, operator, right, result in drill))
        yield "\n\n".join(page)


def load(problems: str | os.PathLike, split: str, *, count: int, seed: int) -> list[Solution]:
    """The problems of a config: `EMBEDDED`, or a folder with GSM8K's `train.jsonl` and `test.jsonl`.

    Args:
      problems: `config.problems`.
      split: "train" or "test".
      count: most records; real files give their first `count`, 0 gives all that a file holds.
      seed: of the generator.
    Raises:
      InputError: no such folder or file, a damaged record, or no problem asked of the generator.
    """
    if problems == EMBEDDED:
        if count < 1:
            raise InputError(f"config.num_problems: {count} must be at least 1 for the embedded generator; raise it")
        return generate(split, count, seed)
    records = _read_gsm8k(pathlib.Path(problems), split)
    return records[:count] if count else records


def files(problems: str | os.PathLike, split: str) -> list[pathlib.Path]:
    """The files behind `load`, for the lineage; none for the embedded generator."""
    return [] if problems == EMBEDDED else [pathlib.Path(problems) / f"{split}.jsonl"]


def _read_gsm8k(folder: pathlib.Path, split: str) -> list[Solution]:
    """The problems with their work, closed by "The answer is \\boxed{72}."."""
    path = folder / f"{split}.jsonl"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; config.problems takes 'embedded' or a folder with GSM8K's files")
    if not path.is_file():
        raise InputError(f"{path}: no such file; the folder needs GSM8K's {split}.jsonl")
    return [
        Solution(
            question=item.question,
            answer=item.answer,
            solution=f"{item.solution}\nThe answer is \\boxed{{{item.answer}}}.".lstrip("\n"),
            source=f"gsm8k/{split}",
        )
        for item in gsm8k.read([path], split)
    ]


def _stream(rng: random.Random, split: str) -> Iterator[Solution]:
    for kind, numbers in _draw(rng, split):
        worked = _TEMPLATES[kind].worked_share
        style = rng.choices(STYLES, weights=[worked, _BRIEF_SHARE, 1 - worked - _BRIEF_SHARE])[0]
        yield _pose(rng, kind, numbers, style)


def _draw(rng: random.Random, split: str) -> Iterator[tuple[str, Numbers]]:
    """Kinds of problem with their numbers, those of one split."""
    while True:
        kind = rng.choice(sorted(_TEMPLATES))
        numbers = _TEMPLATES[kind].draw(rng)
        if _split_of(kind, numbers) == split:
            yield kind, numbers


def _steps(kind: str, numbers: Numbers) -> list[Step]:
    return _TEMPLATES[kind].steps(*numbers)


def _pose(rng: random.Random, kind: str, numbers: Numbers, style: str) -> Solution:
    """Words a problem in a random language and writes its solution."""
    language = rng.choice(("en", "zh"))
    fields = dict(zip("abc", numbers, strict=True))
    fields |= {"name": rng.choice(_NAMES[language]), "things": rng.choice(_THINGS[language])}
    steps = _steps(kind, numbers)
    return Solution(
        question=_TEMPLATES[kind].text[language].format(**fields),
        answer=str(steps[-1][-1]),
        solution=_write(steps, style, language),
        language=language,
        source=f"{EMBEDDED}/{kind}/{style}",
    )


def _split_of(kind: str, numbers: Numbers) -> str:
    digest = hashlib.sha256(f"{kind}/{numbers}".encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") < _TEST_SHARE * 2**32 else "train"


def _write(steps: list[Step], style: str, language: str) -> str:
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
