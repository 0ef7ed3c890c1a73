"""The embedded generator of problems with large numbers, each solved in words, by a program, and by both in turns.

A model that computes in its head must get every digit right; one with a tool must only copy the numbers.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from dsmath.data.solutions import Solution
from dsmath.data.templates import Numbers, Step, Template, check_split, distinct, draw, fields, pose
from dsmath.data.turns import write_block, write_output

KINDS = ("cot", "pot", "tir")
PROBLEMS_PER_DOCUMENT = 4
DRILLS_PER_DOCUMENT = 4  # problems whose equations alone are written down
_NAME = "embedded_large"


@dataclasses.dataclass(frozen=True)
class _Template(Template):
    """A kind of problem.

    Attributes:
      expression: what a program computes, with fields {a}, {b}, …
    """

    expression: str


def _draw(*ranges: tuple[int, int]) -> Callable[[random.Random], Numbers]:
    return lambda rng: tuple(rng.randint(*bounds) for bounds in ranges)


def _left(rng: random.Random) -> Numbers:
    a, b = rng.randint(1000, 99999), rng.randint(1000, 99999)
    return a, b, rng.randint(1000, a + b - 1)


def _running_sums(*numbers: int) -> list[Step]:
    totals = list(itertools.accumulate(numbers))
    return [
        (before, "+", number, after) for before, number, after in zip(totals[:-1], numbers[1:], totals[1:], strict=True)
    ]


_TEMPLATES = {
    "left": _Template(
        {
            "en": "{name} has {a} {things}, gets {b} more and gives away {c}. How many are left?",
            "zh": "{name}有{a}个{things}，又得到{b}个，送出{c}个，还剩多少个？",
        },
        _left,
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "-", c, a + b - c)],
        "{a}+{b}-{c}",
    ),
    "boxes": _Template(
        {
            "en": "{name} has {b} boxes of {a} {things} and {c} more. How many in all?",
            "zh": "{name}有{b}盒{things}，每盒{a}个，另外还有{c}个，一共有多少个？",
        },
        _draw((100, 999), (100, 999), (100, 9999)),
        lambda a, b, c: [(a, "*", b, a * b), (a * b, "+", c, a * b + c)],
        "{a}*{b}+{c}",
    ),
    "each": _Template(
        {
            "en": "{a} boys and {b} girls get {c} {things} each. How many in all?",
            "zh": "{a}个男生和{b}个女生每人得到{c}个{things}，一共需要多少个？",
        },
        _draw((100, 999), (100, 999), (100, 999)),
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "*", c, (a + b) * c)],
        "({a}+{b})*{c}",
    ),
    "shelves": _Template(
        {
            "en": "{name} fills {a} shelves with {b} rows of {c} {things} each. How many in all?",
            "zh": "{name}摆满{a}个架子，每个架子{b}排，每排{c}个{things}，一共有多少个？",
        },
        _draw((11, 99), (11, 99), (11, 99)),
        lambda a, b, c: [(a, "*", b, a * b), (a * b, "*", c, a * b * c)],
        "{a}*{b}*{c}",
    ),
    "days": _Template(
        {
            "en": "{name} counts {a}, {b}, {c}, {d} and {e} {things} on five days. How many in all?",
            "zh": "{name}五天里分别数出{a}、{b}、{c}、{d}和{e}个{things}，一共有多少个？",
        },
        _draw(*[(100, 9999)] * 5),
        _running_sums,
        "{a}+{b}+{c}+{d}+{e}",
    ),
}
_COMPUTE = {"en": "We compute it.", "zh": "用程序计算。"}
_ANSWER = {"en": "The answer is \\boxed{{{}}}.", "zh": "答案是\\boxed{{{}}}。"}


def generate(split: str, count: int, seed: int, kinds: Sequence[str]) -> list[Solution]:
    """Generates `count` distinct problems, each with one solution of each kind.

    Args:
      split: "train" or "test".
      count: number of problems; languages take turns at random.
      seed: the same seed gives the same problems, whatever the kinds.
      kinds: of `KINDS`.
    Returns:
      the records, those of a problem one after another.
    Raises:
      ValueError: another split.
    """
    check_split(split)
    problems = distinct(_stream(random.Random(f"large/{split}/{seed}"), split), split, count)
    return [_solve(*problem, kind) for problem in problems for kind in kinds]


def documents(count: int, seed: int) -> Iterator[str]:
    """Pages of a workbook for pretraining: training problems with their work or a program, then a drill of equations.

    Args:
      count: number of pages.
      seed: the same seed gives the same pages.
    """
    rng = random.Random(f"large workbook/{seed}")
    stream = _stream(rng, "train")
    for _ in range(count):
        page = []
        for _ in range(PROBLEMS_PER_DOCUMENT):
            record = _solve(*next(stream)[1], rng.choice(("cot", "tir")))
            page.append(f"{record.question}\n{record.solution}")
        drill = [step for _ in range(DRILLS_PER_DOCUMENT) for step in _steps(*next(draw(_TEMPLATES, rng, "train")))]
        yield "\n\n".join([*page, "\n".join(map(_equation, drill))])


def _stream(rng: random.Random, split: str) -> Iterator[tuple[str, tuple[str, Numbers, str, str]]]:
    """Questions, each with its problem: the template's name, numbers, question and language."""
    for name, numbers in draw(_TEMPLATES, rng, split):
        question, language = pose(_TEMPLATES[name], rng, numbers)
        yield question, (name, numbers, question, language)


def _steps(name: str, numbers: Numbers) -> list[Step]:
    return _TEMPLATES[name].steps(*numbers)


def _solve(name: str, numbers: Numbers, question: str, language: str, kind: str) -> Solution:
    """The problem with its solution of a kind."""
    answer = str(_steps(name, numbers)[-1][-1])
    program = f"print({_TEMPLATES[name].expression.format(**fields(numbers))})"
    final = _ANSWER[language].format(answer)
    solution = {
        "cot": f"{_write_work(_steps(name, numbers), language)}{final}",
        "pot": write_block(program).rstrip("\n"),
        "tir": f"{_COMPUTE[language]}\n{write_block(program)}{write_output(answer)}{final}",
    }[kind]
    return Solution(question, answer, solution, kind, language, f"{_NAME}/{name}/{kind}")


def _write_work(steps: list[Step], language: str) -> str:
    first, *rest = map(_equation, steps)
    if language == "zh":
        return f"先算{first}。" + "".join(f"再算{equation}。" for equation in rest)
    return f"First {first}. " + "".join(f"Then {equation}. " for equation in rest)


def _equation(step: Step) -> str:
    left, operator, right, result = step
    return f"{left}{operator}{right}={result}"
