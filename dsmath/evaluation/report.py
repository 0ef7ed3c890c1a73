"""The report of a whole chain: one page for people, one file of numbers for programs.

Everything is read from the chain's folder, `workdir/STAGE/…`; a stage that left nothing there is "not run". No model is
loaded. The texts of models and web pages are untrusted: the template escapes them all.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import jinja2
import numpy as np
import pyarrow
import pyarrow.parquet
import pydantic

from dsmath.evaluation import figures
from dsmath.evaluation.results import table_file
from dsmath.runs.errors import InputError
from dsmath.runs.formulas import typeset
from dsmath.runs.metrics import METRICS, read_metrics
from dsmath.runs.workdir import CONFIG, LINEAGE, RESULT, fingerprint, read_json, write_atomically

REPORT, SUMMARY = "report.html", "summary.json"
STAGES = ("mine", "tokenizer", "pretrain", "sft", "evaluate_sft", "rl", "evaluate_rl")
# What a record of each training stage must hold; the first is the stage's headline.
_TRAINING = {"pretrain": ("loss",), "sft": ("loss",), "rl": ("reward", "entropy", "length", "truncated")}
_TUNED = {"sft": "SFT", "rl": "RL"}
_GREEDY = ("question", "gold", "language", "completion", "answer", "correct")
# How many questions are shown for each outcome: (right after SFT, right after RL), or the only evaluation's.
_SHOWN = {(False, True): 5, (True, False): 3, (True, True): 2, (False, False): 2, (True,): 4, (False,): 4}
_TIMING = re.compile(r"(^|_)(seconds?|time)(_|$)|_per_s$")
_AGAIN = "remove the stage's folder and run the stage again"


class _Record(pydantic.BaseModel, extra="allow"):
    """A JSON object with the fields that the report needs; other numbers go to the summary too."""


_Kind = TypeVar("_Kind", bound=_Record)


class Round(_Record):
    """One round of mining; `already_collected` is the share of `collected` that the round before had collected."""

    round: int
    positives: int
    negatives: int
    collected: int
    already_collected: float | None
    math_domains: int
    new_positives: int
    threshold: float | None


class Host(_Record):
    """A host's pages, and those that were collected."""

    host: str
    pages: int
    collected: int


class Example(_Record):
    """A page with its score, collected or not."""

    url: str
    score: float
    text: str


class MineReport(_Record):
    """`mine/report.json`."""

    pages: int
    skipped: dict[str, int]
    duplicates: dict[str, int]
    unique: int
    rounds: list[Round]
    ended: Literal["stop_share", "max_rounds"] | None = None  # reports of older runs do not say it
    collected: int
    corpus_characters: int
    contaminated: int
    hosts: list[Host]
    examples: list[Example]


class TokenizerResult(_Record):
    """`tokenizer/result.json`."""

    vocab_size: int
    characters_per_token: float


class LanguageResult(_Record):
    """The accuracy on one language's questions."""

    accuracy: float
    questions: int = pydantic.Field(gt=0)


class Evaluated(_Record):
    """What was evaluated, by which the files of verdicts are called."""

    benchmark: str
    mode: str


class EvaluationResult(_Record):
    """`evaluate_*/result.json`: shares of the questions or of the greedy solutions."""

    results: list[Evaluated] = pydantic.Field(min_length=1, max_length=1)

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    pass_at: dict[int, float] = pydantic.Field(min_length=1)
    maj_at: dict[int, float] = pydantic.Field(min_length=1)
    no_answer: float
    truncated: float
    questions: int = pydantic.Field(gt=0)
    samples: int
    by_language: dict[str, LanguageResult]


class StageResult(_Record):
    """Any stage's `result.json`."""

    seconds: float | None = None


class Parent(_Record):
    """A workdir that a stage started from, and the fingerprint of its lineage at that time."""

    workdir: str
    lineage: str | None


class Lineage(_Record):
    """`lineage.json`: parents by role, the data files' fingerprints, the code's version."""

    parents: dict[str, Parent]
    data: dict[str, str]
    code: str


@dataclasses.dataclass(frozen=True)
class Training:
    """A training stage: its figures (None while it runs) and its metrics by step."""

    result: dict[str, Any] | None
    records: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation: its figures, its greedy solutions, each question's number of right samples, and its own page.

    The last three are None where their file was not written.
    """

    result: EvaluationResult
    greedy: list[dict[str, Any]] | None
    right: np.ndarray | None
    page: str | None


@dataclasses.dataclass(frozen=True)
class Chain:
    """What a chain's folder holds; a stage that was not run is None or absent. Evaluations go by the stage before."""

    folder: pathlib.Path
    mine: MineReport | None
    tokenizer: TokenizerResult | None
    training: dict[str, Training]
    evaluations: dict[str, Evaluation]
    lineage: list[dict[str, Any]]
    configs: dict[str, Any]
    seconds: dict[str, float]


