"""A folder of an evaluation as the harness leaves it: figures and verdicts of a model that is right by chance."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from dsmath.data import problems
from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.evaluation import metrics, published

ATTACK = "<script>document.title='owned'</script></script><img src=x onerror=\"document.title='owned'\">"
_SCHEMA = pyarrow.schema(
    [(name, pyarrow.string()) for name in ("benchmark", "mode", "id", "subject", "level", "language", "question")]
    + [("gold", pyarrow.string()), ("prompt_hash", pyarrow.string())]
    + [("sample_index", pyarrow.int32()), ("completion", pyarrow.string()), ("tokens", pyarrow.int32())]
    + [("truncated", pyarrow.bool_()), ("finish_reason", pyarrow.string()), ("answer", pyarrow.string())]
    + [("correct", pyarrow.bool_()), ("reason", pyarrow.string()), ("detail", pyarrow.string())]
    + [("seconds", pyarrow.float64()), ("answer_paper", pyarrow.string()), ("correct_paper", pyarrow.bool_())]
    + [("vote", pyarrow.int32())]
)


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with the text of a right solution of a model."""

    id: str
    question: str
    gold: str
    solution: str
    wrong: str
    language: str = "en"
    subject: str = ""
    level: str = ""


def _embedded(count: int, language: str) -> list[Question]:
    records = [each for each in problems.load("embedded", "test", count=4 * count, seed=3) if each.language == language]
    return [
        Question(f"{place}", each.question, each.answer, each.solution, "13", language, level=str(1 + place % 6))
        for place, each in enumerate(records[:count])
    ]


def _competition(count: int) -> list[Question]:
    subjects = ["Algebra", "Counting & Probability", "Geometry", "Intermediate Algebra", "Number Theory", "Prealgebra"]
    found = []
    for place in range(count):
        a, b = 2 + place % 7, 3 + place % 11
        gold = f"\\frac{{{a}}}{{{b}}}"
        text = (
            f"We want the $x > 0$ with ${b}x^2 = \\frac{{{a * a}}}{{{b}}}$. Dividing,\n\\[x^2 = \\frac{{{a * a}}}"
            f"{{{b * b}}}, \\qquad x = \\sqrt{{\\frac{{{a * a}}}{{{b * b}}}}} = {gold}.\\]\n"
            f"The answer is $\\boxed{{{gold}}}$."
        )
        question = f"Let $f(x) = {b}x^2$. For which positive $x$ is $f(x) = \\frac{{{a * a}}}{{{b}}}$?"
        subject, level = subjects[place % len(subjects)], f"Level {1 + place % 5}"
        found.append(Question(f"test/{place}", question, gold, text, "\\sqrt{2}", "en", subject, level))
    return found


def _with_tool(questions: Sequence[Question]) -> list[Question]:
    return [
        dataclasses.replace(
            each,
            solution="I use a program.\n```python\nfrom sympy import Rational\n\nx = Rational(3, 4)\n"
            f"if x < 1:\n    print(x)\n```\n```output\n{each.gold}\n```\nThe answer is $\\boxed{{{each.gold}}}$.",
        )
        for each in questions
    ]


def _programs(count: int) -> list[Question]:
    return [
        Question(
            id=f"HumanEval/{place}",
            question=f'def add_{place}(a: int, b: int) -> int:\n    """a + b + {place}"""\n',
            gold="",
            solution=f"    total = a + b\n    return total + {place}",
            wrong="",
        )
        for place in range(count)
    ]


RUNS: tuple[tuple[str, str, Callable[[int], list[Question]], float, int], ...] = (
    ("gsm8k", "chat", lambda count: _embedded(count, "en"), 0.8, 8),
    ("math", "chat", _competition, 0.5, 8),
    ("math", "chat_tool", lambda count: _with_tool(_competition(count)), 0.6, 0),
    ("cmath", "chat", lambda count: _embedded(count, "zh"), 0.7, 0),
    ("humaneval", "few_shot", _programs, 0.4, 4),
)


def write_evaluation(workdir: pathlib.Path, count: int = 40) -> pathlib.Path:
    """Writes `result.json`, `verdicts/`, a config and a lineage; `count` questions for each benchmark and mode."""
    rng = np.random.default_rng(1)
    results = []
    for benchmark, mode, make, skill, samples in RUNS:
        questions = make(count)
        chances = rng.beta(3 * skill, 3 * (1 - skill), len(questions))
        greedy = [_judge(benchmark, mode, q, 0, rng.random() < p, rng) for q, p in zip(questions, chances, strict=True)]
        if benchmark == "math" and mode == "chat":
            greedy[1] |= {"completion": f"{ATTACK} and $\\text{{{ATTACK}}}$, $\\frac{{1$ and $x<y$", "detail": ATTACK}
            greedy[2] |= {"correct": True, "reason": "right", "answer_paper": "2", "correct_paper": False}
        drawn = [
            [_judge(benchmark, mode, q, k, rng.random() < p, rng) for k in range(samples)]
            for q, p in zip(questions, chances, strict=True)
        ]
        _write_table(workdir / "verdicts" / f"{benchmark}-{mode}-greedy.parquet", greedy)
        if samples:
            _write_table(
                workdir / "verdicts" / f"{benchmark}-{mode}-samples.parquet", [row for rows in drawn for row in rows]
            )
        results.append(_summarize(benchmark, mode, greedy, drawn, samples))
    _write_json(workdir / "result.json", {"results": results, "protocol": "released", "seconds": 12.5})
    _write_json(workdir / "config.json", {"stage": "evaluate", "init_from": "runs/rl", "published": published.RL})
    parent = workdir.parent / "rl"
    _write_json(parent / "lineage.json", {"parents": {}, "data": {}, "code": "0.1.0+abc"})
    record = {"workdir": str(parent), "lineage": "0123456789abcdef", "step": 50}
    _write_json(workdir / "lineage.json", {"parents": {"init_from": record}, "data": {}, "code": "0.1.0+def"})
    return workdir


