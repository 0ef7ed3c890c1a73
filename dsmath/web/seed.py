"""The seed: texts from outside the crawl, with which the first classifier is trained."""

import functools
import glob
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsmath.runs.errors import InputError
from dsmath.web import dedup, library_docs


class SeedText(NamedTuple):
    """A text and the host that it came from, "" where nobody knows."""

    text: str
    host: str


class EmbeddedTexts:
    """Texts of `library_docs`, made when they are first asked for: a resumed run may never need them.

    Args:
      make: `library_docs.seed_texts` or `other_texts`.
      count: most texts.
      seed: of the choice.
    """

    def __init__(self, make: Callable[[int, int], list[tuple[str, str]]], *, count: int, seed: int):
        self._make = functools.cache(lambda: [SeedText(*text) for text in make(seed, count)])

    def __len__(self) -> int:
        return len(self._make())

    def __iter__(self) -> Iterator[SeedText]:
        return iter(self._make())


class FileTexts:
    """A random choice of the texts of files, which are read again each time it is gone through.

    Args:
      pattern: a glob of .txt (one text), .jsonl (fields "text" and, if there, "url") and .parquet files (columns of
        these names), such as OpenWebMath's.
      count: most texts.
      seed: of the choice.
    Raises:
      InputError: no file, an unknown ending, a record without a text.
    """

    def __init__(self, pattern: str, *, count: int, seed: int):
        self._files = find_files(pattern)
        sizes = np.array([_count_texts(path) for path in self._files])
        drawn = np.sort(np.random.default_rng(seed).permutation(sizes.sum())[:count])
        starts = np.cumsum(sizes) - sizes
        self._wanted = [
            drawn[(drawn >= start) & (drawn < start + size)] - start for start, size in zip(starts, sizes, strict=True)
        ]

    def __len__(self) -> int:
        return sum(map(len, self._wanted))

    def __iter__(self) -> Iterator[SeedText]:
        for path, places in zip(self._files, self._wanted, strict=True):
            wanted = set(places.tolist())
            if wanted:
                yield from (text for place, text in enumerate(_read_file(path)) if place in wanted)


def open_seed(pattern: str, *, count: int, seed: int) -> EmbeddedTexts | FileTexts:
    """The seed of mathematics: the embedded stand-in where the pattern is empty, else that of files."""
    if not pattern:
        return EmbeddedTexts(library_docs.seed_texts, count=count, seed=seed)
    return FileTexts(pattern, count=count, seed=seed)


def find_files(pattern: str) -> list[str]:
    """The seed's files, none for the embedded seed.

    Raises:
      InputError: the pattern matches nothing, or a file of another kind.
    """
    files = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if pattern and not files:
        raise InputError(f"config.seed_texts: {pattern!r} matches no file; give .txt, .jsonl or .parquet files")
    for path in files:
        if pathlib.Path(path).suffix not in (".txt", ".jsonl", ".parquet"):
            raise InputError(f"{path}: config.seed_texts takes .txt, .jsonl and .parquet files only")
    return files


def _count_texts(path: str) -> int:
    if not path.endswith(".parquet"):
        return sum(1 for _ in _read_file(path))
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: no Parquet file ({error}); config.seed_texts") from error
    if "text" not in schema.names:
        raise InputError(f"{path}: no column 'text' (config.seed_texts)")
    return pq.read_metadata(path).num_rows


def _read_file(path: str) -> Iterator[SeedText]:
    if path.endswith(".txt"):
        yield SeedText(pathlib.Path(path).read_text(encoding="utf-8", errors="replace"), "")
    elif path.endswith(".parquet"):
        names = pq.read_schema(path).names
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["text", *({"url"} & set(names))]):
                for record in batch.to_pylist():
                    yield SeedText(record["text"] or "", dedup.host(record.get("url") or ""))
    else:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line)
                    text, url = record["text"], record.get("url") or ""
                    if not isinstance(text, str):
                        raise TypeError(f"text is {text!r}")
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InputError(
                        f"{path}:{number}: no JSON record with a field 'text' (config.seed_texts)"
                    ) from error
                yield SeedText(text, dedup.host(url))