def write_report(workdir: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes a chain's `report.html` and `summary.json`.

    Args:
      workdir: the pipeline's folder, with one folder for each of `STAGES`; any may be missing.
    Returns:
      The paths of the page and of the file of numbers.
    Raises:
      InputError: no such folder, no stage in it, or a damaged file.
    """
    chain = _read_chain(pathlib.Path(workdir))
    summary = summarize(chain)
    template = _environment().get_template("report.html.jinja")
    page = template.render(
        chain=chain, summary=summary, figures=figures.draw_report(chain), solutions=_pick_solutions(chain.evaluations)
    )
    written = chain.folder / REPORT, chain.folder / SUMMARY
    write_atomically(written[0], page)
    write_atomically(
        written[1], json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    )
    return written


def write_curves_png(workdir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Draws a chain's story in one small PNG: pages by round, losses, reward, KL, pass@k and maj@k.

    Raises:
      InputError: as `write_report`, or no stage has anything to draw.
    """
    chain = _read_chain(pathlib.Path(workdir))
    if not (chain.training or chain.evaluations or (chain.mine and chain.mine.rounds)):
        raise InputError(f"{chain.folder}: no stage has anything to draw; run the chain first")
    write_atomically(path, figures.draw_story(chain))


def summarize(chain: Chain) -> dict[str, Any]:
    """Every number of a chain; wall times under "seconds" only, so that the rest is the same for the same seed."""
    summary: dict[str, Any] = {}
    if chain.mine:
        record = chain.mine.model_dump()
        summary["mine"] = _numbers({name: value for name, value in record.items() if name != "examples"}) | {
            "rounds": len(chain.mine.rounds),
            "by_round": _numbers(record["rounds"]),
            "hosts": {host.host: {"pages": host.pages, "collected": host.collected} for host in chain.mine.hosts},
        }
    if chain.tokenizer:
        summary["tokenizer"] = _numbers(chain.tokenizer.model_dump())
    for stage, training in chain.training.items():
        headline = _TRAINING[stage][0]
        last = _numbers(training.records[-1]) if training.records else {}
        result = _numbers(training.result or {})
        # A finished stage gives the mean of its last tenth: one step is noise.
        summary[stage] = {headline: result.get(headline, last.get(headline)), "last": last, "result": result}
    for stage, evaluation in chain.evaluations.items():
        result = evaluation.result
        figures_at = {
            f"{name}_{k}": shares[k]
            for name, shares in (("pass_at", result.pass_at), ("maj_at", result.maj_at))
            for k in {16, max(shares)} & shares.keys()
        }
        summary[stage] = summary.get(stage, {}) | _numbers(result.model_dump(exclude={"results"})) | figures_at
    summary["seconds"] = chain.seconds | {"total": round(sum(chain.seconds.values()), 1)}
    return summary


def _numbers(value: Any) -> Any:
    """A JSON value without its texts and wall times; what is not finite becomes None."""
    if isinstance(value, dict):
        kept = {str(name): _numbers(part) for name, part in value.items() if not _TIMING.search(str(name))}
        return {name: part for name, part in kept.items() if part is not ...}
    if isinstance(value, list):
        return [part for part in map(_numbers, value) if part is not ...]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return ... if isinstance(value, str | bool) else value


def _read_chain(folder: pathlib.Path) -> Chain:
    if not any((folder / stage).is_dir() for stage in STAGES):
        raise InputError(
            f"{folder}: holds none of the stages' folders ({', '.join(STAGES)}); name a pipeline's workdir"
        )
    training = {stage: _read_training(folder / stage, fields) for stage, fields in _TRAINING.items()}
    evaluations = {stage: _read_evaluation(folder / f"evaluate_{stage}") for stage in _TUNED}
    names = sorted(
        (path.parent.name for path in folder.glob(f"*/{RESULT}")), key=lambda name: (*STAGES, name).index(name)
    )
    results = {name: _read_record(StageResult, folder / name / RESULT) for name in names}
    return Chain(
        folder=folder,
        mine=_read_record(MineReport, folder / "mine" / "report.json"),
        tokenizer=_read_record(TokenizerResult, folder / "tokenizer" / RESULT),
        training={stage: found for stage, found in training.items() if found},
        evaluations={stage: found for stage, found in evaluations.items() if found},
        lineage=[row for stage in STAGES if (row := _read_lineage(folder, stage))],
        configs={stage: read_json(path) for stage in STAGES if (path := folder / stage / CONFIG).exists()},
        seconds={stage: result.seconds for stage, result in results.items() if result.seconds is not None},
    )


def _read_record(kind: type[_Kind], path: pathlib.Path) -> _Kind | None:
    """Reads a JSON object, None where the file is absent."""
    if not path.exists():
        return None
    try:
        return kind.model_validate(read_json(path))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: field {field!r}: {first['msg']}; {_AGAIN}") from error


def _read_training(folder: pathlib.Path, fields: Sequence[str]) -> Training | None:
    finished = _read_record(StageResult, folder / RESULT)
    path = folder / METRICS
    try:
        records = read_metrics(folder)
        lines = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; {_AGAIN}") from error
    if lines - len(records) > (0 if finished else 1):  # a kill may cut the last line of an unfinished run
        raise InputError(f"{path}:{len(records) + 1}: not JSON; {_AGAIN}")
    for number, record in enumerate(records, start=1):
        for field in ("step", *fields):
            if not isinstance(record, dict) or not isinstance(record.get(field), int | float):
                raise InputError(f"{path}:{number}: field {field!r} is missing or no number; {_AGAIN}")
    return Training(finished.model_dump() if finished else None, records) if finished or records else None


def _read_evaluation(folder: pathlib.Path) -> Evaluation | None:
    result = _read_record(EvaluationResult, folder / RESULT)
    if result is None:
        return None
    (evaluated,) = result.results
    greedy, sampled = (table_file(folder, evaluated.benchmark, evaluated.mode, kind) for kind in ("greedy", "samples"))
    samples = _read_rows(sampled, ("question_index", "correct"))
    right = None
    if samples is not None:
        indices = [row["question_index"] for row in samples]
        if indices and not 0 <= min(indices) <= max(indices) < result.questions:
            raise InputError(f"{sampled}: a question_index lies outside of the questions; {_AGAIN}")
        right = np.bincount([row["question_index"] for row in samples if row["correct"]], minlength=result.questions)
    page = f"{folder.name}/{REPORT}" if (folder / REPORT).exists() else None
    return Evaluation(result, _read_rows(greedy, _GREEDY), right, page)


def _read_rows(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged Parquet ({str(error).splitlines()[0]}); {_AGAIN}") from error
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; {_AGAIN}")
    return table.select(list(columns)).to_pylist()


def _read_lineage(folder: pathlib.Path, stage: str) -> dict[str, Any] | None:
    """A stage's lineage with short names, and whether each parent is still what it was."""
    path = folder / stage / LINEAGE
    lineage = _read_record(Lineage, path)
    if lineage is None:
        return None

    here = folder.resolve()

    def short(name: str) -> str:
        named = pathlib.Path(name).resolve()
        return str(named.relative_to(here)) if named.is_relative_to(here) else "/".join(named.parts[-2:])

    def state(parent: Parent) -> str:
        now = here / pathlib.Path(parent.workdir).name / LINEAGE
        if now.exists() and fingerprint(now) == parent.lineage:
            return "unchanged"
        return "has changed since" if pathlib.Path(parent.workdir).resolve() == now.parent else "not in this folder"

    return {
        "stage": stage,
        "fingerprint": fingerprint(path),
        "code": lineage.code,
        "parents": [
            {"role": role, "name": short(parent.workdir), "fingerprint": parent.lineage, "state": state(parent)}
            for role, parent in lineage.parents.items()
        ],
        "data": [{"name": short(name), "fingerprint": digest} for name, digest in lineage.data.items()],
    }


def _pick_solutions(evaluations: dict[str, Evaluation]) -> dict[str, Any]:
    """Questions with their greedy solutions, picked by a hash of the question: nobody's choice, always the same."""
    rows = {
        stage: {row["question"]: row for row in found.greedy} for stage, found in evaluations.items() if found.greedy
    }
    shared = set.intersection(*map(set, rows.values())) if rows else set()
    by_outcome: dict[tuple[bool, ...], list[str]] = {}
    for question in sorted(shared, key=lambda text: hashlib.sha256(text.encode()).digest()):
        by_outcome.setdefault(tuple(found[question]["correct"] for found in rows.values()), []).append(question)
    return {
        "names": [_TUNED[stage] for stage in rows],
        "questions": len(shared),
        "counts": {outcome: len(by_outcome.get(outcome, ())) for outcome in _SHOWN if len(outcome) == len(rows)},
        "shown": [
            [found[question] for found in rows.values()]
            for outcome, count in _SHOWN.items()
            for question in by_outcome.get(outcome, ())[:count]
        ],
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "typeset": typeset,
        "percent": lambda share: f"{share:.1%}".replace("%", "\N{NO-BREAK SPACE}%"),
        "count": lambda number: f"{number:,}",
        "clock": _clock,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    return environment
