"""The steps of mining a crawl: files in, files out, each file made once.

Work on pages runs in Daft's worker processes, one WARC path a row, one output file a WARC, written under a temporary
name and renamed: after a kill, a rerun makes only what is missing. What the steps share in memory is the index of the
unique pages (addresses and scores, no texts).
"""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import LINEAGE, fingerprint, read_json, write_json, write_lineage
from dsmath.web import dedup, library_docs, paths, warc
from dsmath.web.classifier import Classifier
from dsmath.web.domains import Domain
from dsmath.web.pages import ExtractPages, ScorePages, WriteCorpus, read_metadata, read_rows, run_missing, write_parquet

EMBEDDED = "embedded"
PAGES, UNIQUE, SCORES, CORPUS = "pages", "unique", "scores", "corpus"
DUPLICATES, CONTAMINATED, DOMAINS = "duplicates.parquet", "contaminated.parquet", "domains.parquet"
MARKED_PATHS, REPORT = "marked_paths.json", "report.json"
_NUM_EXAMPLES, _EXAMPLE_CHARACTERS = 5, 300
_UNIQUE_SCHEMA = pa.schema([("row", pa.int64())])
_DUPLICATES_SCHEMA = pa.schema([("url", pa.string()), ("kept_url", pa.string()), ("kind", pa.string())])
_CONTAMINATED_SCHEMA = pa.schema([("url", pa.string()), ("benchmark", pa.string()), ("ngram", pa.string())])
_DOMAINS_SCHEMA = pa.schema(
    [
        ("domain", pa.string()),
        ("pages", pa.int64()),
        ("collected", pa.int64()),
        ("share", pa.float64()),
        ("is_math", pa.bool_()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Crawl:
    """The index of a crawl's unique pages, in the order of their files.

    Attributes:
      names: the crawl's files by name, without ending.
      num_pages: readable pages, duplicates included.
      skipped: records that were left out, by kind.
      duplicates: pages that were dropped, by kind.
      file_N, row_N: int [N unique pages], each page's file and its row in `pages/NAME.parquet`.
      url_N, host_N, domain_N: strings of each page.
    """

    names: list[str]
    num_pages: int
    skipped: Mapping[str, int]
    duplicates: Mapping[str, int]
    file_N: np.ndarray
    row_N: np.ndarray
    url_N: list[str]
    host_N: list[str]
    domain_N: list[str]


def find_crawl(source: str, workdir: pathlib.Path, *, pages_per_host: int, seed: int) -> list[str]:
    """The crawl's files: those of a glob, or the embedded crawl, which is written to `crawl/` first.

    Raises:
      InputError: nothing matches.
    """
    if source != EMBEDDED:
        return warc.find_inputs(source)
    return [str(path) for path in library_docs.render(workdir / "crawl", pages_per_host=pages_per_host, seed=seed)]


def extract_pages(inputs: Sequence[str], workdir: pathlib.Path, *, min_words: int, workers: int) -> None:
    """Turns each file of the crawl into `pages/NAME.parquet`.

    Args:
      inputs: the crawl's files.
      min_words: pages with fewer words are left out.
      workers: processes.
    """
    named = zip(inputs, _names(inputs), strict=True)
    tasks = [{"inputs": path, "outputs": str(workdir / PAGES / f"{name}.parquet")} for path, name in named]
    run_missing("extract", ExtractPages, (min_words,), tasks, workers)
    for task in tasks:
        damaged = read_metadata(task["outputs"], "skipped").get("damaged")
        if damaged:
            logging.warning("%s: %d damaged records were left out", task["inputs"], damaged)


def remove_duplicates(inputs: Sequence[str], workdir: pathlib.Path, *, threshold: float) -> Crawl:
    """Finds the unique pages: writes `unique/NAME.parquet` (rows) and `duplicates.parquet`.

    Of pages with one address the first in the crawl stays; of equal or nearly equal texts the one with the shortest
    address, the alphabet deciding. `kept_url` is always a page that stayed.

    Args:
      inputs: the crawl's files.
      threshold: the Jaccard similarity from which texts are near duplicates.
    Raises:
      InputError: the crawl holds no readable page.
    """
    names = _names(inputs)
    columns = ["url", "url_key", "host", "domain", "text_key"]
    tables = [pq.read_table(workdir / PAGES / f"{name}.parquet", columns=columns) for name in names]
    pages = pa.concat_tables(tables)
    skipped = sum((Counter(read_metadata(workdir / PAGES / f"{name}.parquet", "skipped")) for name in names), Counter())
    if not pages.num_rows:
        raise InputError(f"config.input: no readable page in {len(names)} files (left out: {dict(skipped)})")
    file_N = np.repeat(np.arange(len(names)), [table.num_rows for table in tables])
    row_N = np.concatenate([np.arange(table.num_rows) for table in tables])
    if not (workdir / DUPLICATES).exists():
        _write_unique(pages, names, file_N, workdir, threshold)
    rows = [pq.read_table(workdir / UNIQUE / f"{name}.parquet")["row"].to_numpy() for name in names]
    first_row = np.cumsum([0] + [table.num_rows for table in tables[:-1]])
    unique = np.concatenate([start + row for start, row in zip(first_row, rows, strict=True)])
    kinds = Counter(pq.read_table(workdir / DUPLICATES)["kind"].to_pylist())
    unique_pages = pages.take(unique)
    return Crawl(
        names=names,
        num_pages=pages.num_rows,
        skipped=dict(sorted(skipped.items())),
        duplicates={kind: kinds[kind] for kind in ("url", "exact", "near")},
        file_N=file_N[unique],
        row_N=row_N[unique],
        url_N=unique_pages["url"].to_pylist(),
        host_N=unique_pages["host"].to_pylist(),
        domain_N=unique_pages["domain"].to_pylist(),
    )


def keep_marked_paths(source: str, workdir: pathlib.Path) -> paths.MarkedPaths:
    """Reads the marked paths and keeps them as `marked_paths.json`, which a resumed run reads instead.

    Args:
      source: a JSON list of patterns; "" for none.
    Raises:
      InputError: absent or malformed.
    """
    kept = workdir / MARKED_PATHS
    if kept.exists():
        return paths.read_marked_paths(kept)
    marked = paths.read_marked_paths(source) if source else paths.MarkedPaths([])
    write_json(kept, marked.patterns)
    return marked


def draw_negatives(crawl: Crawl, *, count: int, seed: int, excluded_N: np.ndarray) -> np.ndarray:
    """Indices of random pages of the crawl; every round draws in the same order.

    Args:
      count: most pages.
      excluded_N: bool [N], pages that are known or likely to be mathematics: positives, pages that were collected in
        the round before, and all pages of the mathematical domains. Ours: in Common Crawl a random page is hardly
        ever mathematics; in a small crawl the classifier would learn what it is to find as wrong.
    """
    order = np.random.default_rng(seed).permutation(len(crawl.url_N))
    return np.sort(order[~excluded_N[order]][:count])


def train_classifier(
    crawl: Crawl,
    workdir: pathlib.Path,
    round_number: int,
    *,
    seed_texts: Sequence[str],
    positive_N: np.ndarray,
    other_texts: Sequence[str],
    negatives: np.ndarray,
    **settings: Any,
) -> pathlib.Path:
    """Trains the round's classifier, or finds it trained: `classifier-ROUND.bin`.

    Args:
      seed_texts: positives from outside the crawl.
      positive_N: bool [N], positives from the crawl.
      other_texts: negatives from outside the crawl.
      negatives: indices of pages of the crawl.
      **settings: of `Classifier.train`.
    """
    path = workdir / f"classifier-{round_number}.bin"
    if not path.exists():
        positives = [*seed_texts, *_texts(crawl, workdir, np.flatnonzero(positive_N))]
        Classifier.train(positives, [*other_texts, *_texts(crawl, workdir, negatives)], **settings).save(path)
    return path


def score_pages(
    crawl: Crawl, workdir: pathlib.Path, round_number: int, classifier: pathlib.Path, *, workers: int
) -> np.ndarray:
    """Scores every unique page; writes `scores/round-ROUND-NAME.parquet`.

    Returns:
      float32 [N]: P(math).
    """
    tasks = [
        {
            "pages": str(workdir / PAGES / f"{name}.parquet"),
            "uniques": str(workdir / UNIQUE / f"{name}.parquet"),
            "outputs": str(workdir / SCORES / f"round-{round_number}-{name}.parquet"),
        }
        for name in crawl.names
    ]
    run_missing(f"round {round_number}: score", ScorePages, (str(classifier), round_number), tasks, workers)
    return np.concatenate([pq.read_table(task["outputs"], columns=["score"])["score"].to_numpy() for task in tasks])


def collect(crawl: Crawl, score_N: np.ndarray, *, min_score: float, max_share: float) -> np.ndarray:
    """Ranks the pages by score, the alphabet deciding among equals, and keeps the top.

    Args:
      min_score: least P(math) of a collected page.
      max_share: most of the unique pages; 1 leaves the amount to `min_score`.
    Returns:
      bool [N].
    Raises:
      InputError: no page is left.
    Source: DeepSeekMath §2.1.
    """
    order = np.lexsort((np.array(crawl.url_N), -score_N))
    collected_N = np.zeros(len(score_N), dtype=bool)
    collected_N[order[: round(max_share * len(score_N))]] = True
    collected_N &= score_N >= min_score
    if not collected_N.any():
        raise InputError(
            f"config.min_score={min_score}, config.max_share={max_share}: nothing was collected; the best of "
            f"{len(score_N)} pages scores {score_N.max():.3g}: lower min_score, raise max_share, or give "
            "config.seed_texts that are nearer to the crawl"
        )
    return collected_N


def find_new_positives(
    crawl: Crawl, domains: Sequence[Domain], marked: paths.MarkedPaths, *, collected_N: np.ndarray
) -> np.ndarray:
    """bool [N]: pages of the mathematical domains that lie under a marked path and were not collected.

    Source: DeepSeekMath §2.1.
    """
    candidates = zip(find_math_pages(crawl, domains), crawl.url_N, collected_N, strict=True)
    return np.array([not collected and is_math and marked.matches(url) for is_math, url, collected in candidates])


def find_math_pages(crawl: Crawl, domains: Sequence[Domain]) -> np.ndarray:
    """bool [N]: the pages of the mathematical domains, collected or not."""
    return np.isin(crawl.domain_N, [domain.domain for domain in domains if domain.is_math])


def write_corpus(
    crawl: Crawl,
    workdir: pathlib.Path,
    *,
    score_N: np.ndarray,
    collected_N: np.ndarray,
    first_round_N: np.ndarray,
    benchmarks: str,
    workers: int,
) -> None:
    """Writes the collected pages without benchmark texts: `corpus/NAME.parquet` and `contaminated.parquet`.

    Args:
      first_round_N: the round in which each page was collected first.
      benchmarks: glob of benchmark files; "" for none.
    """
    tasks = []
    for number, name in enumerate(crawl.names):
        chosen = np.flatnonzero(collected_N & (crawl.file_N == number))
        tasks.append(
            {
                "pages": str(workdir / PAGES / f"{name}.parquet"),
                "rows": crawl.row_N[chosen].tolist(),
                "scores": score_N[chosen].tolist(),
                "rounds": first_round_N[chosen].tolist(),
                "outputs": str(workdir / CORPUS / f"{name}.parquet"),
            }
        )
    run_missing("write corpus", WriteCorpus, (benchmarks,), tasks, workers)
    found = [entry for task in tasks for entry in read_metadata(task["outputs"], "contaminated")]
    _write_records(workdir / CONTAMINATED, _CONTAMINATED_SCHEMA, found)


def write_domains(domains: Sequence[Domain], workdir: pathlib.Path) -> None:
    """Writes `domains.parquet`, most collected first."""
    _write_records(workdir / DOMAINS, _DOMAINS_SCHEMA, [dataclasses.astuple(domain) for domain in domains])


def write_report(
    crawl: Crawl,
    workdir: pathlib.Path,
    *,
    source: str,
    rounds: Sequence[Mapping[str, Any]],
    ended: str,
    score_N: np.ndarray,
    collected_N: np.ndarray,
) -> dict[str, Any]:
    """Writes `report.json`: counts of every step, hosts, and examples from the middle of both sides.

    `collected` counts the corpus: pages that decontamination removed whole are not in it. Hosts count unique pages.

    Args:
      source: what was mined.
      rounds: the figures of each round.
      ended: the setting that ended the rounds, "stop_share" or "max_rounds".
      score_N, collected_N: of the last round.
    """
    corpus = [pq.read_table(workdir / CORPUS / f"{name}.parquet", columns=["text"])["text"] for name in crawl.names]
    contaminated = pq.read_table(workdir / CONTAMINATED, columns=["url"])["url"].to_pylist()
    pages, collected = Counter(crawl.host_N), Counter(np.array(crawl.host_N)[collected_N].tolist())
    hosts = [{"host": host, "pages": pages[host], "collected": collected[host]} for host in sorted(pages)]
    report = {
        "input": source,
        "pages": crawl.num_pages,
        "skipped": crawl.skipped,
        "duplicates": crawl.duplicates,
        "unique": len(crawl.url_N),
        "rounds": list(rounds),
        "ended": ended,
        "collected": sum(len(texts) for texts in corpus),
        "corpus_characters": sum(len(text) for texts in corpus for text in texts.to_pylist()),
        "contaminated": len(set(contaminated)),
        "hosts": sorted(hosts, key=lambda host: (-host["collected"], -host["pages"], host["host"])),
        "examples": [
            example for side in (collected_N, ~collected_N) for example in _examples(crawl, workdir, score_N, side)
        ],
    }
    write_json(workdir / REPORT, report)
    return report


def remove_leftovers(workdir: pathlib.Path) -> None:
    """Removes the temporary files of a run that was killed while it wrote; the workdir must be locked."""
    for leftover in workdir.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def record_inputs(workdir: pathlib.Path, files: Sequence[str | pathlib.Path]) -> None:
    """Writes the lineage; a resumed run must find the files with which it began.

    Raises:
      InputError: names the first file that is new, gone or changed.
    """
    begun = workdir / LINEAGE
    before = read_json(begun)["data"] if begun.exists() else None
    write_lineage(workdir, data=files)
    if before is None:
        return
    now = {str(path): fingerprint(path) for path in files}
    for path in sorted(before.keys() | now.keys()):
        if before.get(path) != now.get(path):
            raise InputError(f"{path}: has changed since {workdir} began; give another --workdir")


def _write_unique(
    pages: pa.Table, names: Sequence[str], file_N: np.ndarray, workdir: pathlib.Path, threshold: float
) -> None:
    signatures = [pq.read_table(workdir / PAGES / f"{name}.parquet", columns=["signature"]) for name in names]
    column = pa.concat_tables(signatures)["signature"].to_pylist()
    url_N = pages["url"].to_pylist()
    kept_N, kind_N = dedup.find_duplicates(
        url_N,
        pages["url_key"].to_pylist(),
        pages["text_key"].to_pylist(),
        np.frombuffer(b"".join(column), dtype=np.uint32).reshape(len(column), -1),
        threshold=threshold,
    )
    (workdir / UNIQUE).mkdir(exist_ok=True)
    for number, name in enumerate(names):
        rows = np.flatnonzero(kind_N[file_N == number] == "")
        write_parquet(workdir / UNIQUE / f"{name}.parquet", _UNIQUE_SCHEMA, [{"row": rows}])
    records = [(url_N[number], url_N[kept_N[number]], kind_N[number]) for number in np.flatnonzero(kind_N != "")]
    _write_records(workdir / DUPLICATES, _DUPLICATES_SCHEMA, records)  # last: its presence says that all is there


def _names(inputs: Sequence[str]) -> list[str]:
    """The files' names without endings, numbered where two are equal."""
    stems = [pathlib.Path(path).name.partition(".")[0] for path in inputs]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{number:05d}-{stem}" for number, stem in enumerate(stems)]


def _texts(crawl: Crawl, workdir: pathlib.Path, pages: np.ndarray) -> Iterator[str]:
    for number, name in enumerate(crawl.names):
        rows = crawl.row_N[pages[crawl.file_N[pages] == number]]
        for batch in read_rows(workdir / PAGES / f"{name}.parquet", ["text"], rows):
            yield from batch["text"].to_pylist()


def _examples(crawl: Crawl, workdir: pathlib.Path, score_N: np.ndarray, side_N: np.ndarray) -> list[dict[str, Any]]:
    """Pages at even steps through one side's ranking."""
    side = np.flatnonzero(side_N)
    ranked = side[np.argsort(-score_N[side], kind="stable")]
    places = np.unique(np.linspace(0, len(ranked) - 1, _NUM_EXAMPLES).round().astype(int)) if len(ranked) else []
    return [
        {
            "url": crawl.url_N[page],
            "score": round(float(score_N[page]), 4),
            "text": next(_texts(crawl, workdir, np.array([page])))[:_EXAMPLE_CHARACTERS],
        }
        for page in ranked[places]
    ]


def _write_records(path: pathlib.Path, schema: pa.Schema, records: Sequence[Sequence]) -> None:
    columns = zip(*records, strict=True) if records else [[]] * len(schema)
    write_parquet(path, schema, [dict(zip(schema.names, columns, strict=True))])
