"""OCWCourses: problems of MIT's science courses.

Source: Lewkowycz et al. 2022 (Minerva), as DeepSeek-Math has it.
"""

import pathlib
from collections.abc import Sequence

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.item import Item


def read(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """The problems; the subject is the form of the answer: numeric, equation or expression."""
    return [_read_problem(record) for path in paths for record in records.read_json_lines(path)]


def _read_problem(record: records.Record) -> Item:
    answer = record.filled("answer")
    return Item(
        benchmark="ocw",
        id=record.id(),
        question=record.filled("problem"),
        answer=answer,
        solution=record.text("solution"),
        subject=_form(answer),
    )


def _form(answer: str) -> str:
    try:
        float(answer)
    except ValueError:
        return "equation" if "=" in answer else "expression"
    return "numeric"
