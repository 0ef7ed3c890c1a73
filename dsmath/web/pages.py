"""The work on pages, a crawl file at a time: workers that extract, score and write them."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsmath.runs.workdir import replacing
from dsmath.web import dedup, sources, warc
from dsmath.web.classifier import Classifier
from dsmath.web.decontaminate import Decontaminator, Segment, audit_table
from dsmath.web.domains import registered_domain
from dsmath.web.extract import html_to_text
from dsmath.web.language import detect_language

PAGES = pa.schema(
    [
        ("url", pa.string()),
        ("url_key", pa.binary(16)),
        ("host", pa.string()),
        ("domain", pa.string()),
        ("language", pa.string()),
        ("bytes", pa.int32()),
        ("text_key", pa.binary(16)),
        ("text", pa.string()),
    ]
)
SCORES = pa.schema([("url", pa.string()), ("host", pa.string()), ("score", pa.float32()), ("round", pa.int32())])
CORPUS = pa.schema(
    [
        ("url", pa.string()),
        ("host", pa.string()),
        ("text", pa.string()),
        ("score", pa.float32()),
        ("language", pa.string()),
        ("round", pa.int32()),
    ]
)
_BATCH = 500  # pages that a worker holds at a time


class ExtractPages:
    """Worker: reads a crawl file, writes `pages/NAME.parquet` with texts and keys, and before it the signatures.

    Args:
      min_words: pages with fewer words are left out.
      languages: codes of the languages that stay; none: all.
    """

    def __init__(self, min_words: int, languages: Sequence[str]):
        self._min_words, self._languages = min_words, frozenset(languages)

    def run(self, task: Mapping[str, Any]) -> None:
        """Extracts `task["input"]`; the signatures go to `task["signatures"]`."""
        skipped: Counter = Counter()
        signatures: list[np.ndarray] = []
        with sources.open_local(task["input"]) as path, replacing(task["output"]) as temporary:
            columns = (_page_columns(batch, signatures) for batch in _batched(self._read(path, skipped)))
            _write(temporary, PAGES, columns, lambda: {"skipped": dict(skipped)})
            with replacing(task["signatures"]) as signature_file, open(signature_file, "wb") as file:
                np.save(file, np.concatenate(signatures) if signatures else dedup.page_signatures([]))

    def _read(self, path: os.PathLike, skipped: Counter) -> Iterator[tuple[str, str, str]]:
        """Pages of some length: address, language, text."""
        for page in warc.read_pages(path, skipped):
            text = page.text if page.html is None else html_to_text(page.html, page.charset)
            if not dedup.has_words(text, self._min_words):
                skipped["short"] += 1
                continue
            language = detect_language(text)
            if self._languages and language not in self._languages:
                skipped["language"] += 1
            else:
                yield page.url, language, text


class ScorePages:
    """Worker: scores the unique pages of a file, writes `scores/round-ROUND-NAME.parquet`.

    Args:
      model: the classifier's file.
      round_number: counts from 1.
    """

    def __init__(self, model: str, round_number: int):
        self._classifier = Classifier.load(model)
        self._round = round_number

    def run(self, task: Mapping[str, Any]) -> None:
        """Scores the rows of `task["pages"]` that `task["unique"]` names, in that order."""
        rows = pq.read_table(task["unique"])["row"].to_numpy()
        write_parquet(task["output"], SCORES, self._score(task["pages"], rows))

    def _score(self, path: str, rows: np.ndarray) -> Iterator[dict[str, Any]]:
        for batch in read_rows(path, ["url", "host", "text"], rows):
            score = self._classifier.score(batch["text"].to_pylist())
            yield {"url": batch["url"], "host": batch["host"], "score": score, "round": [self._round] * len(score)}


class WriteCorpus:
    """Worker: writes a file's collected pages without benchmark texts, and before them what was removed.

    Args:
      decontaminator: the file of a `Decontaminator`; "" for none.
    """

    def __init__(self, decontaminator: str):
        self._decontaminator = Decontaminator.load(decontaminator) if decontaminator else None

    def run(self, task: Mapping[str, Any]) -> None:
        """Writes `task["output"]`; the record of what was removed goes to `task["contaminated"]`."""
        rows = pq.read_table(task["unique"])["row"].to_numpy()
        selection = pq.read_table(task["selection"])
        collected = selection["collected"].to_numpy()
        scores = pq.read_table(task["scores"], columns=["score"])["score"].to_numpy()[collected]
        rounds = selection["first_round"].to_numpy()[collected]
        removed: list[tuple[str, Segment]] = []
        with replacing(task["output"]) as temporary:
            _write(temporary, CORPUS, self._clean(task["pages"], rows[collected], scores, rounds, removed))
            with replacing(task["contaminated"]) as audit:
                pq.write_table(audit_table(removed), audit)

    def _clean(
        self, path: str, row_C: np.ndarray, score_C: np.ndarray, round_C: np.ndarray, removed: list
    ) -> Iterator[dict[str, Any]]:
        start = 0
        for batch in read_rows(path, ["url", "host", "text", "language"], row_C):
            records = []
            for page in batch.to_pylist():
                page |= {"score": score_C[start], "round": round_C[start]}
                start += 1
                if self._decontaminator is not None:
                    page["text"], segments = self._decontaminator.clean(page["text"])
                    removed.extend((page["url"], segment) for segment in segments)
                if page["text"].strip():
                    records.append(page)
            yield _columns(records, CORPUS)


def write_parquet(
    path: str | os.PathLike,
    schema: pa.Schema,
    batches: Iterable[Mapping[str, Any]],
    metadata: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Writes batches of columns under a temporary name and renames; `metadata` is asked when the last is written."""
    with replacing(path) as temporary:
        _write(temporary, schema, batches, metadata)


def read_rows(path: str | os.PathLike, columns: list[str], rows: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The given rows of a Parquet file, ascending, in batches of a bounded size."""
    with pq.ParquetFile(path) as file:
        start = 0
        for batch in file.iter_batches(_BATCH, columns=columns):
            low, high = np.searchsorted(rows, [start, start + batch.num_rows])
            if high > low:
                yield batch.take(pa.array(rows[low:high] - start))
            start += batch.num_rows


def read_metadata(path: str | os.PathLike, name: str) -> Any:
    """A value that `write_parquet` stored beside the columns."""
    return json.loads(pq.read_metadata(path).metadata[name.encode()])


def _write(
    path: os.PathLike,
    schema: pa.Schema,
    batches: Iterable[Mapping[str, Any]],
    metadata: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.table(dict(batch), schema=schema))
        writer.add_key_value_metadata({name: json.dumps(value) for name, value in metadata().items()})


def _columns(records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> dict[str, list]:
    return {name: [record[name] for record in records] for name in schema.names}


def _batched(pages: Iterator[tuple[str, str, str]]) -> Iterator[list[tuple[str, str, str]]]:
    while batch := list(itertools.islice(pages, _BATCH)):
        yield batch


def _page_columns(batch: Sequence[tuple[str, str, str]], signatures: list[np.ndarray]) -> dict[str, Any]:
    urls, languages, texts = zip(*batch, strict=True)
    signatures.append(dedup.page_signatures(texts))
    hosts = [dedup.host(url) for url in urls]
    return {
        "url": urls,
        "url_key": [dedup.url_key(url) for url in urls],
        "host": hosts,
        "domain": [registered_domain(host) for host in hosts],
        "language": languages,
        "bytes": [len(text.encode(errors="surrogatepass")) for text in texts],
        "text_key": [dedup.text_key(text) for text in texts],
        "text": texts,
    }
