"""The page classifier beside a plain fastText, on hosts that neither has seen.

    python -m benchmarks.classifier --labels=labels.tsv --crawl='crawl/*.warc.gz' [--splits=5] [--json=FILE]

Both are trained on one half of the labelled domains and tested on the other, several times over. Domains that follow
each other by their number of mathematical pages go to different halves, by lot. Pages are the labelled ones, copies
aside; both read the text of `html_to_text`.

- dsmath: `train_validated` with the settings of mining's nano preset; its calibration sees the first half alone.
- fastText: dimension 100, word 2-grams, otherwise its defaults (5 epochs at 0.1), on the text in lower case; each page
  counts, and 0.5 is the threshold.

A domain is a lot: look at the spread over the splits before a difference.
"""

import csv
import glob
import pathlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from typing import NamedTuple

import fasttext
import numpy as np
from absl import app, flags

from benchmarks import timing
from configs import mine as configs
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import write_json
from dsmath.web import warc
from dsmath.web.domains import registered_domain
from dsmath.web.extract import html_to_text
from dsmath.web.validation import measure, train_validated

_LABELS = flags.DEFINE_string("labels", None, "table by tabs: url, host, is_math (1, 0, -1), dup_of", required=True)
_CRAWL = flags.DEFINE_string("crawl", None, "glob of the WARC files that hold the pages", required=True)
_SPLITS = flags.DEFINE_integer("splits", 5, "random halves", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOAL = 1.0
_CONTESTANTS = ("dsmath", "fastText")


class _Page(NamedTuple):
    text: str
    host: str
    is_math: bool


def main(argv: list[str]) -> None:
    del argv
    machine = timing.describe_machine("fasttext", "resiliparse")
    pages = _read_pages()
    splits = []
    with Progress(_SPLITS.value, "splits", "split") as progress:
        for seed in range(_SPLITS.value):
            trained_on = _draw_half(pages, seed)
            training = [page for page in pages if registered_domain(page.host) in trained_on]
            testing = [page for page in pages if registered_domain(page.host) not in trained_on]
            is_math_N = np.array([page.is_math for page in testing])
            row = {"seed": seed, "trained_on": sorted(trained_on), "training": len(training), "testing": len(testing)}
            for name, score in (("dsmath", _score_ours), ("fastText", _score_plain)):
                started = time.perf_counter()
                scores = score(training, [page.text for page in testing])
                row[name] = measure(scores, is_math_N) | {"seconds": time.perf_counter() - started}
            splits.append(row)
            progress.advance()
    ratios = _print_table(splits)
    if _JSON.value:
        write_json(_JSON.value, {"splits": splits, "ratios": ratios, "goal": _GOAL, "machine": machine})
    for figure, ratio in ratios.items():
        print(f"ratio classifier_{figure}: {ratio:.3f} (goal {_GOAL:.2f})")
    sys.exit(any(ratio < _GOAL for ratio in ratios.values()))


def _read_pages() -> list[_Page]:
    """One page an address, copies and unlabelled ones left out."""
    with open(_LABELS.value, encoding="utf-8", newline="") as file:
        rows = {row["url"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    pages = {}
    for path in sorted(glob.glob(_CRAWL.value)):
        for page in warc.read_pages(path):
            row = rows.get(page.url)
            if row and page.html and row["is_math"] in ("0", "1") and not row["dup_of"] and page.url not in pages:
                text = html_to_text(page.html, page.charset)
                pages[page.url] = _Page(text, row["host"], row["is_math"] == "1")
    return list(pages.values())


def _draw_half(pages: list[_Page], seed: int) -> set[str]:
    """One domain of each pair that follow each other by mathematical pages, then by all pages."""
    math, total = Counter(), Counter()
    for page in pages:
        domain = registered_domain(page.host)
        math[domain] += page.is_math
        total[domain] += 1
    ordered = sorted(total, key=lambda domain: (-math[domain], -total[domain], domain))
    draws = np.random.default_rng(seed).integers(0, 2, (len(ordered) + 1) // 2)
    return {domain for place, domain in enumerate(ordered) if draws[place // 2] == place % 2}


def _score_ours(training: list[_Page], texts: list[str]) -> np.ndarray:
    config = configs.get_config("nano")
    math, other = ([page for page in training if page.is_math == label] for label in (True, False))
    classifier, _ = train_validated(
        [page.text for page in math],
        [page.text for page in other],
        positive_hosts=[page.host for page in math],
        negative_hosts=[page.host for page in other],
        folds=config.validation_folds,
        max_per_host=config.max_per_host,
        seed=config.seed,
        **config.classifier,
    )
    return classifier.score(texts)


def _score_plain(training: list[_Page], texts: list[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "train.txt"
        lines = [f"__label__{int(page.is_math)} {_plain(page.text)}\n" for page in training]
        order = np.random.default_rng(0).permutation(len(lines))
        path.write_text("".join(lines[place] for place in order), encoding="utf-8", errors="replace")
        model = fasttext.train_supervised(str(path), dim=100, wordNgrams=2, thread=1, seed=0, verbose=0)
    labels, scores = model.predict([_plain(text) for text in texts], k=2)
    pairs = zip(labels, scores, strict=True)
    return np.array([score[label.index("__label__1")] for label, score in pairs])


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _print_table(splits: list[dict]) -> dict[str, float]:
    """Prints a row a split, then mean and spread; returns the ratios of the means."""
    columns = [(name, figure) for figure in ("f1", "auc") for name in _CONTESTANTS]
    print(f"{'split (pages)':<18}" + "".join(f"{f'{figure.upper()} {name}':>16}" for name, figure in columns))
    for row in splits:
        pages = f"{row['seed']} ({row['training']}, {row['testing']})"
        print(f"{pages:<18}" + "".join(f"{row[name][figure]:>16.3f}" for name, figure in columns))
    values = {(name, figure): [row[name][figure] for row in splits] for name, figure in columns}
    for label, summarize in (("mean", statistics.mean), ("deviation", statistics.pstdev)):
        print(f"{label:<18}" + "".join(f"{summarize(values[column]):>16.3f}" for column in columns))
    seconds = [f"{name} {statistics.mean(row[name]['seconds'] for row in splits):.0f} s" for name in _CONTESTANTS]
    print(f"training and scoring, a split: {', '.join(seconds)}")
    means = {column: statistics.mean(values[column]) for column in columns}
    return {figure: means["dsmath", figure] / means["fastText", figure] for figure in ("f1", "auc")}


if __name__ == "__main__":
    app.run(main)
