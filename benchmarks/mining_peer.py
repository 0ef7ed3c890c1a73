"""The peer's side of mining.py: datatrove; started by it with the Python of the peers' environment.

It reads one JSON job from standard input and prints one JSON object. Its three configurations:

- "shipped": datatrove's WARC reader, its Trafilatura, its fastText filter, its MinHash, its n-gram decontamination,
  with their defaults, in the order of its own examples: what the classifier drops is never signed.
- "resiliparse": the same, but resiliparse takes the text out of the page.
- "matched": our extraction, our words for MinHash and decontamination, and our order, in which the whole crawl is
  deduplicated before it is scored. Reader, MinHash, filters, writers and executor are still datatrove's.

In all three the filter sees the tokens that the model was trained on. Decontamination drops a page whole, where ours
cuts lines out of it; such pages count as kept in the figure of quality. Words of "shipped" and "resiliparse" come from
spaCy's English rules, which is what datatrove picks for English: a blank pipeline, so nothing is downloaded. The index
of benchmark texts and datatrove's copy of the model are made before the clock starts.
"""

import importlib.metadata
import json
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.io import cached_asset_path_or_download
from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.extractors.base import BaseExtractor
from datatrove.pipeline.filters import FastTextClassifierFilter
from datatrove.pipeline.readers import ParquetReader, WarcReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import TextNormConfig, ngrams, simplify_text
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import WordTokenizer, load_word_tokenizer
from resiliparse.extract.html2text import extract_plain_text

# 10 as ours. datatrove's default writes 0 for every number: any table of numbers would then be a benchmark's.
_DECONTAMINATION = NGramsDecontConfig(n_grams=10, norm_config=TextNormConfig(norm_numbers=False))
_PACKAGES = ("datatrove", "trafilatura", "resiliparse", "fasttext-numpy2-wheel", "spacy", "numpy")


class Resiliparse(BaseExtractor):
    """Plain text by resiliparse with its defaults."""

    name = "resiliparse"

    def __init__(self, timeout: float = 1):
        super().__init__(timeout)

    def extract(self, text: str) -> str:
        return extract_plain_text(text)


class HtmlToText(BaseExtractor):
    """Plain text with its formulas by `dsmath.web.extract`."""

    name = "dsmath"

    def __init__(self, timeout: float = 1):
        super().__init__(timeout)

    def extract(self, text: str) -> str:
        from dsmath.web.extract import html_to_text

        return html_to_text(text.encode("utf-8", "replace"))


class TokensFilter(FastTextClassifierFilter):
    """datatrove's filter over the tokens that the model was trained on; the page's text stays.

    Args:
      pattern: of a token, in lower-case text.
    """

    def __init__(self, pattern: str, **kwargs: Any):
        super().__init__(**kwargs)
        self._token = re.compile(pattern)

    def filter(self, doc: Any) -> bool:
        text = doc.text
        doc.text = " ".join(self._token.findall(text.lower()))
        is_kept = super().filter(doc)
        doc.text = text
        return is_kept


