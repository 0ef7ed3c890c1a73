"""Completions of many requests, written in chunks; what a killed run had sampled is kept, to the last sample.

Beside each file in work lies a journal, a line for every sample that has ended. It goes when its file is written.
"""

import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from jax import Array

from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Completion, Request
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_atomically

# The columns that a problem brings; `gold` is its answer.
PROBLEM = pyarrow.schema([("question", pyarrow.string()), ("gold", pyarrow.string()), ("language", pyarrow.string())])
# The columns of its samples. A reward model reads the ids: a text may be spelled by others than were sampled.
_SAMPLE = [
    ("question_index", pyarrow.int32()),
    ("sample_index", pyarrow.int32()),
    ("completion", pyarrow.string()),
    ("tokens", pyarrow.int32()),
    ("token_ids", pyarrow.list_(pyarrow.int32())),
    ("truncated", pyarrow.bool_()),
    ("finish_reason", pyarrow.string()),
]
_Row = dict[str, Any]


def make_schema(columns: pyarrow.Schema) -> pyarrow.Schema:
    """The columns of a file whose problems bring these."""
    return pyarrow.schema([*_SAMPLE[:2], *columns, *_SAMPLE[2:]])


def divide(folder: str | os.PathLike, count: int, chunk_size: int, first: int = 0) -> dict[pathlib.Path, range]:
    """The files of `count` requests, and the ids of the requests that each holds.

    Args:
      folder: where the files lie.
      count: requests.
      chunk_size: requests of a file.
      first: the first request's id; the names of the files count from 0.
    """
    starts = range(0, count, chunk_size)
    chunks = {start: min(start + chunk_size, count) for start in starts}
    return {
        pathlib.Path(folder) / f"{start:06}-{stop:06}.parquet": range(first + start, first + stop)
        for start, stop in chunks.items()
    }


def generate(
    engine: Engine,
    params: Any,
    requests: Sequence[Request],
    records: Sequence[Mapping[str, Any]],
    columns: pyarrow.Schema,
    *,
    key: Array,
    files: Mapping[pathlib.Path, range],
    on_request: Callable[[], None],
) -> None:
    """Serves all requests, a file for each chunk of them; files and samples that exist are kept.

    Chunks are written as they end, while the engine is at work on later ones: no slot waits for the end of a chunk. A
    file holds a row a sample, by request and number.

    Args:
      engine: with a codec.
      params: the model's parameters.
      requests: their ids are 0, 1, 2, …; what a sample is depends on its id or seed, so not on what was done before.
      records: for each request what its rows hold besides the sample.
      columns: of the records.
      key: root random key.
      files: see `divide`.
      on_request: called when all samples of a request are there.
    Raises:
      InputError: a journal holds samples of other prompts.
    """
    file_of = {number: file for file, numbers in files.items() for number in numbers}
    missing, rows = [], {}
    for file, numbers in files.items():
        if file.exists():
            for _ in numbers:
                on_request()
        else:
            missing += [requests[number] for number in numbers]
            rows[file] = _read_journal(_journal(file), [requests[number] for number in numbers])
    held: dict[int, set[int]] = {request.id: set() for request in missing}
    for file in rows:
        for row in rows[file]:
            held[row["question_index"]].add(row["sample_index"])

    def write_if_whole(file: pathlib.Path) -> None:
        if all(len(held[number]) == requests[number].num_samples for number in files[file]):
            found = sorted(rows[file], key=lambda row: (row["question_index"], row["sample_index"]))
            found = [row | dict(records[row["question_index"]]) for row in found]
            write_table(file, pyarrow.Table.from_pylist(found, schema=make_schema(columns)))
            del rows[file]
            _journal(file).unlink(missing_ok=True)

    left = []
    for request in missing:
        if len(held[request.id]) < request.num_samples:
            left.append(_without(request, held[request.id]))
        else:
            on_request()
    for file in list(rows):
        write_if_whole(file)
    for completion in engine.generate(params, left, key) if left else ():
        number = completion.request_id
        row = _row(completion)
        rows[file_of[number]].append(row)
        _append(_journal(file_of[number]), row | {"prompt": _checksum(requests[number])})
        held[number].add(completion.sample)
        if len(held[number]) == requests[number].num_samples:
            write_if_whole(file_of[number])
            on_request()


def _without(request: Request, numbers: set[int]) -> Request:
    return dataclasses.replace(request, skip=frozenset(numbers)) if numbers else request


def _row(completion: Completion) -> _Row:
    return {
        "question_index": completion.request_id,
        "sample_index": completion.sample,
        "completion": completion.text,
        "tokens": len(completion.tokens),
        "token_ids": list(completion.tokens),
        "truncated": completion.finish_reason == "length",
        "finish_reason": completion.finish_reason,
    }


def _journal(file: pathlib.Path) -> pathlib.Path:
    return file.with_suffix(".jsonl")


def _append(path: pathlib.Path, row: _Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _read_journal(path: pathlib.Path, requests: Sequence[Request]) -> list[_Row]:
    """The samples that a killed run has left; half a line at the end is dropped, from the file too."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_atomically(path, whole)
    rows = [json.loads(line) for line in whole.decode().split("\n")[:-1]]
    prompts = {request.id: _checksum(request) for request in requests}
    for row in rows:
        if row.pop("prompt") != prompts.get(row["question_index"]):
            raise InputError(f"{path}: holds samples of other prompts than this run's; give another --workdir")
    return rows


def _checksum(request: Request) -> int:
    return zlib.crc32(np.asarray(request.prompt, np.int32).tobytes())


def read_table(path: str | os.PathLike, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """Reads a Parquet file.

    Args:
      path: of the file.
      columns: those that are read; None: all.
    Raises:
      InputError: there is no such file, it is damaged, or it lacks a column.
    """
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            missing = set(columns or ()) - set(file.schema_arrow.names)
            if missing:
                raise InputError(f"{path}: column {min(missing)!r} is missing; remove the file and run its stage again")
            return file.read(columns)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run the stage that writes it first") from error
    except (pyarrow.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: damaged Parquet ({first}); remove the file and run its stage again") from error


def write_table(path: str | os.PathLike, table: pyarrow.Table) -> None:
    """Writes a Parquet file, atomically."""
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())
