"""Completions for a list of problems, written in chunks: a killed evaluation goes on where it stopped."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet
from jax import Array

from dsmath.data.solutions import Solution
from dsmath.rollout.samples import Samples
from dsmath.runs.workdir import write_atomically

SCHEMA = pyarrow.schema(
    [
        ("question_index", pyarrow.int32()),
        ("sample_index", pyarrow.int32()),
        ("question", pyarrow.string()),
        ("gold", pyarrow.string()),
        ("language", pyarrow.string()),
        ("completion", pyarrow.string()),
        ("tokens", pyarrow.int32()),
        ("truncated", pyarrow.bool_()),
    ]
)


def generate(
    sample: Callable[[Any, Sequence[Sequence[int]], Sequence[int], Array], Samples],
    params: Any,
    records: Sequence[Solution],
    prompts: Sequence[Sequence[int]],
    *,
    key: Array,
    decode: Callable[[Sequence[int]], str],
    folder: str | os.PathLike,
    chunk_size: int,
    on_questions: Callable[[int], None],
) -> pyarrow.Table:
    """Samples a group for every problem, one file for each chunk of them; files that exist are kept.

    Args:
      sample: (params, prompts, request ids, key) -> their groups, such as `Engine.sample` with its decoding.
      params: the model's parameters.
      records, prompts: the problems and their token ids.
      key: root random key; problem i draws from request i.
      decode: token ids to text.
      folder: where the files lie.
      chunk_size: problems of a file.
      on_questions: called with the number of problems that a chunk has finished.
    Returns:
      a row a sample, in the order of the problems; columns as in `SCHEMA`.
    """
    parts = []
    for start in range(0, len(records), chunk_size):
        chunk = range(start, min(start + chunk_size, len(records)))
        path = pathlib.Path(folder) / f"{start:06}-{chunk.stop:06}.parquet"
        if not path.exists():
            samples = sample(params, [prompts[index] for index in chunk], list(chunk), key)
            rows = [
                {
                    "question_index": index,
                    "sample_index": number,
                    "question": records[index].question,
                    "gold": records[index].answer,
                    "language": records[index].language,
                    "completion": decode(samples.tokens[place, number, : samples.lengths[place, number]]).strip(),
                    "tokens": int(samples.lengths[place, number]),
                    "truncated": bool(samples.truncated[place, number]),
                }
                for place, index in enumerate(chunk)
                for number in range(samples.tokens.shape[1])
            ]
            write_table(path, pyarrow.Table.from_pylist(rows, schema=SCHEMA))
        parts.append(pyarrow.parquet.read_table(path))
        on_questions(len(chunk))
    return pyarrow.concat_tables(parts)


def write_table(path: str | os.PathLike, table: pyarrow.Table) -> None:
    """Writes a Parquet file, atomically."""
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())
