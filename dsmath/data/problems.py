"""Problems by the name in a config, and the embedded generator of word problems with small numbers.

The generator knows English and Chinese, exact answers, several solution styles.
"""

import dataclasses
import os
import pathlib
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction

from dsmath.data import large_problems
from dsmath.data.benchmarks import gsm8k
from dsmath.data.solutions import Solution
from dsmath.data.templates import Numbers, Step, Template, check_split, distinct, draw, pose
from dsmath.runs.errors import InputError

EMBEDDED = "embedded"
LARGE = "embedded_large"
GENERATED = (EMBEDDED, LARGE)
STYLES = ("worked", "brief", "bare")
PROBLEMS_PER_DOCUMENT = 4
DRILLS_PER_DOCUMENT = 12  # problems whose equations alone are written down
_BRIEF_SHARE = 0.1  # of the training solutions


@dataclasses.dataclass(frozen=True)
class _Template(Template):
    """A kind of problem, and how people write its solution.

    Attributes:
      worked_share: share of the training solutions that show the work; of the rest most are bare answers. People show
        it for some kinds of problem more than for others, and so does a model that learns from them.
    """

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
    check_split(split)
    stream = _stream(random.Random(f"{split}/{seed}"), split)
    return distinct(((record.question, record) for record in stream), split, count)


def documents(count: int, seed: int) -> Iterator[str]:
    """Pages of a workbook for pretraining: training problems with their work shown, then a drill of equations.

    Args:
      count: number of pages.
      seed: the same seed gives the same pages.
    """
    rng = random.Random(f"workbook/{seed}")
    stream = draw(_TEMPLATES, rng, "train")
    for _ in range(count):
        page = []
        for _ in range(PROBLEMS_PER_DOCUMENT):
            kind, numbers = next(stream)
            record = _pose(rng, kind, numbers, "worked")
            page.append(f"{record.question}\n{record.solution}")
        drill = [step for _ in range(DRILLS_PER_DOCUMENT) for step in _steps(*next(stream))]
        page.append("\n".join(f"{left}{operator}{right}={_latex(result)}" for left, operator, right, result in drill))
        yield "\n\n".join(page)


def load(
    problems: str | os.PathLike, split: str, *, count: int, seed: int, kinds: Sequence[str] = ("cot",)
) -> list[Solution]:
    """The problems of a config: `EMBEDDED`, `LARGE`, or a folder with GSM8K's `train.jsonl` and `test.jsonl`.

    Args:
      problems: `config.problems`.
      split: "train" or "test".
      count: most questions; real files give their first `count`, 0 gives all that a file holds.
      seed: of the generator.
      kinds: of the solutions; each question comes once with each of them.
    Raises:
      InputError: no such folder or file, a damaged record, no problem asked of the generator, or a kind of solution
        that these problems do not have.
    """
    if not kinds:
        raise InputError("config.kinds: is empty; name at least one kind of solution, such as cot")
    for kind in kinds:
        if kind not in kinds_of(problems):
            raise InputError(
                f"config.kinds: {kind!r} is no kind of solution that problems={str(problems)!r} has, only "
                f"{', '.join(kinds_of(problems))}; problems={LARGE} has more"
            )
    if problems in GENERATED:
        if count < 1:
            raise InputError(f"config.num_problems: {count} must be at least 1 for the embedded generator; raise it")
        if problems == LARGE:
            return large_problems.generate(split, count, seed, kinds)
        return generate(split, count, seed)
    records = _read_gsm8k(pathlib.Path(problems), split)
    return records[:count] if count else records


def kinds_of(problems: str | os.PathLike) -> tuple[str, ...]:
    """The kinds of solution that the problems of a config have."""
    return large_problems.KINDS if problems == LARGE else ("cot",)


def workbook(problems: str, count: int, seed: int) -> Iterator[str]:
    """Pages for pretraining on the problems of `EMBEDDED` or `LARGE`; see `documents`."""
    return large_problems.documents(count, seed) if problems == LARGE else documents(count, seed)


def files(problems: str | os.PathLike, split: str) -> list[pathlib.Path]:
    """The files behind `load`, for the lineage; none for the embedded generators."""
    return [] if problems in GENERATED else [pathlib.Path(problems) / f"{split}.jsonl"]


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
    for kind, numbers in draw(_TEMPLATES, rng, split):
        worked = _TEMPLATES[kind].worked_share
        style = rng.choices(STYLES, weights=[worked, _BRIEF_SHARE, 1 - worked - _BRIEF_SHARE])[0]
        yield _pose(rng, kind, numbers, style)


def _steps(kind: str, numbers: Numbers) -> list[Step]:
    return _TEMPLATES[kind].steps(*numbers)


def _pose(rng: random.Random, kind: str, numbers: Numbers, style: str) -> Solution:
    """Words a problem in a random language and writes its solution."""
    question, language = pose(_TEMPLATES[kind], rng, numbers)
    steps = _steps(kind, numbers)
    return Solution(
        question=question,
        answer=str(steps[-1][-1]),
        solution=_write(steps, style, language),
        language=language,
        source=f"{EMBEDDED}/{kind}/{style}",
    )


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
