"""Files of instruction sets: JSON lines, JSON and Parquet, gzip around the first two or not."""

import glob
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow
import pyarrow.parquet

from dsmath.runs.errors import InputError

_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
_FORMATS = "JSON lines, JSON or Parquet"
_BATCH = 1000  # rows of a Parquet file
_LISTS = ("Instances", "data")  # fields of an object that hold its records; the first is Lila's


def find_files(pattern: str) -> list[pathlib.Path]:
    """The files of a pattern: files, globs or folders (all files below them that have a known ending), by commas.

    Raises:
      InputError: a part matches no file.
    """
    found: set[pathlib.Path] = set()
    for part in filter(None, map(str.strip, pattern.split(","))):
        folder = pathlib.Path(part)
        paths = folder.rglob("*") if folder.is_dir() else map(pathlib.Path, glob.glob(part, recursive=True))
        files = {path for path in paths if path.is_file() and path.name.endswith(_ENDINGS)}
        if not files:
            raise InputError(f"config.inputs: {part!r} matches no file; give {_FORMATS} files or their folder")
        found |= files
    if not found:
        raise InputError(f"config.inputs: is empty; give {_FORMATS} files or their folder")
    return sorted(found)


def read_records(path: pathlib.Path) -> Iterator[Mapping[str, Any] | None]:
    """The records of a file in order; None stands for one that is damaged.

    Raises:
      InputError: the file as a whole cannot be read.
    """
    if path.suffix == ".parquet":
        values = _read_parquet(path)
    else:
        content = _read_bytes(path)
        values = _read_lines(content) if ".jsonl" in path.suffixes else _read_list(path, content)
    for value in values:
        yield value if isinstance(value, dict) else None


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it again") from error


def _read_lines(content: bytes) -> Iterator[Any]:
    for line in content.split(b"\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _read_list(path: pathlib.Path, content: bytes) -> list[Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({error}); fetch it again, or call it .jsonl if it is JSON lines") from error
    for field in _LISTS:
        if isinstance(value, dict) and isinstance(value.get(field), list):
            return value[field]
    return value if isinstance(value, list) else [value]


def _read_parquet(path: pathlib.Path) -> Iterator[Any]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error
