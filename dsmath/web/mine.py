"""The steps of mining a crawl: files in, files out, each file made once, so that a killed run goes on where it was."""

import math
import pathlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import LINEAGE, read_json, replacing, write_json, write_lineage
from dsmath.web import benchmark_texts, classifier, clusters, language, marking, selection, sources, validation
from dsmath.web import crawl as crawls
from dsmath.web.benchmark_texts import BenchmarkText
from dsmath.web.corpus import WriteCorpus
from dsmath.web.crawl import Crawl, PageReference
from dsmath.web.decontaminate import CONTAMINATED_SCHEMA, Decontaminator
from dsmath.web.domains import Domain
from dsmath.web.engine import Engine
from dsmath.web.pages import read_table
from dsmath.web.scoring import ScorePages, TakeScores
from dsmath.web.seed import SeedText

CONTAMINATED, DECONTAMINATOR = "contaminated.parquet", "decontaminator.npz"


def check(config: ml_collections.ConfigDict) -> None:
    """Says at the start what would fail after hours.

    Raises:
      InputError: names the field.
    """
    check_positive(config, "max_rounds", "positives", "negatives", "pages_per_task", "workers", "auto.min_pages")
    for name in ("max_per_host", "max_files", "min_words"):
        if config[name] < 0:
            raise InputError(f"config.{name}={config[name]}: must not be negative")
    _check_limits(config)
    language.parse_languages(config.languages)
    validation.check_folds(config.validation_folds)
    classifier.Settings(**config.classifier)
    try:
        clusters.rows_of_band(config.near_duplicate_threshold)
    except ValueError as error:
        raise InputError(f"config.near_duplicate_{error}; give a Jaccard similarity within") from error
    marking.check(config.annotation, config.marked_paths)


def _check_limits(config: ml_collections.ConfigDict) -> None:
    """Refuses shares and amounts that nothing, or everything, would pass."""
    if not 0 < config.max_share <= 1:
        raise InputError(f"config.max_share={config.max_share}: must be above 0 and at most 1; 1 sets no limit")
    if not 0 < config.stop_share <= 1:
        raise InputError(f"config.stop_share={config.stop_share}: must be above 0 and at most 1; the paper's is 0.98")
    if not 0 <= config.math_domain_share < 1:
        raise InputError(
            f"config.math_domain_share={config.math_domain_share}: must be at least 0 and below 1; the paper's is 0.1"
        )
    for name, score in {"min_score": config.min_score, "auto.min_score": config.auto.min_score}.items():
        if not 0 <= score <= 1:
            raise InputError(f"config.{name}={score}: scores are probabilities; give a number from 0 to 1")
    tokens = config.max_tokens
    if not tokens or not all(isinstance(amount, int | float) and 0 <= amount < math.inf for amount in tokens):
        raise InputError(
            f"config.max_tokens={tokens}: give numbers of tokens, 0 for any number: one, such as 40e9, or one for each "
            "round, such as 40e9,120e9"
        )


def round_tokens(max_tokens: Sequence[float], round_number: int, classifier_file: str = "") -> float:
    """The most tokens of a round.

    Args:
      max_tokens: one for each round; the last stands for those after.
      round_number: counts from 1.
      classifier_file: where another run's classifier is used, the only round does what its last one did.
    """
    return max_tokens[-1 if classifier_file else min(round_number, len(max_tokens)) - 1]


def record_inputs(workdir: pathlib.Path, origins: Sequence[str]) -> None:
    """Writes the lineage; a resumed run must find the inputs with which it began.

    Args:
      origins: files and addresses, as `sources.find_origins` gives them.
    Raises:
      InputError: names the first one that is new, gone or changed.
    """
    now = {str(origin): sources.identify(str(origin)) for origin in origins}
    before = read_json(workdir / LINEAGE)["data"] if (workdir / LINEAGE).exists() else now
    for origin in sorted(before.keys() | now.keys()):
        if before.get(origin) != now.get(origin):
            raise InputError(f"{origin}: has changed since {workdir} began; give another --workdir")
    write_lineage(workdir, data=now)


