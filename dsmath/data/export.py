"""A mined corpus as tokens for training: the best pages first, in ArrayRecord files that TFDS and Grain read.

The files hold one ranking, so the best 40 B tokens and the best 120 B are both prefixes of it: a cut is a number of
pages, `train[:N]` in TFDS's words, and costs no copy. Memory holds some 50 bytes a page; texts pass through files.

Source: DeepSeekMath §2.1 (pages ranked by score, the amount chosen among the top 40, 80, 120 and 160 B tokens).
"""

import dataclasses
import decimal
import functools
import hashlib
import itertools
import math
import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsmath.data import arrays
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import read_json, replacing, require_finished, write_json

NAME = "mined_pages"
PAGES, CUT = "pages.parquet", "cut.json"
_PARTS = "parts"  # what a run keeps until it ends
_COLUMNS = {
    "url": pa.types.is_string,
    "host": pa.types.is_string,
    "text": pa.types.is_string,
    "score": pa.types.is_floating,
    "language": pa.types.is_string,
    "round": pa.types.is_integer,
}
_PAGES_SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("host", pa.string()),
        ("language", pa.string()),
        ("round", pa.int32()),
        ("score", pa.float32()),
        ("characters", pa.int32()),
        ("tokens", pa.int32()),
    ]
)
_PART_SCHEMA = pa.schema(
    [*(field for field in _PAGES_SCHEMA if field.name != "tokens"), ("key", pa.uint64()), ("ids", pa.list_(pa.int32()))]
)
_PART_FILES = 64  # corpus files in one part: a crawl has more files than a process may map
_BATCH = 256  # pages that are tokenized in one call
_BLOCK = 1024  # pages that are gathered from the parts at a time
_SHARD_TOKENS = 2**27  # about 300 MB


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The pages that are exported.

    Attributes:
      order_N: int64 [N], each page's number among all tokenized pages; the best page first.
      tokens_N: int64 [N], tokens of the pages up to each one.
      cuts: number of pages and of tokens by the cut's name, smallest first; empty where everything is kept.
      left_out: pages that were not ranked, by reason.
      num_ranked: pages that were ranked, those beyond the largest cut too.
    """

    order_N: np.ndarray
    tokens_N: np.ndarray
    cuts: dict[str, tuple[int, int]]
    left_out: dict[str, int]
    num_ranked: int


@dataclasses.dataclass(frozen=True)
class Export:
    """A finished export, or a cut of one.

    Attributes:
      folder: the export's workdir.
      cut: the file of the cut, which says how many of the best pages are meant; None for all.
    """

    folder: pathlib.Path
    cut: pathlib.Path | None = None

    def files(self) -> list[pathlib.Path]:
        """The small files that say what it holds."""
        files = [self.folder / PAGES, arrays.info_file(self.folder, NAME)]
        return [*files, self.cut] if self.cut else files

    def source(self) -> Any:
        """A random-access source of examples with `tokens`, int32 [length], as Grain takes it."""
        return arrays.open_source(self.folder, NAME, count=read_json(self.cut)["pages"] if self.cut else None)

    def check_tokenizer(self, tokenizer: Tokenizer, field: str) -> None:
        """Refuses an export whose ids are another tokenizer's; `field` names it in the config."""
        if not tokenizer.equals(Tokenizer.load(self.folder, field)):
            parent = read_json(self.folder / "lineage.json")["parents"]["tokenizer"]["workdir"]
            raise InputError(
                f"{field}={str(self.folder)!r}: holds ids of the tokenizer {parent!r}, which is not config.tokenizer; "
                "name that one, or export the corpus again with this one"
            )


def open_export(folder: str | os.PathLike, field: str) -> Export | None:
    """Opens an export, or the folder of one of its cuts; None where the folder is neither.

    Raises:
      InputError: the export has not been finished; `field` is the config's field that names it.
    """
    folder = pathlib.Path(folder)
    if (folder / CUT).is_file():
        require_finished(folder.parent, field)
        return Export(folder.parent, folder / CUT)
    if (folder / NAME).is_dir():
        require_finished(folder, field)
        return Export(folder)
    return None


def parse_cuts(text: str) -> dict[str, int]:
    """Tokens by name, smallest first, of "40e9,80e9"; nothing for "0".

    Raises:
      InputError: not numbers of tokens.
    """
    cuts = {}
    parts = [part.strip() for part in str(text).split(",")]
    for part in parts:
        try:
            tokens = float(part)
        except ValueError:
            tokens = math.nan
        if not (0 <= tokens < math.inf and tokens == int(tokens)) or (tokens == 0 and len(parts) > 1):
            raise InputError(
                f"config.max_tokens={text!r}: {part!r} is no number of tokens; write 40e9, or 40e9,80e9 for cuts of "
                "one ranking, or 0 alone for all"
            )
        if tokens:
            name = decimal.Decimal(int(tokens)).normalize().to_eng_string()
            cuts[f"top-{name.lower().replace('+', '')}"] = int(tokens)
    return dict(sorted(cuts.items(), key=lambda cut: cut[1]))


