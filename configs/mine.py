"""From a crawl to a mathematical corpus.

    python -m experiments.mine --config=configs/mine.py:nano --workdir=runs/mine

Expect, on 2 cores: 45 s; 4,664 pages, 4,331 of them unique; 3 rounds, which collect 949, 1,058 and 1,052 pages; the
last repeats 99.8 % of the one before. 94 % of the corpus comes from SymPy, NetworkX, SciPy, NumPy and mpmath. Other
versions of the packages give other pages.

Another crawl: --config.input='crawl/*.warc.gz'; its own seed: --config.seed_texts='openwebmath/*.parquet'.
"""

import ml_collections

PRESETS = ("nano", "paper")


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """The settings of mining: `nano` for a laptop and the embedded crawl, `paper` for Common Crawl.

    Raises:
      ValueError: another preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.workers = 2  # processes

    c.input = "embedded"  # or globs of WARC or WET files, separated by commas
    c.pages_per_host = 250  # of the embedded crawl
    c.min_words = 20  # shorter pages are left out; ours
    c.near_duplicate_threshold = 0.8  # Jaccard similarity of word 5-grams; ours: the paper only says "near"

    c.seed_texts = ""  # the embedded stand-in for OpenWebMath, or a glob of .txt, .jsonl and .parquet files (§2.1)
    c.positives = 1_200  # seed texts at most
    c.negatives = 1_200  # random pages of the crawl; as many as positives (§2.1), so that 0.5 parts the scores
    # Ours: documentation of other subjects is the negatives of round 1, and stands in where later rounds find too few
    # pages outside the mathematical domains. A quarter or a third of a crawl of manuals is mathematics: random
    # pages would teach the first classifier that it is none, and that documentation of a Python package is.
    c.embedded_negatives = True

    # The classifier: fastText (§2.1), smaller than the paper's; a thousandth of its texts need more steps.
    c.classifier = ml_collections.ConfigDict()
    c.classifier.dim = 16
    c.classifier.lr = 0.5
    c.classifier.word_ngrams = 3  # §2.1
    c.classifier.min_count = 3  # §2.1
    c.classifier.epochs = 5
    c.classifier.buckets = 600_000
    c.classifier.threads = 1  # more are faster, and no two models equal

    # What a round collects: the top of the ranking, down to a score, and no more than a share of the unique pages.
    c.min_score = 0.5  # ours: more probably mathematics than not
    c.max_share = 1.0  # ours: how much of a user's crawl is mathematics is not known

    c.math_domain_share = 0.1  # a domain is mathematical where more of its pages were collected (§2.1)
    c.marked_paths = "configs/marked_paths.json"  # what people marked in those domains (§2.1); "" for none
    c.stop_share = 0.98  # the end: so much of a round's pages was collected in the round before (§2.1)
    c.max_rounds = 8  # a bound; `stop_share` ends nano's rounds

    c.benchmarks = ""  # glob of benchmark files whose texts are removed from the corpus (§2.1); "" for none

    if preset == "paper":
        c.input = "crawl/*.warc.gz"
        c.workers = 64
        c.seed_texts = "openwebmath/*.parquet"
        c.positives = c.negatives = 500_000  # §2.1
        c.classifier.dim = 256  # §2.1
        c.classifier.lr = 0.1  # §2.1
        c.classifier.epochs = 3  # §2.1
        c.classifier.buckets = 2_000_000  # fastText's default; the paper is silent
        c.classifier.threads = 64
        c.embedded_negatives = False
        c.min_score = 0.0  # the amount alone decides
        c.max_share = 35.5e6 / 40e9  # 35.5 M pages of 40 B (§2.1)
        c.max_rounds = 4  # §2.1
        c.benchmarks = "benchmarks/**/*.jsonl"
    return c
