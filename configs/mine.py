"""From a crawl to a mathematical corpus.

    python -m experiments.mine --config=configs/mine.py:nano --workdir=runs/mine

Expect, on 2 cores: 53 s; 4,664 pages, 4,334 of them unique; 3 rounds, which collect 976, 1,066 and 1,059 pages; the
last repeats 99.6 % of the one before. 94 % of the corpus comes from SymPy, NetworkX, SciPy, NumPy and mpmath. Other
versions of the packages give other pages.

Another crawl: --config.input='data/crawl/*.warc.gz'; its own seed: --config.seed_texts='data/openwebmath/*.parquet'.
"""

import ml_collections

PRESETS = ("nano", "paper")


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop and the embedded crawl), paper (Common Crawl).

    Raises:
      ValueError: another preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is none of {', '.join(PRESETS)}")
    c = ml_collections.ConfigDict()
    c.seed = 0  # of all that is drawn at random
    # "native": processes of this machine; "daft": the same started by Daft; "ray": by Daft on the cluster at
    # RAY_ADDRESS, or on a local one. Results are equal.
    c.engine = "native"
    c.workers = 2  # processes

    # The embedded crawl, or WARC and WET files, separated by commas: paths and globs, s3://, gs://, https://, a listing
    # (*.paths.gz), or a crawl by its name, such as CC-MAIN-2024-22 or CC-MAIN-2024-22/wet.
    c.input = "embedded"
    c.max_files = 0  # takes the first files of the input; 0: all
    c.crawl_base_url = "https://data.commoncrawl.org"  # where crawls' names and listings lead
    c.pages_per_host = 250  # of the embedded crawl
    c.min_words = 20  # shorter pages are left out; ours
    c.languages = ""  # the pages that stay, such as "en,zh"; "" for all
    c.pages_per_task = 100_000  # of deduplication; 3 KB of memory each
    c.near_duplicate_threshold = 0.8  # Jaccard similarity of word 5-grams; ours: the paper only says "near"

    c.seed_texts = ""  # the embedded stand-in for OpenWebMath, or a glob of .txt, .jsonl and .parquet files (§2.1)
    c.positives = 1_200  # seed texts at most
    c.negatives = 1_200  # random pages of the crawl; as many as positives (§2.1), so that 0.5 parts the scores
    c.max_per_host = 500  # training pages of a host; ours: a bound on what one large site decides
    c.validation_folds = 3  # hosts are held out in turn, for the report's figures and to calibrate the score; ours
    # Ours: documentation of other subjects is the negatives of round 1, and stands in where later rounds find too few
    # pages outside the mathematical domains. A quarter or a third of a crawl of manuals is mathematics: random
    # pages would teach the first classifier that it is none, and that documentation of a Python package is.
    c.embedded_negatives = True
    c.classifier_file = ""  # one round with this classifier of an earlier run, and no training

    # The classifier: fastText (§2.1), smaller than the paper's; a thousandth of its texts need more steps.
    c.classifier = ml_collections.ConfigDict()
    c.classifier.dim = 16  # of a word's vector; §2.1: 256
    c.classifier.lr = 1.0  # this and the epochs are least values: see `classifier.Settings.raised_for`
    c.classifier.word_ngrams = 3  # §2.1
    c.classifier.min_count = 3  # §2.1
    c.classifier.epochs = 9  # over the training texts; §2.1: 3
    c.classifier.buckets = 600_000  # that word n-grams are hashed into; fastText's default: 2,000,000
    c.classifier.threads = 1  # more are faster, and no two models equal

    # What a round collects: the top of the ranking, down to a score, within a share of the unique pages and an amount.
    c.min_score = 0.5  # ours: more probably mathematics than not
    c.max_share = 1.0  # ours: how much of a user's crawl is mathematics is not known
    # At four bytes each; 0: any number. One value, or one for each round, such as 40e9,120e9, the last for those after.
    c.max_tokens = (0.0,)

    c.math_domain_share = 0.1  # a domain is mathematical where more of its pages were collected (§2.1)
    # Who marks paths in those domains: "people" (§2.1; the run stops until `experiments.annotate` has exported),
    # "file", "auto" (paths whose pages score well), or "none".
    c.annotation = "file"
    c.marked_paths = "configs/marked_paths.json"  # for "file": a JSON list of patterns
    c.auto = ml_collections.ConfigDict()  # for "auto"; ours
    c.auto.min_score = 0.4  # mean P(math) of the pages under a path that are not collected yet
    c.auto.min_pages = 5  # of them
    c.stop_share = 0.98  # the end: so much of a round's pages was collected in the round before (§2.1)
    c.max_rounds = 8  # a bound; `stop_share` ends nano's rounds

    c.benchmarks = ""  # benchmark files or folders whose texts are removed from the corpus (§2.1); "" for none
    c.labels = ""  # pages that people labelled (columns url and is_math, by tabs), to measure the rounds; "" for none

    if preset == "paper":
        c.input = "CC-MAIN-2024-22"
        c.workers = 64
        c.seed_texts = "openwebmath/*.parquet"
        c.pages_per_task = 4_000_000
        c.positives = c.negatives = 500_000  # §2.1
        c.max_per_host = 1_000
        c.classifier.dim = 256  # §2.1
        c.classifier.lr = 0.1  # §2.1
        c.classifier.epochs = 3  # §2.1
        c.classifier.buckets = 2_000_000  # fastText's default; the paper is silent
        c.classifier.threads = 64
        c.embedded_negatives = False
        c.min_score = 0.0  # the amount alone decides
        # Rounds 1 and 4: §2.1; round 2: §5.1. Round 3 is ours: 98 % of the last round's pages were in it already.
        c.max_tokens = (40e9, 89e9, 120e9)
        c.annotation = "people"  # §2.1
        c.max_rounds = 4  # §2.1
        c.benchmarks = "data/benchmarks"  # a folder of yours
    return c
