"""Pretraining text: Parquet files with a `text` column, tokenized once."""

import functools
import itertools
import operator
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from dsmath.data import arrays, problems
from dsmath.data.export import open_export
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs.errors import InputError

_BATCH = 256  # documents that are tokenized in one call
_SHARD_BYTES = 2**29  # of text; some 300 MB of tokens
_NAME = "tokens"  # of a corpus's dataset
_EMPTY = "the corpus holds no text; mine it again"


def find_corpus(folder: str | os.PathLike, field: str) -> list[pathlib.Path]:
    """The Parquet files of a corpus: `folder/*.parquet`, or `folder/corpus/*.parquet` of a mining workdir.

    Raises:
      InputError: none there, or one without a `text` column; `field` is the config's field that names the folder.
    """
    folder = pathlib.Path(folder)
    if open_export(folder, field):
        raise InputError(f"{field}={str(folder)!r}: an export holds token ids, not texts; give what it was made of")
    files = sorted(folder.glob("corpus/*.parquet")) or sorted(folder.glob("*.parquet"))
    if not files:
        reason = "no Parquet files there" if folder.is_dir() else "there is no such folder"
        raise InputError(f"{field}={str(folder)!r}: {reason}; give a mining workdir or a folder of Parquet files")
    for file in files:
        try:
            schema = pyarrow.parquet.read_schema(file)
        except pyarrow.ArrowInvalid as error:
            raise InputError(f"{field}: {file} is no Parquet file; remove it or write it again") from error
        if "text" not in schema.names:
            raise InputError(f"{field}: {file} has no column 'text' but {schema.names}; rename the column of the text")
        kind = schema.field("text").type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise InputError(f"{field}: {file}: column 'text' holds {kind}, not strings; convert it")
    return files


def find_data(folder: str | os.PathLike, field: str) -> list[pathlib.Path]:
    """The files that tell what a corpus or an export holds; raises as `find_corpus` does."""
    export = open_export(folder, field)
    return export.files() if export else find_corpus(folder, field)


def read_texts(files: list[pathlib.Path]) -> Iterator[str]:
    """The texts of a corpus, in the order of the files; memory holds one batch of rows."""
    for file in files:
        for batch in _read_batches(file):
            yield from batch


def prepare(
    corpora: Mapping[str, str], folder: str | os.PathLike, tokenizer: Tokenizer, *, num_embedded: int, seed: int
) -> dict[str, Any]:
    """Tokenizes each corpus of a mixture, once.

    Args:
      corpora: folder by the corpus's name, as in `config.corpora`; "embedded" and "embedded_large" are the
        generators' workbooks. An export, or the folder of one of its cuts, is read as it lies.
      folder: each corpus is stored in `folder/NAME`.
      tokenizer: every document becomes <bos> text <eos>.
      num_embedded, seed: pages of the workbook and the seed of its generator.
    Returns:
      the source of each corpus: examples with `tokens`, int32 [length].
    Raises:
      InputError: a corpus that is absent, damaged or empty, or an export with another tokenizer's ids.
    """
    parts, sources = {}, {}
    for name, path in corpora.items():
        field = f"config.corpora.{name}"
        if path in problems.GENERATED:
            read = functools.partial(_embedded, path, num_embedded, seed)
            parts[name] = [arrays.Part(num_embedded, functools.partial(_tokenize, read, tokenizer))]
        elif export := open_export(path, field):
            export.check_tokenizer(tokenizer, field)
            sources[name] = export.source()
        else:
            parts[name] = _parts(find_corpus(path, field), tokenizer)
        if name in parts and not sum(part.size for part in parts[name]):
            raise InputError(f"{field}={path!r}: {_EMPTY}")
    for name in parts:
        stored = pathlib.Path(folder) / name
        arrays.store(stored, _NAME, parts[name], ("tokens",), progress=(f"tokenize {name}", "document"))
        sources[name] = arrays.open_source(stored, _NAME)
        if not len(sources[name]):  # rows without text
            raise InputError(f"config.corpora.{name}={corpora[name]!r}: {_EMPTY}")
    return sources


def _parts(files: list[pathlib.Path], tokenizer: Tokenizer) -> list[arrays.Part]:
    """Successive row groups with so much text that a shard is neither small nor lost at a great price."""
    parts, groups, rows, size = [], [], 0, 0
    for file in files:
        metadata = pyarrow.parquet.read_metadata(file)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            columns = (group.column(index) for index in range(group.num_columns))
            groups.append((file, number))
            rows += group.num_rows
            size += sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")
            if size >= _SHARD_BYTES:
                parts.append(_part(groups, rows, tokenizer))
                groups, rows, size = [], 0, 0
    return [*parts, _part(groups, rows, tokenizer)] if groups else parts


def _part(groups: list[tuple[pathlib.Path, int]], rows: int, tokenizer: Tokenizer) -> arrays.Part:
    return arrays.Part(rows, functools.partial(_tokenize, functools.partial(_read_groups, groups), tokenizer))


def _read_groups(groups: list[tuple[pathlib.Path, int]]) -> Iterator[list[str]]:
    for file, numbers in itertools.groupby(groups, key=operator.itemgetter(0)):
        yield from _read_batches(file, [number for _, number in numbers])


def _read_batches(file: pathlib.Path, row_groups: list[int] | None = None) -> Iterator[list[str]]:
    with pyarrow.parquet.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(_BATCH, row_groups, columns=["text"]):
            yield [text for text in batch.column("text").to_pylist() if text]  # neither null nor empty


def _embedded(name: str, count: int, seed: int) -> Iterator[list[str]]:
    yield list(problems.workbook(name, count, seed))


def _tokenize(read: Callable[[], Iterable[list[str]]], tokenizer: Tokenizer) -> Iterator[arrays.Example]:
    for texts in read():
        for ids in tokenizer.encode_all(texts):
            yield {"tokens": np.array([tokenizer.bos_id, *ids, tokenizer.eos_id], np.int32)}
