"""Arrow files that pass records from the tasks of one step to those of the next: a batch for each task."""

import itertools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def write(
    path: str | os.PathLike,
    columns: Mapping[str, Any],
    batch_N: np.ndarray,
    num_batches: int,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes records into batches, in which they keep their order.

    Args:
      path: the file.
      columns: by name.
      batch_N: the batch of each record.
      num_batches: batches, empty ones too.
      metadata: of the file's schema.
    """
    batch_N = batch_N.astype(np.min_scalar_type(num_batches))  # small numbers sort faster
    order = np.argsort(batch_N, kind="stable")
    bounds = np.searchsorted(batch_N[order], np.arange(num_batches + 1, dtype=batch_N.dtype)).tolist()
    table = pa.table(columns).take(pa.array(order))
    records = pa.record_batch([column.combine_chunks() for column in table.columns], names=table.column_names)
    with pa.ipc.new_file(path, records.schema.with_metadata(metadata)) as writer:
        for low, high in itertools.pairwise(bounds):
            writer.write_batch(records.slice(low, high - low))


def read(path: str | os.PathLike, number: int = 0) -> pa.RecordBatch:
    """A batch of a file; no other is read."""
    with pa.OSFile(os.fspath(path)) as file, pa.ipc.open_file(file) as reader:
        return reader.get_batch(number)


def key_numbers(key: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The first 8 of each key's 16 bytes, as uint64."""
    array = key.combine_chunks() if isinstance(key, pa.ChunkedArray) else key
    return np.frombuffer(array.buffers()[1], np.uint64, 2 * len(array), 16 * array.offset)[::2]