class Words(WordTokenizer):
    """Our words: runs of letters and digits, and single Chinese, Japanese and Korean characters."""

    def __init__(self, pattern: str):
        super().__init__()
        self._word = re.compile(pattern)

    def word_tokenize(self, text: str) -> list[str]:
        return self._word.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the libraries print must not mix with the answer
    job = json.loads(sys.stdin.readline())
    is_matched = job["configuration"] == "matched"
    extractor = {"shipped": Trafilatura, "resiliparse": Resiliparse, "matched": HtmlToText}[job["configuration"]]()
    words = Words(job["word_pattern"]) if is_matched else load_word_tokenizer(Languages.english)
    folder = pathlib.Path(job["folder"])
    _write_index(folder / "index", json.loads(pathlib.Path(job["benchmark_texts"]).read_text(encoding="utf-8")), words)

    cached_asset_path_or_download(job["model"], namespace="filters", subfolder="fasttext")  # as the filter will ask
    classify = TokensFilter(job["token_pattern"], model_url=job["model"], keep_labels=("math", job["min_score"]))

    started = time.perf_counter()
    _mine(job, folder, extractor, classify, words, dedup_first=is_matched)
    seconds = time.perf_counter() - started

    urls, contaminated = _read_urls(folder / "corpus"), _read_urls(folder / "contaminated")
    (folder / "kept.txt").write_text("".join(f"{url}\n" for url in urls + contaminated), encoding="utf-8")
    result = {
        "seconds": seconds,
        "pages_kept": len(urls),
        "pages_contaminated": len(contaminated),
        "kept": str(folder / "kept.txt"),
        "formulas_kept": _formulas_kept(pathlib.Path(job["formulas"]), extractor.extract),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    print(json.dumps(result), file=answers, flush=True)


def _mine(
    job: dict[str, Any],
    folder: pathlib.Path,
    extractor: BaseExtractor,
    classify: TokensFilter,
    words: WordTokenizer,
    *,
    dedup_first: bool,
) -> None:
    num_files, names = len(list(pathlib.Path(job["inputs"]).iterdir())), iter(range(9))

    def execute(*steps: Any, tasks: int = num_files) -> None:
        logs = str(folder / "logs" / str(next(names)))
        LocalPipelineExecutor(list(steps), tasks=tasks, workers=min(job["workers"], tasks), logging_dir=logs).run()

    config = MinhashConfig()
    pages, signatures, buckets, removed, corpus = (
        str(folder / name) for name in ("pages", "signatures", "buckets", "removed", "corpus")
    )
    before, after = ([], [classify]) if dedup_first else ([classify], [])
    execute(WarcReader(job["inputs"]), extractor, *before, ParquetWriter(pages))
    execute(ParquetReader(pages), MinhashDedupSignature(signatures, config, language=words))
    execute(MinhashDedupBuckets(signatures, buckets, config=config), tasks=config.num_buckets)
    execute(MinhashDedupCluster(buckets, removed, config=config), tasks=1)
    decontaminate = NGramsDecontFilter(
        str(folder / "index"), _DECONTAMINATION, ParquetWriter(str(folder / "contaminated")), language=words
    )
    execute(ParquetReader(pages), MinhashDedupFilter(removed), *after, decontaminate, ParquetWriter(corpus))


def _read_urls(folder: pathlib.Path) -> list[str]:
    tables = [pq.read_table(file, columns=["metadata"])["metadata"] for file in sorted(folder.rglob("*.parquet"))]
    return [page["url"] for table in tables for page in table.to_pylist()]


def _write_index(folder: pathlib.Path, texts: dict[str, Iterable[str]], words: WordTokenizer) -> None:
    """What datatrove's indexer writes; that one asks for lighteval, which downloads its benchmarks."""
    config = _DECONTAMINATION
    hash_text = create_hash_func(config.hash_config)
    folder.mkdir(parents=True)
    for name, benchmark in texts.items():
        hashes = {
            hash_text(" ".join(grams))
            for text in benchmark
            for grams in ngrams(words.word_tokenize(simplify_text(text, config.norm_config)), config.n_grams)
        }
        array = np.array(list(hashes), dtype=config.hash_config.np_descr)
        array.tofile(folder / f"{name.replace('/', '_')}.index.hashes")


def _formulas_kept(folder: pathlib.Path, extract: Callable[[str], str | None]) -> float:
    """The share of the expected strings of `math-html` that are in the extracted text, white space aside."""
    kept = total = 0
    for part in ("small", "real"):
        expected = json.loads((folder / f"expect-{part}.json").read_text(encoding="utf-8"))
        for name, formulas in expected.items():
            html = (folder / part / name).read_bytes().decode("utf-8", "replace")
            text = " ".join((extract(html) or "").split())
            for formula in formulas["expect"] if part == "small" else formulas:
                kept += " ".join(formula.split()) in text
                total += 1
    return kept / total


if __name__ == "__main__":
    main()
