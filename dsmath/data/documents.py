"""Pretraining text: Parquet files with a `text` column, tokenized once."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from dsmath.data import arrays, problems
from dsmath.data.export import open_export
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress

_BATCH = 256  # documents that are tokenized in one call


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
        raise InputError(f"{field}={str(folder)!r}: no Parquet files there; give a mining workdir or a folder of them")
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
    for batch in _read_batches(files):
        yield from batch


def prepare(
    corpora: Mapping[str, str], folder: str | os.PathLike, tokenizer: Tokenizer, *, num_embedded: int, seed: int
) -> dict[str, Any]:
    """Tokenizes each corpus of a mixture, once.

    Args:
      corpora: folder by the corpus's name, as in `config.corpora`; "embedded" is the generator's workbook. An export,
        or the folder of one of its cuts, is read as it lies.
      folder: each corpus is stored in `folder/NAME`.
      tokenizer: every document becomes <bos> text <eos>.
      num_embedded, seed: pages of the workbook and the seed of its generator.
    Returns:
      the source of each corpus: examples with `tokens`, int32 [length].
    Raises:
      InputError: a corpus that is absent, damaged or empty, or an export with another tokenizer's ids.
    """
    batches, sources = {}, {}
    for name, path in corpora.items():
        field = f"config.corpora.{name}"
        if path == problems.EMBEDDED:
            batches[name] = (num_embedded, [list(problems.documents(num_embedded, seed))])
        elif export := open_export(path, field):
            export.check_tokenizer(tokenizer, field)
            sources[name] = export.source()
        else:
            files = find_corpus(path, field)
            batches[name] = (sum(pyarrow.parquet.read_metadata(file).num_rows for file in files), _read_batches(files))
        if name in batches and not batches[name][0]:
            raise InputError(f"{field}={path!r}: the corpus holds no text; mine it again")
    for name, (total, texts) in batches.items():
        examples = _tokenize(texts, tokenizer, Progress(total, f"tokenize {name}", "document"))
        sources[name] = arrays.store(pathlib.Path(folder) / name, examples, ("tokens",))
    return sources


def _read_batches(files: list[pathlib.Path]) -> Iterator[list[str]]:
    for file in files:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(columns=["text"], batch_size=_BATCH):
            yield [text for text in batch.column("text").to_pylist() if text]  # neither null nor empty


def _tokenize(batches: Iterable[list[str]], tokenizer: Tokenizer, progress: Progress) -> Iterator[arrays.Example]:
    with progress:
        for texts in batches:
            for ids in tokenizer.encode_all(texts):
                yield {"tokens": np.array([tokenizer.bos_id, *ids, tokenizer.eos_id], np.int32)}
            progress.advance(len(texts))
