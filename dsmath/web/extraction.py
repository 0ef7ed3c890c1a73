"""Extraction, a crawl file at a time: texts, what tells pages apart and, where a classifier is given, scores."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dsmath.runs.workdir import replacing
from dsmath.web import dedup, sources, warc
from dsmath.web.classifier import Classifier
from dsmath.web.domains import registered_domain
from dsmath.web.extract import html_to_text
from dsmath.web.language import detect_language
from dsmath.web.pages import BATCH, write_batches

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
SCORED_PAGES = PAGES.append(pa.field("score", pa.float32()))


class ExtractPages:
    """Worker: reads a crawl file, writes `pages/NAME.parquet` with texts and keys, and before it the signatures.

    Args:
      min_words: pages with fewer words are left out.
      languages: codes of the languages that stay; none: all.
      classifier: the file of one that scores the pages while their texts are at hand; "" for none.
    """

    def __init__(self, min_words: int, languages: Sequence[str], classifier: str):
        self._min_words, self._languages = min_words, frozenset(languages)
        self._classifier = Classifier.load(classifier) if classifier else None

    def run(self, task: Mapping[str, Any]) -> None:
        """Extracts `task["input"]`; the signatures go to `task["signatures"]`."""
        skipped: Counter = Counter()
        signatures: list[np.ndarray] = []
        with sources.open_local(task["input"]) as path, replacing(task["output"]) as temporary:
            batches = self._columns(self._read(path, skipped), signatures)
            schema = PAGES if self._classifier is None else SCORED_PAGES
            write_batches(temporary, schema, batches, lambda: {"skipped": dict(skipped)})
            with replacing(task["signatures"]) as signature_file, open(signature_file, "wb") as file:
                np.save(file, np.concatenate(signatures) if signatures else dedup.page_signatures([]))

    def _columns(self, pages: Iterator[tuple[str, str, str]], signatures: list[np.ndarray]) -> Iterator[dict[str, Any]]:
        while batch := list(itertools.islice(pages, BATCH)):
            urls, languages, texts = zip(*batch, strict=True)
            signatures.append(dedup.page_signatures(texts))
            hosts = [dedup.host(url) for url in urls]
            columns = {
                "url": urls,
                "url_key": [dedup.url_key(url) for url in urls],
                "host": hosts,
                "domain": [registered_domain(host) for host in hosts],
                "language": languages,
                "bytes": [len(text.encode(errors="surrogatepass")) for text in texts],
                "text_key": [dedup.text_key(text) for text in texts],
                "text": texts,
            }
            yield columns if self._classifier is None else columns | {"score": self._classifier.score(texts)}

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
