"""Completions of many requests, written in chunks: a killed run goes on where it stopped."""

import collections
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet
from jax import Array

from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Completion, Request
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
]


def generate(
    engine: Engine,
    params: Any,
    requests: Sequence[Request],
    records: Sequence[Mapping[str, Any]],
    columns: pyarrow.Schema,
    *,
    key: Array,
    folder: str | os.PathLike,
    chunk_size: int,
    on_request: Callable[[], None],
) -> list[pathlib.Path]:
    """Serves all requests, a file for each chunk of them; files that exist are kept.

    Chunks are written as they end, while the engine is at work on later ones: no slot waits for the end of a chunk.

    Args:
      engine: with a codec.
      params: the model's parameters.
      requests: their ids are 0, 1, 2, …; what a sample is depends on its id, so not on what was done before.
      records: for each request what its rows hold besides the sample.
      columns: of the records.
      key: root random key.
      folder: where the files lie.
      chunk_size: requests of a file.
      on_request: called when all samples of a request have ended.
    Returns:
      the files in order; a row a sample, by request and number.
    """
    schema = pyarrow.schema([*_SAMPLE[:2], *columns, *_SAMPLE[2:]])
    chunks = [range(start, min(start + chunk_size, len(requests))) for start in range(0, len(requests), chunk_size)]
    files = [pathlib.Path(folder) / f"{chunk.start:06}-{chunk.stop:06}.parquet" for chunk in chunks]
    missing = []
    for chunk, file in zip(chunks, files, strict=True):
        if file.exists():
            for _ in chunk:
                on_request()
        else:
            missing += [requests[index] for index in chunk]
    ended: dict[int, list[Completion]] = collections.defaultdict(list)  # by chunk
    left = {request.id: request.num_samples for request in missing}
    for completion in engine.generate(params, missing, key):
        number = completion.request_id // chunk_size
        ended[number].append(completion)
        left[completion.request_id] -= 1
        if left[completion.request_id]:
            continue
        if not any(left[index] for index in chunks[number]):
            samples = sorted(ended.pop(number), key=lambda sample: (sample.request_id, sample.sample))
            rows = [_row(records[sample.request_id], sample) for sample in samples]
            write_table(files[number], pyarrow.Table.from_pylist(rows, schema=schema))
        on_request()
    return files


def _row(record: Mapping[str, Any], completion: Completion) -> dict[str, Any]:
    return {
        **record,
        "question_index": completion.request_id,
        "sample_index": completion.sample,
        "completion": completion.text.strip(),
        "tokens": len(completion.tokens),
        "token_ids": list(completion.tokens),
        "truncated": completion.finish_reason == "length",
    }


def write_table(path: str | os.PathLike, table: pyarrow.Table) -> None:
    """Writes a Parquet file, atomically."""
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())
