"""Parquet files of pages, written whole or not at all, and read in batches of a bounded size."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsmath.runs.workdir import replacing

BATCH = 500  # pages that a worker holds at a time


def write_parquet(
    path: str | os.PathLike,
    schema: pa.Schema,
    batches: Iterable[Mapping[str, Any]],
    metadata: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Writes batches of columns under a temporary name and renames; `metadata` is asked when the last is written."""
    with replacing(path) as temporary:
        write_batches(temporary, schema, batches, metadata)


def read_table(path: str | os.PathLike, columns: Sequence[str] | None = None) -> pa.Table:
    """A small file, or columns of a larger one. Ours: `pq.read_table` imports a library for folders of files first."""
    with pq.ParquetFile(path) as file:
        return file.read(columns, use_threads=False)


def read_rows(path: str | os.PathLike, columns: list[str], rows: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The given rows of a Parquet file, ascending, in batches of a bounded size; groups without any are not read."""
    with pq.ParquetFile(path) as file:
        size_G = np.array([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)], int)
        group_N = np.searchsorted(np.cumsum(size_G), rows, side="right")
        read_G = np.unique(group_N)
        size_G[read_G] = 0
        rows = rows - np.cumsum(size_G)[group_N]  # among those that are read
        start = 0
        for batch in file.iter_batches(BATCH, read_G.tolist(), columns, use_threads=False):
            low, high = np.searchsorted(rows, [start, start + batch.num_rows])
            if high > low:
                yield batch.take(pa.array(rows[low:high] - start))
            start += batch.num_rows


def read_metadata(path: str | os.PathLike, name: str) -> Any:
    """A value that `write_parquet` stored beside the columns."""
    return json.loads(pq.read_metadata(path).metadata[name.encode()])


def write_batches(
    path: os.PathLike,
    schema: pa.Schema,
    batches: Iterable[Mapping[str, Any]],
    metadata: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """The same under the name that is given."""
    # Dictionaries of texts and addresses would cost a third of the time and save a thousandth of the room.
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for batch in batches:
            writer.write_table(pa.table(dict(batch), schema=schema))
        writer.add_key_value_metadata({name: json.dumps(value) for name, value in metadata().items()})