def check_columns(files: Sequence[pathlib.Path]) -> None:
    """Refuses a corpus that was not mined: its pages have no score to be ranked by."""
    for file in files:
        schema = pq.read_schema(file)
        for name, is_right in _COLUMNS.items():
            if name not in schema.names:
                raise InputError(f"config.corpus: {file} has no column {name!r}; give the workdir of a mining stage")
            if not is_right(schema.field(name).type):
                raise InputError(f"config.corpus: {file}: column {name!r} holds {schema.field(name).type}; convert it")


def tokenize(
    files: Sequence[pathlib.Path],
    workdir: pathlib.Path,
    tokenizer: Tokenizer,
    *,
    min_score: float,
    languages: Sequence[str],
) -> None:
    """Tokenizes the pages that pass into parts, each written once, in the corpus's order.

    Args:
      files: of the corpus.
      workdir: of the export.
      tokenizer: every page becomes <bos> text <eos>.
      min_score: pages below it are left out.
      languages: pages in others are left out; none given: all pages pass.
    """
    groups = [files[start : start + _PART_FILES] for start in range(0, len(files), _PART_FILES)]
    rows = [sum(pq.read_metadata(file).num_rows for file in group) for group in groups]
    counts = [_part(workdir, number).with_suffix(".json") for number in range(len(groups))]
    done = sum(count for count, path in zip(rows, counts, strict=True) if path.exists())
    with Progress(sum(rows), "tokenize", "page", done=done) as progress:
        for number, group in enumerate(groups):
            if counts[number].exists():
                continue
            left_out: Counter[str] = Counter()
            path = _part(workdir, number)
            with replacing(path) as temporary, pa.ipc.new_file(temporary, _PART_SCHEMA) as writer:
                for batch in _read(group):
                    kept = _choose(batch, min_score, languages, left_out)
                    if kept.num_rows:
                        writer.write_batch(_tokenize_batch(kept, tokenizer))
                    progress.advance(batch.num_rows)
            write_json(counts[number], dict(left_out))  # last: it says that the part is whole


def rank(workdir: pathlib.Path, cuts: dict[str, int]) -> Ranking:
    """Ranks the tokenized pages by score and finds the cuts.

    Equal scores are common, for many pages are mathematics beyond doubt. A hash of the address orders them: a cut
    among them is then a sample of them all, where the alphabet would keep a few hosts.

    Args:
      workdir: of the export.
      cuts: tokens by name. A cut is the fewest best pages that reach them, all pages where these are too few.
    Raises:
      InputError: no page is left.
    """
    parts = _Parts(workdir)
    left_out = sum((Counter(read_json(path)) for path in sorted((workdir / _PARTS).glob("*.json"))), Counter())
    score_N, key_N, length_N = parts.read_keys()
    if not len(score_N):
        raise InputError(
            f"config.corpus: no page is left (left out: {dict(left_out)}); lower config.min_score or give other "
            "config.languages"
        )
    order_N = np.lexsort((key_N, -score_N))
    tokens_N = np.cumsum(length_N[order_N], dtype=np.int64)
    found = {}
    for name, tokens in cuts.items():
        pages = min(int(np.searchsorted(tokens_N, tokens)) + 1, len(tokens_N))
        found[name] = (pages, int(tokens_N[pages - 1]))
    count = max((pages for pages, _ in found.values()), default=len(tokens_N))
    return Ranking(order_N[:count], tokens_N[:count], found, dict(sorted(left_out.items())), len(order_N))


def write_pages(workdir: pathlib.Path, ranking: Ranking) -> None:
    """Writes `pages.parquet`: a row for each record of the dataset, in its order."""
    if (workdir / PAGES).exists():
        return
    parts = _Parts(workdir)
    columns = [name for name in _PAGES_SCHEMA.names if name != "tokens"]
    with replacing(workdir / PAGES) as temporary, pq.ParquetWriter(temporary, _PAGES_SCHEMA, compression="zstd") as out:
        for start in range(0, len(ranking.order_N), _BLOCK):
            table = parts.take(ranking.order_N[start : start + _BLOCK], columns)
            lengths = np.diff(ranking.tokens_N[max(start - 1, 0) : start + _BLOCK], prepend=[0] if not start else [])
            out.write_table(table.append_column("tokens", pa.array(lengths, pa.int32())).select(_PAGES_SCHEMA.names))


def write_dataset(workdir: pathlib.Path, ranking: Ranking) -> None:
    """Writes the ranked pages as a dataset of tokens; shards that are there stay as they are."""
    ends = np.searchsorted(ranking.tokens_N, np.arange(_SHARD_TOKENS, int(ranking.tokens_N[-1]), _SHARD_TOKENS))
    bounds = np.unique([0, *ends, len(ranking.order_N)]).tolist()
    parts = _Parts(workdir)
    pages = [ranking.order_N[start:end] for start, end in itertools.pairwise(bounds)]
    arrays.store(
        workdir,
        NAME,
        [arrays.Part(len(page_S), functools.partial(_read_examples, parts, page_S)) for page_S in pages],
        ("tokens",),
        progress=("write", "page"),
        description="Pages of a mined corpus as token ids, best scores first; pages.parquet has a row for each.",
    )


