"""Tokenized examples on disk: whole or not at all, a kill costs one shard, readable by TFDS."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from dsmath.data import arrays

# Writes 4 shards of 500 examples; the examples of the third come slowly.
WRITER = """
import sys, time
import numpy as np
from dsmath.data import arrays

def read(part):
    for index in range(500):
        yield {"tokens": np.arange(index % 50 + part, dtype=np.int32)}
        if part == 2 and sys.argv[2] == "slow":
            time.sleep(0.05)

parts = [arrays.Part(500, lambda part=part: read(part)) for part in range(4)]
arrays.store(sys.argv[1], "examples", parts, ("tokens",), progress=("write", "example"))
"""


def _write(folder: pathlib.Path, pace: str, **options) -> subprocess.Popen:
    root = pathlib.Path(arrays.__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), pace], cwd=root, **options)


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def _part(count: int, seen: list[int] | None = None) -> arrays.Part:
    def read():
        for index in range(count):
            if seen is not None:
                seen.append(index)
            yield {"tokens": np.arange(index + 1, dtype=np.int32), "loss_mask": np.ones(index + 1, np.int32)}

    return arrays.Part(count, read)


def _store(folder: pathlib.Path, parts: list[arrays.Part]) -> None:
    arrays.store(folder, "examples", parts, ("tokens", "loss_mask"), progress=("write", "example"))


def test_a_killed_writer_loses_the_shard_under_way_and_no_other(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = _write(killed, "slow", stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list(killed.rglob(".*00002-of-00004*.tmp")):
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not arrays.is_stored(killed, "examples")
    before = {name: os.stat(path).st_mtime_ns for name, path in _files(killed).items() if ".tmp" not in name}
    assert len(before) == 2
    for folder in (killed, whole):
        assert _write(folder, "fast").wait() == 0
    for name, written in before.items():
        assert os.stat(killed / name).st_mtime_ns == written
    assert _files(killed).keys() == _files(whole).keys()
    for name, path in _files(killed).items():
        assert path.read_bytes() == _files(whole)[name].read_bytes()
    source = arrays.open_source(killed, "examples")
    assert [len(source[index]["tokens"]) for index in range(2000)] == [
        index % 50 + part for part in range(4) for index in range(500)
    ]


def test_examples_come_back_in_their_order_with_all_fields(tmp_path):
    _store(tmp_path, [_part(3), _part(0), _part(2)])
    source = arrays.open_source(tmp_path, "examples")
    assert [len(source[index]["tokens"]) for index in range(len(source))] == [1, 2, 3, 1, 2]
    assert source[2]["tokens"].dtype == source[2]["loss_mask"].dtype == np.int32
    np.testing.assert_array_equal(source[2]["loss_mask"], [1, 1, 1])
    assert len(arrays.open_source(tmp_path, "examples", count=4)) == 4


def test_tfds_reads_them_without_this_project(tmp_path):
    _store(tmp_path, [_part(3), _part(2)])
    assert len(tfds.data_source("examples", data_dir=tmp_path, split="train[1:4]")) == 3


def test_a_dataset_that_is_there_is_not_written_again(tmp_path):
    seen = []
    for _ in range(2):
        _store(tmp_path, [_part(3, seen)])
    assert seen == [0, 1, 2]


def test_no_examples_are_an_empty_source(tmp_path):
    _store(tmp_path, [_part(0)])
    assert len(arrays.open_source(tmp_path, "examples")) == 0


def test_an_example_with_a_wrong_field_leaves_no_dataset(tmp_path):
    wrong = arrays.Part(1, lambda: [{"tokens": np.zeros((2, 2), np.int32), "loss_mask": np.ones(2, np.int32)}])
    with pytest.raises(ValueError, match="tokens"):
        _store(tmp_path, [_part(3), wrong])
    assert not arrays.is_stored(tmp_path, "examples")
    assert not list(tmp_path.rglob("*.tmp"))
