"""Questions with options: SAT, MMLU-STEM, MMLU and Gaokao-MathQA.

Source: Azerbayev et al. 2023 (SAT); Hendrycks et al. 2021, https://github.com/hendrycks/test (MMLU); Zhong et al. 2023
(AGIEval); DeepSeek-Math's files of them.
"""

import math
import pathlib
import re
import string
from collections.abc import Sequence
from typing import Any

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.item import Item

_MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")
# Four options in one text, "A) 1 B) 2 C) 3 D) 4" or "A. 1 B. 2 C. 3 D. 4".
_SAT_OPTIONS = re.compile(r"A([).])\s*(.+?)\s+B\1\s*(.+?)\s+C\1\s*(.+?)\s+D\1\s*(.+)", re.DOTALL)


def read_sat(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """SAT: the options are one text, the answer's field is `Answer`."""
    return [_read_sat(record) for path in paths for record in records.read_json_lines(path)]


def read_mmlu_stem(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """MMLU-STEM as DeepSeek-Math has it."""
    return [_read_mmlu_line("mmlu_stem", record) for path in paths for record in records.read_json_lines(path)]


def read_mmlu(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """MMLU: upstream's CSV files, SUBJECT_SPLIT.csv without a header, or JSON lines in the form of MMLU-STEM."""
    found = []
    for path in paths:
        if path.suffix == ".csv":
            subject = path.stem.rpartition("_")[0]
            found += [_read_mmlu_row(record, subject) for record in records.read_csv(path, _MMLU_COLUMNS)]
        else:
            found += [_read_mmlu_line("mmlu", record) for record in records.read_json_lines(path)]
    return found


def read_gaokao(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """Gaokao-MathQA: a few questions have several right options, spelt "AD" or "A B D" upstream; here "AD", "ABD"."""
    return [_read_gaokao(record) for path in paths for record in records.read_json_lines(path)]


def _read_sat(record: records.Record) -> Item:
    found = _SAT_OPTIONS.fullmatch(record.filled("options"))
    if not found:
        raise record.error("options", "has not four options, as in 'A) 1 B) 2 C) 3 D) 4'")
    choices = found.groups()[1:]
    return Item(
        benchmark="sat",
        id=record.id(),
        question=record.filled("question"),
        answer=_letters(record, "Answer", choices),
        choices=choices,
    )


def _read_mmlu_line(benchmark: str, record: records.Record) -> Item:
    options = record.fields.get("options")
    if not isinstance(options, list) or len(options) < 2:
        raise record.error("options", "is missing or no list of options")
    choices = tuple(_option(record, option) for option in options)
    return Item(
        benchmark=benchmark,
        id=record.id(),
        question=record.filled("question"),
        answer=_letters(record, "answer", choices),
        choices=choices,
        subject=record.filled("topic"),
    )


def _option(record: records.Record, option: Any) -> str:
    """An option that pandas has taken for a number: "None" became NaN."""
    if isinstance(option, float) and math.isnan(option):
        return "None"
    if isinstance(option, bool) or not isinstance(option, str | int | float):
        raise record.error("options", f"holds {option!r:.60}, neither a text nor a number")
    return str(option).strip()


def _read_mmlu_row(record: records.Record, subject: str) -> Item:
    choices = tuple(record.text(column).strip() for column in _MMLU_COLUMNS[1:-1])
    question = record.filled("question")
    return Item(
        benchmark="mmlu",
        id=f"{subject}/{records.name_by_text(question, *choices)}",
        question=question,
        answer=_letters(record, "answer", choices),
        choices=choices,
        subject=subject,
    )


def _read_gaokao(record: records.Record) -> Item:
    options = record.texts("options")
    marks = [f"({letter})" for letter in string.ascii_uppercase[: len(options)]]
    if not options or [option[:3] for option in options] != marks:
        raise record.error("options", f"does not begin with {', '.join(marks) or '(A), (B), …'}")
    choices = tuple(option[3:].strip() for option in options)
    question = f"{record.fields.get('passage') or ''}\n{record.filled('question')}".strip()
    question = question.removesuffix("\\\\").rstrip()
    return Item(
        benchmark="gaokao_mathqa",
        id=records.name_by_text(question, *choices),
        question=question,
        answer=_letters(record, "label", choices, several=True),
        choices=choices,
        language="zh",
        subject=gaokao_paper(record),
    )


def gaokao_paper(record: records.Record) -> str:
    """The year and name of the exam paper that a problem of AGIEval stems from, "" where the file does not say."""
    other = record.fields.get("other")
    return str(other.get("source") or "") if isinstance(other, dict) else ""


def _letters(record: records.Record, field: str, choices: Sequence[str], several: bool = False) -> str:
    """The letters of the right options, in order."""
    letters = re.sub(r"[\s,]", "", record.filled(field))
    known = string.ascii_uppercase[: len(choices)]
    if not set(letters) <= set(known) or (len(letters) > 1 and not several):
        raise record.error(field, f"is {letters!r}, no letter from A to {known[-1]}")
    return "".join(sorted(set(letters)))
