"""The report of a mining run: counts of every step, quality against labelled pages, hosts, examples."""

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_json
from dsmath.web import crawl as crawls
from dsmath.web import mine, selection, validation
from dsmath.web.crawl import Crawl
from dsmath.web.pages import BATCH, read_table

REPORT = "report.json"
_NUM_EXAMPLES, _EXAMPLE_CHARACTERS = 5, 300
_NUM_HOSTS = 1_000


def read_labels(path: str | os.PathLike) -> dict[str, bool]:
    """Labelled pages: a table of tab-separated columns with `url` and `is_math` (1, 0; others are left out).

    Raises:
      InputError: no such file, or a column is missing.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not {"url", "is_math"} <= set(rows.fieldnames or ()):
                raise InputError(f"{path}: config.labels needs the columns url and is_math, separated by tabs")
            return {row["url"]: row["is_math"] == "1" for row in rows if row["is_math"] in ("0", "1")}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"config.labels={str(path)!r}: cannot be read ({error})") from error


def measure_round(crawl: Crawl, round_number: int, labels: Mapping[str, bool]) -> dict[str, Any]:
    """Precision, recall, F1 and AUC of what a round collected, over the unique pages that have a label."""
    is_math, collected, score = [], [], []
    for name in crawl.names:
        scores = read_table(selection.scores_file(crawl, round_number, name), ["url", "score"])
        label_N = [labels.get(url) for url in scores["url"].to_pylist()]
        labelled_N = np.array([label is not None for label in label_N], bool)
        is_math.append(np.array([label for label in label_N if label is not None], bool))
        collected.append(selection.read_collected(crawl, round_number, name)[labelled_N])
        score.append(scores["score"].to_numpy()[labelled_N])
    is_math_L, collected_L = np.concatenate(is_math), np.concatenate(collected)
    figures = validation.measure(collected_L.astype(np.float32), is_math_L)
    area = validation.measure(np.concatenate(score), is_math_L)["auc"]
    return {"pages": len(is_math_L), **figures, "auc": area}


def write_report(
    crawl: Crawl, round_number: int, *, source: str, rounds: Sequence[Mapping[str, Any]], ended: str, seed: int
) -> dict[str, Any]:
    """Writes `report.json`.

    `collected` counts the corpus: pages that decontamination removed whole are not in it. Hosts count unique pages;
    those with the most collected ones are listed.

    Args:
      round_number: the last round.
      source: what was mined.
      rounds: the figures of each round.
      ended: the setting that ended the rounds, such as "stop_share" or "max_rounds".
      seed: of the examples.
    """
    documents = characters = 0
    pages, collected = Counter(), Counter()
    for name in crawl.names:
        with pq.ParquetFile(crawl.workdir / "corpus" / f"{name}.parquet") as file:
            documents += file.metadata.num_rows
            for batch in file.iter_batches(BATCH, columns=["text"], use_threads=False):
                characters += pc.sum(pc.utf8_length(batch["text"])).as_py() or 0
        host_N = crawl.index(name, ["host"])["host"].to_numpy()
        pages.update(host_N.tolist())
        collected.update(host_N[selection.read_collected(crawl, round_number, name)].tolist())
    removed = read_table(crawl.workdir / mine.CONTAMINATED, ["url"])["url"]
    hosts = [{"host": host, "pages": pages[host], "collected": collected[host]} for host in pages]
    report = {
        "input": source,
        "pages": crawl.num_pages,
        "skipped": crawl.skipped,
        "duplicates": crawl.duplicates,
        "unique": crawl.num_unique,
        "rounds": list(rounds),
        "ended": ended,
        "collected": documents,
        "corpus_characters": characters,
        "contaminated": len(removed.unique()),
        "num_hosts": len(hosts),
        "hosts": sorted(hosts, key=lambda host: (-host["collected"], -host["pages"], host["host"]))[:_NUM_HOSTS],
        "examples": [
            example for side in (True, False) for example in _read_examples(crawl, round_number, side, seed=seed)
        ],
    }
    write_json(crawl.workdir / REPORT, report)
    return report


def _read_examples(crawl: Crawl, round_number: int, side: bool, *, seed: int) -> list[dict[str, Any]]:
    """Random pages of one side of the cut, best first."""
    chosen = crawls.draw_pages(
        crawl,
        lambda name: selection.read_collected(crawl, round_number, name) == side,
        count=_NUM_EXAMPLES,
        max_per_host=0,
        seed=seed,
    )
    examples = []
    for page, text in zip(chosen, crawls.read_texts(crawl, chosen), strict=True):
        scores = read_table(selection.scores_file(crawl, round_number, page.name), ["url", "score"])
        url, score = scores["url"][page.place].as_py(), scores["score"][page.place].as_py()
        examples.append({"url": url, "score": round(score, 4), "text": text[:_EXAMPLE_CHARACTERS]})
    return sorted(examples, key=lambda example: -example["score"])
