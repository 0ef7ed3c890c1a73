"""The work on pages: Daft's workers that extract, score and write them, and the files between the steps."""

import itertools
import json
import os
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "true")  # Daft reads it when it is imported

import daft
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from resiliparse.parse.lang import detect_fast

from dsmath.runs.progress import Progress
from dsmath.runs.workdir import replacing
from dsmath.web import dedup, warc
from dsmath.web.classifier import Classifier
from dsmath.web.decontaminate import Decontaminator, read_benchmarks
from dsmath.web.domains import registered_domain
from dsmath.web.extract import html_to_text

_NUM_HASHES = 256
_PAGES_SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("url_key", pa.string()),
        ("host", pa.string()),
        ("domain", pa.string()),
        ("language", pa.string()),
        ("text_key", pa.binary(16)),
        ("signature", pa.binary(4 * _NUM_HASHES)),
        ("text", pa.string()),
    ]
)
_SCORES_SCHEMA = pa.schema(
    [("url", pa.string()), ("host", pa.string()), ("score", pa.float32()), ("round", pa.int32())]
)
_CORPUS_SCHEMA = pa.schema(
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
_LANGUAGE_CHARACTERS = 20_000  # that the detection reads
_HAN, _KANA = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"), re.compile("[\u3040-\u30ff]")
_MIN_CJK_SHARE = 0.05  # of the characters; a Chinese manual is full of Latin commands
_LETTERS = re.compile(r"[^\W\d_]+")
_FUNCTION_WORDS = {
    "en": "the of and to is in for this that with",
    "de": "der die und das ist nicht ein mit von zu",
    "es": "el los las que es una para con por del",
    "fr": "le la les des et est une dans pour que",
    "it": "il che di è una per non con gli del",
    "nl": "de het een van en is niet dat op te",
    "pt": "o os não que uma para com do da em",
    "ru": "и в на не что с по для это как",
}
_LANGUAGES_BY_WORD: dict[str, list[str]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_BY_WORD.setdefault(_word, []).append(_language)
_MIN_FUNCTION_WORDS = 3


class ExtractPages:
    """Daft worker: reads a WARC file, writes `pages/NAME.parquet` with texts and the keys of deduplication."""

    def __init__(self, min_words: int):
        self._min_words = min_words

    @daft.method.batch(return_dtype=daft.DataType.bool(), batch_size=1)
    def run(self, inputs: daft.Series, outputs: daft.Series) -> list[bool]:
        """Extracts the pages of each input file into the output file beside it."""
        for source, target in zip(inputs.to_pylist(), outputs.to_pylist(), strict=True):
            skipped: Counter = Counter()
            batches = _batched(self._read(source, skipped))
            write_parquet(target, _PAGES_SCHEMA, map(_page_columns, batches), lambda c=skipped: {"skipped": dict(c)})
        return [True] * len(inputs)

    def _read(self, path: str, skipped: Counter) -> Iterator[tuple[str, str]]:
        for page in warc.read_pages(path, skipped):
            text = page.text if page.html is None else html_to_text(page.html, page.charset)
            if len(dedup.words(text)) < self._min_words:
                skipped["short"] += 1
            else:
                yield page.url, text


class ScorePages:
    """Daft worker: scores the unique pages of a file, writes `scores/round-ROUND-NAME.parquet`."""

    def __init__(self, model: str, round_number: int):
        self._classifier = Classifier.load(model)
        self._round = round_number

    @daft.method.batch(return_dtype=daft.DataType.bool(), batch_size=1)
    def run(self, pages: daft.Series, uniques: daft.Series, outputs: daft.Series) -> list[bool]:
        """Scores the rows that `unique/NAME.parquet` names, in that order."""
        columns = (pages.to_pylist(), uniques.to_pylist(), outputs.to_pylist())
        for source, unique, target in zip(*columns, strict=True):
            rows = pq.read_table(unique)["row"].to_numpy()
            write_parquet(target, _SCORES_SCHEMA, self._score(source, rows))
        return [True] * len(pages)

    def _score(self, path: str, rows: np.ndarray) -> Iterator[dict[str, Any]]:
        for batch in read_rows(path, ["url", "host", "text"], rows):
            score = self._classifier.score(batch["text"].to_pylist())
            yield {"url": batch["url"], "host": batch["host"], "score": score, "round": [self._round] * len(score)}


class WriteCorpus:
    """Daft worker: writes a file's collected pages without benchmark texts to `corpus/NAME.parquet`."""

    def __init__(self, benchmarks: str):
        self._decontaminator = Decontaminator(read_benchmarks(benchmarks)) if benchmarks else None

    @daft.method.batch(return_dtype=daft.DataType.bool(), batch_size=1)
    def run(
        self, pages: daft.Series, rows: daft.Series, scores: daft.Series, rounds: daft.Series, outputs: daft.Series
    ) -> list[bool]:
        """Writes the given rows with their scores and rounds."""
        columns = (series.to_pylist() for series in (pages, rows, scores, rounds, outputs))
        for source, row_C, score_C, round_C, target in zip(*columns, strict=True):
            found: list[tuple[str, str, str]] = []
            batches = self._clean(source, np.array(row_C, dtype=np.int64), score_C, round_C, found)
            write_parquet(target, _CORPUS_SCHEMA, batches, lambda found=found: {"contaminated": found})
        return [True] * len(pages)

    def _clean(
        self, path: str, row_C: np.ndarray, score_C: list[float], round_C: list[int], found: list
    ) -> Iterator[dict[str, Any]]:
        start = 0
        for batch in read_rows(path, ["url", "host", "text", "language"], row_C):
            records = []
            for page in batch.to_pylist():
                page |= {"score": score_C[start], "round": round_C[start]}
                start += 1
                if self._decontaminator is not None:
                    page["text"], segments = self._decontaminator.clean(page["text"])
                    found.extend((page["url"], segment.benchmark, segment.ngram) for segment in segments)
                if page["text"].strip():
                    records.append(page)
            yield {name: [record[name] for record in records] for name in _CORPUS_SCHEMA.names}


def run_missing(label: str, worker: type, settings: tuple, tasks: Sequence[Mapping[str, Any]], workers: int) -> None:
    """Runs a worker class on the tasks whose output file is absent.

    Args:
      label: of the progress.
      worker: one of the classes above.
      settings: its arguments.
      tasks: columns of `worker.run`, with the output file as `outputs`.
      workers: processes.
    """
    pathlib.Path(tasks[0]["outputs"]).parent.mkdir(parents=True, exist_ok=True)
    todo = [task for task in tasks if not pathlib.Path(task["outputs"]).exists()]
    with Progress(len(tasks), label, "file", done=len(tasks) - len(todo)) as progress:
        if not todo:
            return
        pool = daft.cls(worker, use_process=True, max_concurrency=min(workers, len(todo)))(*settings)
        columns = {name: [task[name] for task in todo] for name in todo[0]}
        results = daft.from_pydict(columns).select(pool.run(*map(daft.col, columns)).alias("done"))
        for _ in results.iter_rows():
            progress.advance()


def read_rows(path: str | os.PathLike, columns: list[str], rows: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The given rows of a Parquet file, ascending, in batches of a bounded size."""
    with pq.ParquetFile(path) as file:
        start = 0
        for batch in file.iter_batches(_BATCH, columns=columns):
            chosen = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
            start += batch.num_rows
            if len(chosen):
                yield batch.take(pa.array(chosen))


def read_metadata(path: str | os.PathLike, name: str) -> Any:
    """A value that a worker kept beside the rows: `skipped` in `pages/`, `contaminated` in `corpus/`."""
    return json.loads(pq.read_metadata(path).metadata[name.encode()])


def write_parquet(
    path: str | os.PathLike,
    schema: pa.Schema,
    batches: Iterable[Mapping[str, Any]],
    metadata: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Writes batches of columns under a temporary name and renames; `metadata` is asked when the last is written."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.table(dict(batch), schema=schema))
        writer.add_key_value_metadata({name: json.dumps(value) for name, value in metadata().items()})


def detect_language(text: str) -> str:
    """The page's language as a two-letter code, "unknown" where nothing tells.

    Japanese and Chinese are told by their characters, common languages by their most frequent words, others by
    resiliparse, which alone takes pages of code and formulas for Latin or Dutch (right on 86 % of real manuals' pages,
    96 % in this order).
    """
    start = text[:_LANGUAGE_CHARACTERS]
    for language, characters in (("ja", _KANA), ("zh", _HAN)):
        if len(characters.findall(start)) > _MIN_CJK_SHARE * len(start):
            return language
    counts = Counter(
        language for word in _LETTERS.findall(start.lower()) for language in _LANGUAGES_BY_WORD.get(word, ())
    )
    language, count = counts.most_common(1)[0] if counts else ("unknown", 0)
    return language if count >= _MIN_FUNCTION_WORDS else detect_fast(start)[0]


def _batched(pages: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    while batch := list(itertools.islice(pages, _BATCH)):
        yield batch


def _page_columns(batch: Sequence[tuple[str, str]]) -> dict[str, Any]:
    urls, texts = zip(*batch, strict=True)
    hosts = [_host(url) for url in urls]
    signature_NH = dedup.signatures(texts, num_hashes=_NUM_HASHES)
    return {
        "url": urls,
        "url_key": [dedup.normalise_url(url) for url in urls],
        "host": hosts,
        "domain": [registered_domain(host) for host in hosts],
        "language": [detect_language(text) for text in texts],
        "text_key": [dedup.text_key(text) for text in texts],
        "signature": [signature_H.tobytes() for signature_H in signature_NH],
        "text": texts,
    }


def _host(url: str) -> str:
    return dedup.normalise_url(url).partition("/")[0].partition("?")[0]
