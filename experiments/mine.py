"""Mines a crawl for mathematics: Figure 2 of DeepSeekMath, top to bottom.

python -m experiments.mine --config=configs/mine.py:nano --workdir=runs/mine
"""

import os
import pathlib
import sys
from typing import Any

import ml_collections

from dsmath.runs import driver
from dsmath.web import crawl, library_docs, marking, mine, offers, report, seed, selection
from dsmath.web.benchmark_texts import find_files
from dsmath.web.classifier import Classifier
from dsmath.web.engine import Engine
from dsmath.web.language import parse_languages

# What a resumed run may change: the marks of the rounds that are over are kept, and results depend on no engine.
FREE = ("annotation", "auto", "engine", "marked_paths", "workers")


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Runs the stage; a rerun goes on where it was killed.

    Returns:
      {"pages": readable pages of the crawl, "collected": pages of the corpus, "rounds": rounds that were run}.
    """
    # ------------------------------------------------------------------------------------------------ inputs
    # What is wrong with them is said now, not after hours.
    workdir = workdir.absolute()  # a worker of a cluster has another current folder
    mine.remove_leftovers(workdir)
    mine.check(config)
    engine = Engine(config.engine, config.workers)
    engine.start()
    others = [str(path) for path in find_files(config.benchmarks)] if config.benchmarks else []
    benchmarks = mine.read_benchmarks(workdir, config.benchmarks)
    labels = report.read_labels(config.labels) if config.labels else {}
    fixed_classifier = os.path.abspath(config.classifier_file) if config.classifier_file else ""
    if fixed_classifier:
        Classifier.load(fixed_classifier)
        others.append(config.classifier_file)
    else:
        others += seed.find_files(config.seed_texts)
        seed_texts = seed.open_seed(config.seed_texts, count=config.positives, seed=config.seed)
        other_texts = ()
        if config.embedded_negatives:
            other_texts = seed.EmbeddedTexts(library_docs.other_texts, count=config.negatives, seed=config.seed)
    inputs, origins = crawl.find_files(
        config.input, workdir, base_url=config.crawl_base_url, max_files=config.max_files,
        pages_per_host=config.pages_per_host, seed=config.seed,
    )  # fmt: skip
    mine.record_inputs(workdir, [*origins, *others])
    decontaminator = mine.make_decontaminator(workdir, benchmarks)

    # ------------------------------------------------------------------------------------------------ text, once each
    pages = crawl.read(
        inputs, workdir, engine, min_words=config.min_words, threshold=config.near_duplicate_threshold,
        pages_per_task=config.pages_per_task, classifier=fixed_classifier,
        languages=parse_languages(config.languages),
    )  # fmt: skip
    _say(f"{pages.num_pages} pages, {pages.num_unique} of them unique; duplicates: {dict(pages.duplicates)}")

    # ------------------------------------------------------------------------------------------------ rounds
    rounds, domains, ended = [], [], "classifier_file" if fixed_classifier else "max_rounds"
    last_round = 1 if fixed_classifier else config.max_rounds
    for round_number in range(1, last_round + 1):
        # 1. Train a fastText model on the seed and on random pages; embedded texts stand in for missing ones.
        classifier, figures = pathlib.Path(fixed_classifier), {}
        if not fixed_classifier:
            classifier, figures = mine.train_classifier(
                pages, round_number, domains, seed_texts=seed_texts, other_texts=other_texts,
                num_negatives=config.negatives, max_per_host=config.max_per_host,
                validation_folds=config.validation_folds, seed=config.seed, **config.classifier,
            )  # fmt: skip
        # 2. Recall pages of mathematics from the crawl.
        mine.score_pages(pages, round_number, classifier, engine)
        cut = selection.find_cut(
            pages, round_number, min_score=config.min_score, max_share=config.max_share,
            max_tokens=mine.round_tokens(config.max_tokens, round_number, fixed_classifier),
        )  # fmt: skip
        # 3. Discover the domains of mathematics.
        selected = selection.select_pages(pages, round_number, cut, engine, math_domain_share=config.math_domain_share)
        domains = selected.domains
        already = selected.already / selected.collected if round_number > 1 else None
        is_last = round_number == last_round or (already is not None and already >= config.stop_share)
        # 4. What people marked in them, and the classifier missed, joins the seed.
        new_positives = 0
        if not is_last:
            offers.write_domains(workdir / "domains" / f"round-{round_number}.parquet", domains)
            offers.write_offers(pages, round_number, domains)
            marked = marking.find_marks(
                workdir, round_number, config.annotation, marked_paths=config.marked_paths, **config.auto
            )  # fmt: skip
            new_positives = selection.mark_pages(pages, round_number, domains, marked, engine)
            if not new_positives:
                _say("no page under a marked path was missed: the seed stays as it is")
        rounds.append(
            {
                "round": round_number,
                **figures,
                "threshold": cut.score,
                "collected": selected.collected,
                "already_collected": already,
                "math_domains": sum(domain.is_math for domain in domains),
                "new_positives": new_positives,
                "labelled": report.measure_round(pages, round_number, labels) if labels else None,
            }
        )
        _say(", ".join(f"{name} {value}" for name, value in rounds[-1].items() if not isinstance(value, dict)))
        if is_last:
            if round_number < last_round:
                _say(f"{already:.1%} of the pages had been collected in the round before: the end")
                ended = "stop_share"
            break

    # ------------------------------------------------------------------------------------------------ corpus
    offers.write_domains(workdir / "domains.parquet", domains)
    mine.write_corpus(pages, round_number, decontaminator, engine)
    written = report.write_report(
        pages, round_number, source=config.input, rounds=rounds, ended=ended, seed=config.seed
    )
    return {"pages": written["pages"], "collected": written["collected"], "rounds": len(rounds)}


def _say(line: str) -> None:
    print(f"mine: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    driver.main("mine", run, FREE)
