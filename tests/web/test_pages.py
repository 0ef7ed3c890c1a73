"""Parquet files of pages: rows of several groups, and no group is read without need."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsmath.web import pages

_SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


@pytest.fixture
def path(tmp_path):
    """Groups of 3, 0, 4 and 2 rows."""
    bounds = [0, 3, 3, 7, 9]
    batches = [
        {"number": range(low, high), "text": [f"text {number}" for number in range(low, high)]}
        for low, high in itertools.pairwise(bounds)
    ]
    pages.write_parquet(tmp_path / "folder" / "pages.parquet", _SCHEMA, batches, lambda: {"skipped": {"short": 2}})
    return tmp_path / "folder" / "pages.parquet"


@pytest.mark.parametrize("rows", [[], [0], [2, 3], [8], [0, 6, 7], range(9)])
def test_rows_are_those_that_are_asked_for(path, rows):
    batches = list(pages.read_rows(path, ["text"], np.array(rows, np.int64)))
    assert [text for batch in batches for text in batch["text"].to_pylist()] == [f"text {row}" for row in rows]


def test_groups_without_a_row_are_not_read(path, monkeypatch):
    read = []

    def iter_batches(self, batch_size, row_groups, *others, **settings):
        read.extend(row_groups)
        return iterate(self, batch_size, row_groups, *others, **settings)

    iterate = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    assert [batch.num_rows for batch in pages.read_rows(path, ["number"], np.array([3, 4]))] == [2]
    assert [pq.ParquetFile(path).metadata.row_group(group).num_rows for group in read] == [4]


def test_table_is_read_whole_and_its_metadata_by_name(path):
    assert pages.read_table(path).equals(pq.read_table(path))
    assert pages.read_table(path, ["number"])["number"].to_pylist() == list(range(9))
    assert pages.read_metadata(path, "skipped") == {"short": 2}