def _judge(benchmark: str, mode: str, question: Question, index: int, right: bool, rng: np.random.Generator) -> dict:
    """A verdict of a solution: right, or wrong in one of the ways there are."""
    reason = "right" if right else str(rng.choice(["wrong", "no_answer", "timeout", "error"], p=[0.7, 0.15, 0.1, 0.05]))
    text, answer = question.solution, question.gold or question.solution  # of code the program
    if reason == "wrong" and question.wrong:
        text, answer = text.replace(f"\\boxed{{{question.gold}}}", f"\\boxed{{{question.wrong}}}"), question.wrong
    elif reason == "no_answer":
        text, answer = text[: len(text) // 2], None
    details = {"timeout": "the program ran longer than 10 s", "error": "NameError: name 'y' is not defined"}
    return {
        "benchmark": benchmark, "mode": mode, "id": question.id, "subject": question.subject, "level": question.level,
        "language": question.language, "question": question.question, "gold": question.gold, "prompt_hash": "00ff",
        "sample_index": index, "completion": text, "tokens": len(text) // 3, "truncated": reason == "no_answer",
        "finish_reason": "length" if reason == "no_answer" else "stop", "answer": answer, "correct": right,
        "reason": reason, "detail": details.get(reason, ""), "seconds": 10.0 if reason == "timeout" else 0.002,
        "answer_paper": answer, "correct_paper": right, "vote": None if answer is None else 0 if right else 1,
    }  # fmt: skip


def _summarize(benchmark: str, mode: str, greedy: list[dict], drawn: list[list[dict]], samples: int) -> dict:
    def share(rows: Sequence[dict], field: str, value: object) -> float:
        return sum(row[field] == value for row in rows) / len(rows)

    def by(field: str) -> dict:
        names = sorted({row[field] for row in greedy if row[field]})
        found = {}
        for name in names:
            rows = [row for row in greedy if row[field] == name]
            low, high = interval(rows)
            found[name] = {"accuracy": share(rows, "correct", True), "low": low, "high": high, "questions": len(rows)}
        return found

    def interval(rows: Sequence[dict]) -> tuple[float, float]:
        return metrics.accuracy_interval(sum(row["correct"] for row in rows), len(rows))

    accuracy, right = share(greedy, "correct", True), [sum(row["correct"] for row in rows) for rows in drawn]
    low, high = interval(greedy)
    ks = [k for k in (1, 2, 4, 8) if k <= samples]
    passed = {k: float(np.mean([metrics.pass_at_k(samples, c, k) for c in right])) for k in ks}
    voted = {k: float(np.mean([2 * c > samples for c in right])) * (1 - 0.1 / k) for k in ks if mode == "chat"}
    quoted = published.find(published.RL, benchmark, mode)
    upstream = BENCHMARKS[benchmark].sizes["test"]
    return {
        "benchmark": benchmark, "title": BENCHMARKS[benchmark].title, "mode": mode, "questions": len(greedy),
        "upstream": upstream, "coverage": f"{len(greedy)} of {upstream:,}", "shots": 0, "grader": "strict",
        "accuracy": accuracy, "low": low, "high": high, "paper_accuracy": share(greedy, "correct_paper", True),
        "published": quoted, "difference": None if quoted is None else accuracy - quoted,
        "no_answer": share(greedy, "reason", "no_answer"), "truncated": share(greedy, "truncated", True),
        "timeouts": share(greedy, "reason", "timeout"), "errors": share(greedy, "reason", "error"),
        "mean_tokens": 61.25, "samples": samples, "pass_at": passed, "maj_at": voted,
        "pass_at_interval": {k: (value - 0.03, min(value + 0.03, 1)) for k, value in passed.items()},
        "maj_at_interval": {k: (value - 0.05, min(value + 0.05, 1)) for k, value in voted.items()},
        "by_subject": by("subject"), "by_level": by("level"),
    }  # fmt: skip


def _write_table(path: pathlib.Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_SCHEMA), path)


def _write_json(path: pathlib.Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="session")
def attack() -> str:
    """A completion that would run if it were markup."""
    return ATTACK


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory) -> pathlib.Path:
    """An evaluation's folder."""
    return write_evaluation(tmp_path_factory.mktemp("evaluation") / "evaluate")
