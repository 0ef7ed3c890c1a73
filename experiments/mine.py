"""Mines a crawl for mathematics: Figure 2 of DeepSeekMath, top to bottom.

python -m experiments.mine --config=configs/mine.py:nano --workdir=runs/mine
"""

import pathlib
import sys
from typing import Any

import ml_collections
import numpy as np

from dsmath.runs import driver
from dsmath.web import decontaminate, library_docs, mine, seed
from dsmath.web.domains import find_math_domains


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Runs the stage; a rerun goes on where it was killed.

    Returns:
      {"pages": readable pages of the crawl, "collected": pages of the corpus, "rounds": rounds that were run}.
    """
    # ------------------------------------------------------------------------------------------------ inputs
    mine.remove_leftovers(workdir)
    marked = mine.keep_marked_paths(config.marked_paths, workdir)
    if config.benchmarks:
        decontaminate.read_benchmarks(config.benchmarks)  # a bad glob is said now, not after hours
    seed_files = seed.find_files(config.seed_texts)
    inputs = mine.find_crawl(config.input, workdir, pages_per_host=config.pages_per_host, seed=config.seed)
    mine.record_inputs(workdir, [*inputs, *seed_files])

    # ------------------------------------------------------------------------------------------------ text, once each
    mine.extract_pages(inputs, workdir, min_words=config.min_words, workers=config.workers)
    crawl = mine.remove_duplicates(inputs, workdir, threshold=config.near_duplicate_threshold)
    num_unique = len(crawl.url_N)
    _say(f"{crawl.num_pages} pages, {num_unique} of them unique; duplicates: {crawl.duplicates}")

    # ------------------------------------------------------------------------------------------------ rounds
    seed_texts = seed.read_texts(config.seed_texts, count=config.positives, seed=config.seed)
    other_texts = library_docs.other_texts(config.seed, config.negatives) if config.embedded_negatives else []
    positive_N = np.zeros(num_unique, dtype=bool)  # from the crawl, by marks
    first_round_N = np.zeros(num_unique, dtype=np.int32)
    before_N = np.zeros(num_unique, dtype=bool)  # collected in the round before
    # Pages that may be mathematics are no negatives: in a small crawl, before the first round, that is any page.
    excluded_N = np.full(num_unique, config.embedded_negatives, dtype=bool)
    rounds, ended = [], "max_rounds"
    for round_number in range(1, config.max_rounds + 1):
        # 1. Train a fastText model on the seed and on random pages; embedded texts stand in for missing ones.
        negatives = mine.draw_negatives(crawl, count=config.negatives, seed=config.seed, excluded_N=excluded_N)
        others = other_texts[: config.negatives - len(negatives)]
        classifier = mine.train_classifier(
            crawl, workdir, round_number, seed_texts=seed_texts, positive_N=positive_N, other_texts=others,
            negatives=negatives, seed=config.seed, **config.classifier,
        )  # fmt: skip
        # 2. Recall pages of mathematics from the crawl.
        score_N = mine.score_pages(crawl, workdir, round_number, classifier, workers=config.workers)
        collected_N = mine.collect(crawl, score_N, min_score=config.min_score, max_share=config.max_share)
        first_round_N[collected_N & (first_round_N == 0)] = round_number
        # 3. Discover the domains of mathematics.
        domains = find_math_domains(crawl.domain_N, collected_N, min_share=config.math_domain_share)
        # 4. What people marked in them, and the classifier missed, joins the seed.
        new_N = mine.find_new_positives(crawl, domains, marked, collected_N=collected_N) & ~positive_N

        already = float((collected_N & before_N).sum() / collected_N.sum()) if rounds else None
        rounds.append(
            {
                "round": round_number,
                "positives": len(seed_texts) + int(positive_N.sum()),
                "negatives": len(others) + len(negatives),
                "collected": int(collected_N.sum()),
                "already_collected": already,
                "math_domains": sum(domain.is_math for domain in domains),
                "new_positives": int(new_N.sum()),
                "threshold": float(score_N[collected_N].min()),
            }
        )
        _say(", ".join(f"{name} {value}" for name, value in rounds[-1].items()))
        if already is not None and already >= config.stop_share:
            _say(f"{already:.1%} of the pages had been collected in the round before: the end")
            ended = "stop_share"
            break
        if not new_N.any():
            _say("no page under a marked path was missed: the seed stays as it is")
        positive_N |= new_N
        before_N = collected_N
        excluded_N = positive_N | collected_N | mine.find_math_pages(crawl, domains)

    # ------------------------------------------------------------------------------------------------ corpus
    mine.write_domains(domains, workdir)
    mine.write_corpus(
        crawl, workdir, score_N=score_N, collected_N=collected_N, first_round_N=first_round_N,
        benchmarks=config.benchmarks, workers=config.workers,
    )  # fmt: skip
    report = mine.write_report(
        crawl, workdir, source=config.input, rounds=rounds, ended=ended, score_N=score_N, collected_N=collected_N
    )
    return {"pages": report["pages"], "collected": report["collected"], "rounds": len(rounds)}


def _say(line: str) -> None:
    print(f"mine: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    driver.main("mine", run)
