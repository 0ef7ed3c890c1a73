"""Mining by nothing but a `multiprocessing.Pool`: what an engine, files between the steps and resumption cost.

Functions and order are those of `experiments.mine`: extract and sign, deduplicate, score, decontaminate, write. Texts
go back and forth through memory; a kill loses everything.
"""

import multiprocessing
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsmath.web import dedup, warc
from dsmath.web.benchmark_texts import read_benchmarks
from dsmath.web.classifier import Classifier
from dsmath.web.decontaminate import Decontaminator
from dsmath.web.domains import registered_domain
from dsmath.web.extract import html_to_text
from dsmath.web.language import detect_language

_CORPUS = pa.schema([("url", pa.string()), ("text", pa.string()), ("score", pa.float32()), ("language", pa.string())])
_worker: dict[str, Any] = {}  # what a process holds


def run(
    inputs: Sequence[str],
    folder: pathlib.Path,
    *,
    model: pathlib.Path,
    benchmarks: str,
    workers: int,
    min_words: int,
    threshold: float,
    min_score: float,
) -> tuple[float, list[str]]:
    """Mines the files; arguments as in the config of mining.

    Returns:
      the seconds from the first file to the last, when all processes have started, and the addresses that are kept.
    """
    settings = {"folder": folder, "min_words": min_words, "min_score": min_score}
    with multiprocessing.get_context("spawn").Pool(workers, _start, (model, benchmarks, settings)) as pool:
        pool.map(time.sleep, [0.2] * workers, chunksize=1)  # each has begun
        started = time.perf_counter()
        files = list(pool.imap(_extract, inputs))
        tasks = _deduplicate(files, threshold)
        urls = [url for kept in pool.imap(_write, tasks) for url in kept]
        return time.perf_counter() - started, urls


def _start(model: pathlib.Path, benchmarks: str, settings: dict[str, Any]) -> None:
    decontaminator = Decontaminator(read_benchmarks(benchmarks)) if benchmarks else None
    _worker.update(settings, classifier=Classifier.load(model), decontaminator=decontaminator)


def _extract(path: str) -> dict[str, Any]:
    """The pages of a file in columns."""
    urls, texts = [], []
    for page in warc.read_pages(path):
        text = page.text if page.html is None else html_to_text(page.html, page.charset)
        if dedup.has_words(text, _worker["min_words"]):
            urls.append(page.url)
            texts.append(text)
    hosts = map(dedup.host, urls)
    return {
        "url": urls,
        "text": texts,
        "language": list(map(detect_language, texts)),
        "domain": list(map(registered_domain, hosts)),
        "url_key": list(map(dedup.url_key, urls)),
        "text_key": list(map(dedup.text_key, texts)),
        "signature": dedup.page_signatures(texts),
    }


def _deduplicate(files: Sequence[dict[str, Any]], threshold: float) -> list[tuple[int, dict[str, list]]]:
    """The pages of each file that stay: the first of each address, text and cluster."""
    cluster_N = iter(
        dedup.cluster_signatures(np.concatenate([file["signature"] for file in files]), threshold=threshold)
    )
    seen: set[Any] = set()
    tasks = []
    for number, file in enumerate(files):
        rows = []
        for row, keys in enumerate(zip(file["url_key"], file["text_key"], strict=True)):
            names = {*keys, int(next(cluster_N))}
            if not names & seen:
                rows.append(row)
            seen |= names
        tasks.append((number, {name: [file[name][row] for row in rows] for name in ("url", "text", "language")}))
    return tasks


def _write(task: tuple[int, dict[str, list]]) -> list[str]:
    """Writes the mathematical pages of a file without benchmark texts; returns their addresses."""
    number, pages = task
    pages["score"] = _worker["classifier"].score(pages["text"]).tolist()
    table = pa.table(pages, schema=_CORPUS)
    records = [page for page in table.to_pylist() if page["score"] >= _worker["min_score"]]
    if _worker["decontaminator"] is not None:
        for page in records:
            page["text"] = _worker["decontaminator"].clean(page["text"])[0]
    records = [page for page in records if page["text"].strip()]
    path = _worker["folder"] / f"{number:05d}.parquet"
    pq.write_table(pa.Table.from_pylist(records, _CORPUS), path, compression="zstd")
    return [page["url"] for page in records]
