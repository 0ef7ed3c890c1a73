"""The figures of an evaluation as its `result.json` holds them, one record for each benchmark and mode."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import pydantic

from dsmath.runs.errors import InputError

MODES = {  # as people read them
    "few_shot": "few-shot",
    "few_shot_pot": "few-shot, programs",
    "chat": "chat",
    "chat_tool": "chat with tools",
    "choice": "likelihood of options",
}


class Group(pydantic.BaseModel, extra="ignore"):
    """The problems of one subject or level, with the 95 % interval of their accuracy."""

    accuracy: float = pydantic.Field(ge=0, le=1)
    low: float
    high: float
    questions: int = pydantic.Field(gt=0)


class Result(pydantic.BaseModel, extra="ignore"):
    """One benchmark in one mode. Accuracies and what is counted are shares of the problems.

    Attributes:
      benchmark, title, mode, split: what was evaluated.
      coverage: which part of upstream's problems, "916 of 1,319".
      questions, upstream: problems here, and upstream.
      shots: examples in the prompt.
      grader: "strict", "paper" or "both", where `accuracy` counts the verdicts of "strict"; `paper_accuracy` counts
        those of the paper's conventions.
      low, high: 95 % interval of the accuracy.
      published, difference: the paper's figure, and ours less the paper's.
      no_answer, truncated, timeouts, errors: of the greedy solutions; the last two are of programs.
      samples: for each problem; `pass_at` and `maj_at` are theirs by k, with 95 % intervals.
      by_subject, by_level: groups of the greedy solutions.
    """

    benchmark: str
    mode: str
    title: str
    split: str = "test"
    coverage: str
    questions: int = pydantic.Field(gt=0)
    upstream: int | None = None
    shots: int | None = None
    grader: str
    accuracy: float = pydantic.Field(ge=0, le=1)
    low: float
    high: float
    paper_accuracy: float | None = None
    published: float | None = None
    difference: float | None = None
    no_answer: float
    truncated: float
    timeouts: float
    errors: float
    mean_tokens: float | None = None
    samples: int = 0
    pass_at: dict[int, float] = {}
    maj_at: dict[int, float] = {}
    pass_at_interval: dict[int, tuple[float, float]] = {}
    maj_at_interval: dict[int, tuple[float, float]] = {}
    by_subject: dict[str, Group] = {}
    by_level: dict[str, Group] = {}

    @property
    def graders_differ(self) -> bool:
        """Whether the paper's conventions give another figure."""
        return self.paper_accuracy is not None and self.paper_accuracy != self.accuracy

    @property
    def is_subset(self) -> bool:
        """Whether some of upstream's problems are missing."""
        return self.upstream is not None and self.questions < self.upstream


class _Whole(pydantic.BaseModel, extra="ignore"):
    results: list[Result] = pydantic.Field(min_length=1)


def table_file(folder: str | os.PathLike, benchmark: str, mode: str, kind: str) -> pathlib.Path:
    """Where a task's verdicts lie, below an evaluation's folder or that of a later grading; kind: greedy or samples."""
    return pathlib.Path(folder) / "verdicts" / f"{benchmark}-{mode}-{kind}.parquet"


def find_home(folder: str | os.PathLike) -> pathlib.Path:
    """The evaluation whose generations a folder judges: itself, or for a later grading the one above its rescored/."""
    folder = pathlib.Path(folder)
    return folder.resolve().parents[1] if folder.resolve().parent.name == "rescored" else folder


def read_results(whole: Mapping[str, Any], path: str | os.PathLike) -> list[Result]:
    """The records of an evaluation's `result.json`.

    Args:
      whole: what the file holds.
      path: where it stands, or will stand.
    Raises:
      InputError: a field that is needed is missing or wrong.
    """
    try:
        return _Whole.model_validate(dict(whole)).results
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: field {field!r}: {first['msg']}; run the evaluation again") from error