def train_classifier(
    crawl: Crawl,
    round_number: int,
    domains: Sequence[Domain],
    *,
    seed_texts: Collection[SeedText],
    other_texts: Collection[SeedText],
    num_negatives: int,
    max_per_host: int,
    validation_folds: int,
    seed: int,
    **settings: Any,
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Trains the round's classifier, or finds it trained: `classifier-ROUND.bin`, and `.json` with its figures.

    Args:
      domains: of the round before; none in the first.
      seed_texts: positives from outside the crawl; the marked pages of the rounds before join them.
      other_texts: negatives from outside the crawl. Where there are any, the first round takes them alone, and later
        ones as many as pages are missing. Ours: in a small crawl that is a quarter mathematics, random pages would
        teach the first classifier that mathematics is none.
      num_negatives: most negatives.
      max_per_host: most training pages of a host; 0: any number.
      validation_folds: of `validation.train_validated`.
      seed: of the choice of negatives and of the model.
      **settings: of `Classifier.train`.
    Returns:
      the classifier's file, and {"positives", "negatives", "validation"}.
    """
    path = crawl.workdir / f"classifier-{round_number}.bin"
    if not path.exists():
        marked = list(crawls.find_pages(crawl, lambda name: selection.read_positives(crawl, round_number - 1, name)))
        negatives: list[PageReference] = []
        if round_number > 1 or not other_texts:
            negatives = _draw_negatives(crawl, round_number, domains, num_negatives, max_per_host, seed)
        others = list(other_texts)[: num_negatives - len(negatives)]
        positive_texts, positive_hosts = _texts_and_hosts(crawl, seed_texts, marked)
        negative_texts, negative_hosts = _texts_and_hosts(crawl, others, negatives)
        model, figures = validation.train_validated(
            positive_texts,
            negative_texts,
            positive_hosts=positive_hosts,
            negative_hosts=negative_hosts,
            folds=validation_folds,
            max_per_host=max_per_host,
            seed=seed,
            **settings,
        )
        counts = {"positives": len(seed_texts) + len(marked), "negatives": len(others) + len(negatives)}
        write_json(path.with_suffix(".json"), {**counts, "validation": figures})
        model.save(path)
    return path, read_json(path.with_suffix(".json"))


def score_pages(crawl: Crawl, round_number: int, model: pathlib.Path, engine: Engine) -> None:
    """Scores every unique page, or takes the scores that it has: `scores/round-ROUND-NAME.parquet`."""
    tasks = [crawl.task(name, selection.scores_file(crawl, round_number, name)) for name in crawl.names]
    label = f"round {round_number}: score"
    if crawl.is_scored:
        engine.run_missing(label, TakeScores, (round_number,), tasks, is_light=True)
    else:
        engine.run_missing(label, ScorePages, (str(model), round_number), tasks)


def read_benchmarks(workdir: pathlib.Path, pattern: str) -> dict[str, list[BenchmarkText]]:
    """The texts to remove; nothing where the pattern is empty, or where `make_decontaminator` has read them before.

    Args:
      pattern: of `benchmark_texts.read_benchmarks`.
    Raises:
      InputError: an absent or malformed benchmark.
    """
    return {} if not pattern or (workdir / DECONTAMINATOR).exists() else benchmark_texts.read_benchmarks(pattern)


def make_decontaminator(workdir: pathlib.Path, benchmarks: Mapping[str, Sequence[BenchmarkText]]) -> str:
    """Makes the tables of the benchmarks once for all workers: `decontaminator.npz`.

    Args:
      benchmarks: of `read_benchmarks`.
    Returns:
      the file, or "" where there is nothing to remove.
    """
    path = workdir / DECONTAMINATOR
    if benchmarks:
        Decontaminator(benchmarks).save(path)
    return str(path) if path.exists() else ""


def write_corpus(crawl: Crawl, round_number: int, decontaminator: str, engine: Engine) -> None:
    """Writes what the round collected without benchmark texts: `corpus/NAME.parquet` and `contaminated.parquet`.

    Args:
      round_number: the last round.
      decontaminator: of `make_decontaminator`.
    """
    removed = [crawl.workdir / "removed" / f"{name}.parquet" for name in crawl.names]
    tasks = [
        crawl.task(
            name,
            crawl.workdir / "corpus" / f"{name}.parquet",
            scores=selection.scores_file(crawl, round_number, name),
            selection=selection.selection_file(crawl, round_number, name),
            contaminated=path,
        )
        for name, path in zip(crawl.names, removed, strict=True)
    ]
    engine.run_missing("write corpus", WriteCorpus, (decontaminator,), tasks)
    if not (crawl.workdir / CONTAMINATED).exists():
        with replacing(crawl.workdir / CONTAMINATED) as path, pq.ParquetWriter(path, CONTAMINATED_SCHEMA) as writer:
            for part in removed:
                writer.write_table(read_table(part))
    shutil.rmtree(crawl.workdir / "removed", ignore_errors=True)


def remove_leftovers(workdir: pathlib.Path) -> None:
    """Removes the temporary files of a run that was killed while it wrote; the workdir must be locked."""
    for leftover in workdir.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _draw_negatives(
    crawl: Crawl, round_number: int, domains: Sequence[Domain], count: int, max_per_host: int, seed: int
) -> list[PageReference]:
    """Random pages of the crawl; every round draws in the same order.

    Pages that are known or likely to be mathematics are left out: positives, pages that the round before collected,
    and all pages of the mathematical domains. Ours: in Common Crawl a random page is hardly ever mathematics; in a
    small crawl the classifier would learn what it is to find as wrong.
    """
    mathematical = pa.array([domain.domain for domain in domains if domain.is_math], pa.string())

    def is_wanted(name: str) -> np.ndarray:
        wanted_N = ~selection.read_positives(crawl, round_number - 1, name)
        if round_number > 1:
            wanted_N &= ~selection.read_collected(crawl, round_number - 1, name)
            wanted_N &= ~pc.is_in(crawl.index(name, ["domain"])["domain"], value_set=mathematical).to_numpy()
        return wanted_N

    return crawls.draw_pages(crawl, is_wanted, count=count, max_per_host=max_per_host, seed=seed)


def _texts_and_hosts(
    crawl: Crawl, outside: Collection[SeedText], inside: Sequence[PageReference]
) -> tuple[Iterator[str], Iterator[str]]:
    """The texts from outside the crawl and those of its pages, and beside them their hosts."""

    def texts() -> Iterator[str]:
        yield from (text.text for text in outside)
        yield from crawls.read_texts(crawl, inside)

    def hosts() -> Iterator[str]:
        yield from (text.host for text in outside)
        yield from (page.host for page in inside)

    return texts(), hosts()
