"""The seed: texts from outside the crawl, with which the first classifier is trained."""

import glob
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq

from dsmath.runs.errors import InputError
from dsmath.web import library_docs


def read_texts(pattern: str, *, count: int, seed: int) -> list[str]:
    """The seed's texts: the embedded ones, or a random choice from files.

    Args:
      pattern: "" for the embedded texts, or a glob of .txt (one text), .jsonl (field "text") and .parquet files
        (column "text"), such as OpenWebMath's.
      count: most texts.
      seed: of the choice.
    Raises:
      InputError: no file, an unknown ending, a record without a text.
    """
    if not pattern:
        return library_docs.seed_texts(seed, count)
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    for number, text in enumerate(text for path in find_files(pattern) for text in _read_file(path)):
        if len(chosen) < count:
            chosen.append(text)
        elif (place := int(rng.integers(number + 1))) < count:  # every text stays with the same probability
            chosen[place] = text
    return chosen


def find_files(pattern: str) -> list[str]:
    """The seed's files, none for the embedded seed.

    Raises:
      InputError: the pattern matches nothing, or a file of another kind.
    """
    files = sorted(path for path in glob.glob(pattern, recursive=True) if pathlib.Path(path).is_file())
    if pattern and not files:
        raise InputError(f"config.seed_texts: {pattern!r} matches no file; give .txt, .jsonl or .parquet files")
    for path in files:
        if pathlib.Path(path).suffix not in (".txt", ".jsonl", ".parquet"):
            raise InputError(f"{path}: config.seed_texts takes .txt, .jsonl and .parquet files only")
    return files


def _read_file(path: str) -> Iterator[str]:
    if path.endswith(".txt"):
        yield pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    elif path.endswith(".parquet"):
        if "text" not in pq.read_schema(path).names:
            raise InputError(f"{path}: no column 'text' (config.seed_texts)")
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["text"]):
                yield from batch["text"].to_pylist()
    else:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)["text"]
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(
                        f"{path}:{number}: no JSON record with a field 'text' (config.seed_texts)"
                    ) from error
