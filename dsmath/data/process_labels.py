"""Readers of solutions whose steps people or programs have labelled: PRM800K and Math-Shepherd.

Source: Lightman et al. 2023, https://github.com/openai/prm800k; Wang et al. 2023 (Math-Shepherd).
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dsmath.runs.errors import InputError

_MARK = "ки"  # ends a step in Math-Shepherd's files
_FIRST_STEP = re.compile(r"Step 1:")


@dataclasses.dataclass(frozen=True)
class LabelledSolution:
    """A solution by steps.

    Attributes:
      question: the problem's text.
      steps: joined they are the solution.
      labels: of the steps: 1 right, 0 wrong, a share in between where the file has soft labels and they are asked for;
        None where the file says nothing, or says it of another solution with the same beginning.
      correct: whether the final answer is right; None where the file does not say.
      finished: whether the last step ends the solution.
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]
    correct: bool | None
    finished: bool


def read(path: str | os.PathLike, soft: bool) -> list[LabelledSolution]:
    """Reads a file of one JSON object after another, on lines of their own or not.

    Each is a record of PRM800K; or of Math-Shepherd, `input` and `label`; or a question with `outputs`, whose responses
    carry Math-Shepherd's marks, `label` and `step_h_label` or `step_s_label`.

    Args:
      path: the file.
      soft: whether to take soft labels where the file has them.
    Raises:
      InputError: no such file, or a damaged record; the message names the file and the record.
    """
    path, found = pathlib.Path(path), []
    for number, record in enumerate(_records(path), start=1):
        place = f"{path}: record {number}"
        if not isinstance(record, dict):
            raise InputError(f"{place}: no JSON object")
        try:
            if isinstance(record.get("label"), dict):
                found += _read_prm800k(record)
            elif "outputs" in record:
                found += [_read_output(record["question"], output, soft) for output in record["outputs"]]
            else:
                found.append(_read_shepherd(record))
        except KeyError as error:
            raise InputError(f"{place}: no field {error}; it is a record of PRM800K or of Math-Shepherd") from error
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"{place}: damaged ({error}); mend or remove it") from error
    if not found:
        raise InputError(f"{path}: holds no record; give a file of PRM800K or Math-Shepherd")
    return found


def _records(path: pathlib.Path) -> Iterator[Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; config.labelled takes a file of PRM800K or Math-Shepherd")
    text, decoder, place = path.read_text(encoding="utf-8").rstrip(), json.JSONDecoder(), 0
    while place < len(text):
        try:
            record, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}: no JSON record ({error.msg}); mend it") from error
        yield record
        place = re.compile(r"\s*").match(text, place).end()


def _read_prm800k(record: Mapping[str, Any]) -> Iterator[LabelledSolution]:
    """The solution that was chosen, and one for each other offer of a step, which ends with it.

    A neutral rating (0) counts as right, as Lightman et al. 2023 may have it; so does what a person wrote instead.
    The steps before another offer bear no label there, so that none counts twice.
    """
    question, chosen, labels = record["question"]["problem"], [], []
    for step in record["label"]["steps"]:
        for index, offer in enumerate(step["completions"] or []):
            if index != step["chosen_completion"] and offer["rating"] is not None:
                steps = (*chosen, offer["text"])
                yield _join(question, steps, (*[None] * len(chosen), _rated(offer["rating"])), False)
        if step["human_completion"] is not None:
            chosen.append(step["human_completion"]["text"])
            labels.append(1.0)
        elif step["chosen_completion"] is not None:
            offer = step["completions"][step["chosen_completion"]]
            chosen.append(offer["text"])
            labels.append(_rated(offer["rating"]))
        else:
            break
    if chosen:
        yield _join(question, tuple(chosen), tuple(labels), record["label"]["finish_reason"] == "solution")


def _rated(rating: int | None) -> float | None:
    return None if rating is None else float(rating >= 0)


def _join(question: str, steps: tuple[str, ...], labels: tuple[float | None, ...], finished: bool) -> LabelledSolution:
    lines = (*(f"{step}\n" for step in steps[:-1]), steps[-1])
    return LabelledSolution(question, lines, labels, None, finished)


def _read_output(question: str, output: Mapping[str, Any], soft: bool) -> LabelledSolution:
    steps = _split_marks(output["response"])
    labels = output["step_s_label" if soft and "step_s_label" in output else "step_h_label"]
    return _checked(question, steps, tuple(float(label) for label in labels), bool(output["label"]))


def _read_shepherd(record: Mapping[str, Any]) -> LabelledSolution:
    start = _FIRST_STEP.search(record["input"])
    if start is None:
        raise ValueError("its input has no 'Step 1:'")
    question, steps = record["input"][: start.start()].strip(), _split_marks(record["input"][start.start() :])
    # `label` is the input with + or - in place of the marks.
    place, labels = start.start(), []
    for step in steps:
        place += len(step)
        labels.append(float({"+": 1, "-": 0}[record["label"][place]]))
        place += 1
    return _checked(question, steps, tuple(labels), bool(labels and labels[-1]))


def _split_marks(text: str) -> tuple[str, ...]:
    """The steps without their marks; white space behind a mark begins the next step, but for the last one's."""
    *steps, rest = text.split(_MARK)
    if rest.strip():
        raise ValueError(f"the text behind its last {_MARK!r} has no label")
    return tuple(steps)


def _checked(question: str, steps: tuple[str, ...], labels: tuple[float, ...], correct: bool) -> LabelledSolution:
    if len(steps) != len(labels) or not steps:
        raise ValueError(f"{len(steps)} steps, but {len(labels)} labels")
    return LabelledSolution(question, steps, labels, correct, finished=True)
