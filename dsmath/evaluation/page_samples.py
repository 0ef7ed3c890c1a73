"""The solutions that people read in an evaluation's page: which are shown, and what is told of them."""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.evaluation.page_texts import LONGEST, Texts
from dsmath.evaluation.results import Result, table_file
from dsmath.runs.errors import InputError

GREEDY, SAMPLES = "greedy", "samples"
REASONS = {"right": "right", "wrong": "wrong", "no_answer": "no answer", "timeout": "time-out", "error": "error"}
_NEEDED = (
    "id", "subject", "level", "language", "question", "gold", "sample_index", "completion", "tokens", "truncated",
    "finish_reason", "answer", "correct", "reason", "detail", "seconds", "vote",
)  # fmt: skip
_PAPER = ("answer_paper", "correct_paper")  # where the paper's grader was asked too
_LIGHT = ("id", "sample_index", "question", "completion", "truncated", "answer", "correct", "reason", "vote")
_SHOWN_SAMPLES = 3  # of a question, besides the greedy solution
_MOST_ANSWERS = 5  # of the vote


@dataclasses.dataclass(slots=True)
class _Solution:
    """What is kept of every row while the shown ones are picked."""

    kind: str
    sample: int
    length: int
    truncated: bool
    answer: str | None
    correct: bool
    reason: str
    vote: int | None  # equivalent answers to a question have the same
    differs: bool


@dataclasses.dataclass
class _Question:
    result: Result
    id: str
    length: int
    solutions: list[_Solution] = dataclasses.field(default_factory=list)

    @property
    def greedy(self) -> _Solution | None:
        return next((each for each in self.solutions if each.kind == GREEDY), None)

    @property
    def drawn(self) -> list[_Solution]:
        return [each for each in self.solutions if each.kind == SAMPLES]

    def outcome(self) -> str:
        """That of the greedy solution, or of the first sample where there is none."""
        return (self.greedy or self.solutions[0]).reason

    def shown(self) -> list[_Solution]:
        """The greedy solution and some samples: one of each outcome first, then in their order."""
        seen: collections.Counter[str] = collections.Counter()
        ranked = []
        for each in sorted(self.drawn, key=lambda each: each.sample):
            ranked.append((seen[each.reason], each.sample, each))
            seen[each.reason] += 1
        chosen = sorted(ranked, key=lambda rank: rank[:2])[:_SHOWN_SAMPLES]
        return [*([self.greedy] if self.greedy else []), *(each for *_, each in sorted(chosen, key=lambda x: x[1]))]

    def characters(self) -> int:
        return min(self.length, LONGEST) + sum(min(each.length, LONGEST) for each in self.shown())

    def marks(self) -> list[str]:
        """What the page's filter finds: the outcome, and what else is worth a look."""
        right = [each.correct for each in self.drawn]
        found = {
            self.outcome(): True,
            "truncated": any(each.truncated for each in self.shown()),
            "graders_differ": any(each.differs for each in self.solutions),
            "rescued": bool(self.greedy and not self.greedy.correct and any(right)),
            "unsolved": bool(right) and not any(right),
        }
        return [mark for mark, holds in found.items() if holds]


def pick_samples(
    workdir: str | os.PathLike, results: Sequence[Result], most_characters: int
) -> tuple[dict[str, Any], int]:
    """The questions that a page shows, with their solutions, from `verdicts/`.

    Of every benchmark, mode and outcome in turn one question is taken, in the order of a hash: nobody's choice, always
    the same, and a rare outcome is there too.

    Args:
      workdir: of the evaluation.
      results: whose verdicts are read.
      most_characters: of all texts together.
    Returns:
      {"formulas": …, "questions": …} for the page's script; and the number of all questions.
    Raises:
      InputError: a damaged file, or one without a column that is needed.
    """
    questions = [question for result in results for question in _read_questions(workdir, result)]
    chosen = _choose(questions, most_characters)
    texts = Texts()
    encoded = []
    for result in results:
        picked = [each for each in chosen if each.result is result]
        rows = _read_rows(workdir, result, {each.id for each in picked}) if picked else {}
        encoded += [_encode(each, rows, texts) for each in picked]
    return {"formulas": texts.formulas, "questions": encoded}, len(questions)


def _files(workdir: str | os.PathLike, result: Result) -> dict[str, pathlib.Path]:
    paths = {kind: table_file(workdir, result.benchmark, result.mode, kind) for kind in (GREEDY, SAMPLES)}
    return {kind: path for kind, path in paths.items() if path.exists()}


