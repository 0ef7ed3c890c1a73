"""Completions that another program made, as generations of an evaluation."""

import collections
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow

from dsmath.data.benchmarks.item import Item
from dsmath.data.solutions import read_json_lines
from dsmath.evaluation.completions import GREEDY, SAMPLES, SCHEMA
from dsmath.evaluation.tasks import Source, record, write_items
from dsmath.reward.generations import make_schema, write_table
from dsmath.runs.errors import InputError

_TEXTS = ("completion", "model_output", "resps")
_QUESTIONS = ("question", "problem")
_FINISH = "external"


def bring_in(
    path: str | os.PathLike, source: Source, mode: str, shots: int, workdir: str | os.PathLike
) -> dict[str, Any]:
    """Writes a file's completions as the generations of a benchmark in a mode; see `experiments.rescore`.

    Args:
      path: of the file.
      source: the benchmark's problems; those that the file does not answer are left out.
      mode: in which they were asked.
      shots: worked examples that the prompts had.
      workdir: of the evaluation that this becomes.
    Returns:
      what stands beside its figures; see `Task.describe`.
    Raises:
      InputError: a record without a completion, or of no problem of the benchmark; names the place.
    """
    found = read_completions(path, source.items)
    items = [item for item in source.items if item.id in found]
    folder = pathlib.Path(workdir) / "generations" / source.benchmark / mode
    numbers = {len(texts) for texts in found.values()}
    if len(numbers) > 1:
        raise InputError(
            f"{path}: some problems have {min(numbers)} completions and some {max(numbers)}; give all alike"
        )
    write_items(workdir, source, anew=True)  # what a run has left that was killed may hold other golds
    kinds = {GREEDY: 1, SAMPLES: numbers.pop()}
    for kind, count in kinds.items():
        rows = [
            record(item, mode, "", index) | _row(number, text)
            for index, item in enumerate(items)
            for number, text in enumerate(found[item.id][:count])
        ]
        if kind == GREEDY or count > 1:
            table = pyarrow.Table.from_pylist(rows, schema=make_schema(SCHEMA))
            write_table(folder / kind / f"{0:06}-{len(items):06}.parquet", table)
    return {
        "benchmark": source.benchmark,
        "title": source.title,
        "mode": mode,
        "split": source.split,
        "coverage": source.coverage if len(items) == len(source.items) else f"{len(items):,} of {source.upstream:,}",
        "upstream": source.upstream,
        "left_out": len(source.items) - len(items),
        "shots": shots,
    }


def _row(number: int, text: str) -> dict[str, Any]:
    return {"sample_index": number, "completion": text, "truncated": False, "finish_reason": _FINISH}


def read_completions(path: str | os.PathLike, items: Sequence[Item]) -> dict[str, list[str]]:
    """The completions of a file by the problem's id, in the file's order.

    Raises:
      InputError: no such file, a record without a completion, or of no problem of these; names the place.
    """
    by_id = {item.id: item for item in items}
    by_question: dict[str, list[str]] = collections.defaultdict(list)
    for item in items:
        by_question[item.question.strip()].append(item.id)
    found: dict[str, list[str]] = collections.defaultdict(list)
    for place, row in _read(pathlib.Path(path)):
        if not isinstance(row, dict):
            raise InputError(f"{place}: no JSON object")
        name = _find_id(place, row, by_id, by_question)
        found[name] += _texts(place, row)
    if not found:
        raise InputError(f"{path}: the file is empty")
    return found


def _find_id(
    place: str, row: Mapping[str, Any], by_id: Mapping[str, Item], by_question: Mapping[str, Sequence[str]]
) -> str:
    """Whose completion a record is. Its question decides: its id may be no more than the record's number."""
    texts, given = list(_questions(row)), str(row.get("id"))
    asked = next((by_question[text] for text in texts if text in by_question), ())
    if given in asked or len(asked) == 1:
        return given if given in asked else asked[0]
    if asked:
        raise InputError(f"{place}: {len(asked)} problems have its question; give the id, one of {', '.join(asked)}")
    if given not in by_id:
        raise InputError(f"{place}: neither its id nor its question is that of a problem; is it this benchmark?")
    question = "".join(by_id[given].question.split())
    if texts and not any(question in "".join(text.split()) for text in texts):
        raise InputError(f"{place}: its question is not that of the problem {given!r}; is it this benchmark?")
    return given


def _read(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """Records of JSON lines, or of one list."""
    if path.suffix != ".json":
        yield from read_json_lines(path)
        return
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; give a file of JSON") from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: no list of records")
    for number, row in enumerate(rows, start=1):
        yield f"{path}: record {number}", row


def _questions(row: Mapping[str, Any]) -> Iterator[str]:
    """What may be the question of a record."""
    for part in (row, row.get("doc")):
        if isinstance(part, dict):
            yield from (part[name].strip() for name in _QUESTIONS if isinstance(part.get(name), str))
    turns = row.get("messages")
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and turn.get("role") == "user" and isinstance(turn.get("content"), str):
            text = turn["content"].strip()
            yield from (text, text.rpartition("\n")[0].strip())  # the request behind it left out


def _texts(place: str, row: Mapping[str, Any]) -> list[str]:
    """The completions of a record; lists in lists are one list."""
    value = next((row[name] for name in _TEXTS if name in row), None)
    waiting, texts = [value], []
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, list):
            waiting = value + waiting
        elif isinstance(value, str):
            texts.append(value)
        else:
            raise InputError(f"{place}: no text in any of {', '.join(_TEXTS)}")
    if not texts:
        raise InputError(f"{place}: no completion in it")
    return texts