def write_cuts(workdir: pathlib.Path, ranking: Ranking) -> None:
    """Writes `NAME/cut.json` for each cut: the folder stands for the best pages wherever a corpus is named."""
    for name, (pages, tokens) in ranking.cuts.items():
        write_json(workdir / name / CUT, {"pages": pages, "tokens": tokens})


def remove_parts(workdir: pathlib.Path) -> None:
    """Removes what only a run that goes on would need."""
    shutil.rmtree(workdir / _PARTS, ignore_errors=True)


class _Parts:
    """The tokenized pages, numbered through all parts; the files are mapped, not read."""

    def __init__(self, workdir: pathlib.Path):
        paths = sorted((workdir / _PARTS).glob("*.arrow"))
        readers = [pa.ipc.open_file(pa.memory_map(os.fspath(path))) for path in paths]
        self._places = [(reader, number) for reader in readers for number in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(reader.get_batch(number).num_rows for reader, number in self._places)])

    def read_keys(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every page: score, float32; key, uint64; number of tokens, int32."""
        count = self._starts[-1]
        score_N, key_N, length_N = (np.empty(count, dtype) for dtype in (np.float32, np.uint64, np.int32))
        for (reader, number), start in zip(self._places, self._starts[:-1], strict=True):
            batch = reader.get_batch(number)
            rows = slice(start, start + batch.num_rows)
            score_N[rows], key_N[rows] = batch["score"].to_numpy(), batch["key"].to_numpy()
            length_N[rows] = pc.list_value_length(batch["ids"]).to_numpy()
        return score_N, key_N, length_N

    def take(self, page_B: np.ndarray, columns: list[str]) -> pa.Table:
        """Columns of the pages with these numbers, in their order."""
        ascending_B = np.argsort(page_B)
        sorted_B = page_B[ascending_B]
        place_B = np.searchsorted(self._starts, sorted_B, side="right") - 1
        batches = []
        for same in np.split(np.arange(len(page_B)), np.flatnonzero(np.diff(place_B)) + 1):
            place = place_B[same[0]]
            reader, number = self._places[place]
            rows = pa.array(sorted_B[same] - self._starts[place])
            batches.append(reader.get_batch(number).select(columns).take(rows))
        return pa.Table.from_batches(batches).combine_chunks().take(pa.array(np.argsort(ascending_B)))


def _part(workdir: pathlib.Path, number: int) -> pathlib.Path:
    return workdir / _PARTS / f"{number:05d}.arrow"


def _read(files: Sequence[pathlib.Path]) -> Iterator[pa.RecordBatch]:
    for file in files:
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(_BATCH, columns=list(_COLUMNS))


def _choose(
    batch: pa.RecordBatch, min_score: float, languages: Sequence[str], left_out: Counter[str]
) -> pa.RecordBatch:
    """The pages that pass; the others are counted under the first test that they fail."""
    tests = {"no text": pc.greater(pc.utf8_length(batch["text"]), 0)}
    tests["below the least score"] = pc.greater_equal(pc.cast(batch["score"], pa.float32()), np.float32(min_score))
    if languages:
        tests["another language"] = pc.is_in(batch["language"], pa.array(languages, pa.string()))
    kept = np.ones(batch.num_rows, dtype=bool)
    for reason, test in tests.items():
        passes = pc.fill_null(test, False).to_numpy(zero_copy_only=False)
        if failed := int((kept & ~passes).sum()):
            left_out[reason] += failed
        kept &= passes
    return batch.filter(pa.array(kept))


def _tokenize_batch(batch: pa.RecordBatch, tokenizer: Tokenizer) -> pa.RecordBatch:
    texts, urls = batch["text"].to_pylist(), batch["url"].to_pylist()
    ids = [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in tokenizer.encode_all(texts)]
    columns = {name: batch[name] for name in ("url", "host", "language")}
    columns |= {"round": batch["round"].cast(pa.int32()), "score": batch["score"].cast(pa.float32())}
    columns |= {"characters": list(map(len, texts)), "key": [_key(url or "") for url in urls], "ids": ids}
    return pa.record_batch(columns, schema=_PART_SCHEMA)


def _key(url: str) -> int:
    return int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest(), "big")


def _read_examples(parts: _Parts, page_S: np.ndarray) -> Iterator[arrays.Example]:
    for start in range(0, len(page_S), _BLOCK):
        ids = parts.take(page_S[start : start + _BLOCK], ["ids"])["ids"]
        for page in ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids:
            yield {"tokens": page.values.to_numpy()}