def _batches(path: pathlib.Path, columns: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        missing = [column for column in _NEEDED if column not in names]
        if missing:
            raise InputError(f"{path}: column {missing[0]!r} is missing; score the evaluation again")
        known = [column for column in (*columns, *_PAPER) if column in names]
        yield from file.iter_batches(batch_size=4096, columns=known)
    except (pyarrow.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: damaged Parquet ({first}); score the evaluation again") from error


def _read_questions(workdir: str | os.PathLike, result: Result) -> list[_Question]:
    """Every question of a benchmark and mode, its solutions without their texts."""
    found: dict[str, _Question] = {}
    for kind, path in _files(workdir, result).items():
        for batch in _batches(path, _LIGHT):
            lengths = [pyarrow.compute.utf8_length(batch[column]).to_pylist() for column in ("question", "completion")]
            rows = batch.drop_columns(["question", "completion"]).to_pylist()
            for row, asked, length in zip(rows, *lengths, strict=True):
                question = found.setdefault(row["id"], _Question(result, row["id"], asked))
                paper = row.get("correct_paper")
                question.solutions.append(
                    _Solution(
                        kind, row["sample_index"], length, row["truncated"], row["answer"], row["correct"],
                        row["reason"], row["vote"], paper is not None and paper != row["correct"],
                    )
                )  # fmt: skip
    return list(found.values())


def _choose(questions: Sequence[_Question], most_characters: int) -> list[_Question]:
    groups: dict[tuple[str, ...], list[tuple[int, _Question]]] = {}
    for place, each in enumerate(questions):
        groups.setdefault((each.result.benchmark, each.result.mode, each.outcome()), []).append((place, each))
    for group in groups.values():
        group.sort(key=lambda ranked: hashlib.sha256(ranked[1].id.encode()).digest())
    chosen, room = [], most_characters
    for ranked in itertools.chain(*itertools.zip_longest(*groups.values())):
        if ranked is not None and (room := room - ranked[1].characters()) >= 0:
            chosen.append(ranked)
        elif ranked is not None:
            break
    return [each for _, each in sorted(chosen, key=lambda ranked: ranked[0])]


def _read_rows(workdir: str | os.PathLike, result: Result, ids: set[str]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The whole rows of some questions by id, kind and sample."""
    rows = {}
    wanted = pyarrow.array(sorted(ids), pyarrow.string())
    for kind, path in _files(workdir, result).items():
        for batch in _batches(path, _NEEDED):
            for row in batch.filter(pyarrow.compute.is_in(batch["id"].cast("string"), wanted)).to_pylist():
                rows[row["id"], kind, row["sample_index"]] = row
    return rows


def _encode(question: _Question, rows: dict[tuple[str, str, int], dict[str, Any]], texts: Texts) -> dict[str, Any]:
    result, drawn = question.result, question.drawn
    shown = [rows[question.id, each.kind, each.sample] for each in question.shown()]
    votes = collections.Counter(each.vote for each in drawn if each.vote is not None)
    leaders = {each.vote: each for each in reversed(drawn)}  # the first to answer so
    first = shown[0]
    known = BENCHMARKS.get(result.benchmark)
    runs = known is not None and known.kind in ("code", "proof")  # the solution itself is judged, not an answer
    code = runs or result.mode == "few_shot_pot"
    return {
        "benchmark": result.benchmark,
        "mode": result.mode,
        "id": question.id,
        "subject": first["subject"] or "",
        "level": str(first["level"] or ""),
        "language": first["language"] or "en",
        "question": texts.cut(first["question"], code=result.benchmark == "humaneval"),
        "gold": texts.cut_answer(first["gold"] or ""),
        "marks": question.marks(),
        "runs": runs,
        "samples": len(drawn),
        "right": sum(each.correct for each in drawn),
        "votes": [
            [texts.cut_answer(leaders[vote].answer), count, leaders[vote].correct]
            for vote, count in votes.most_common(_MOST_ANSWERS)
        ],
        "others": max(0, len(votes) - _MOST_ANSWERS),
        "silent": sum(each.answer is None for each in drawn),
        "solutions": [
            _encode_solution(row, each.kind, texts, code, runs)
            for row, each in zip(shown, question.shown(), strict=True)
        ],
    }


def _encode_solution(row: dict[str, Any], kind: str, texts: Texts, code: bool, runs: bool) -> dict[str, Any]:
    solution = {
        "sample": None if kind == GREEDY else row["sample_index"],
        "text": texts.cut(row["completion"], code),
        "answer": None if runs or row["answer"] is None else texts.cut_answer(row["answer"]),
        "correct": row["correct"],
        "reason": row["reason"],
        "detail": row["detail"] or "",
        "tokens": row["tokens"],
        "truncated": row["truncated"],
        "seconds": None if row["seconds"] is None else round(row["seconds"], 3),
    }
    if row.get("correct_paper") is not None and not runs:
        answer = row.get("answer_paper")
        solution["paper"] = {
            "correct": row["correct_paper"],
            "answer": None if answer is None else texts.cut_answer(answer),
        }
    return solution
