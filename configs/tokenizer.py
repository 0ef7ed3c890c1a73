"""The tokenizer: byte-level BPE by SentencePiece.

python -m experiments.tokenizer --config=configs/tokenizer.py:nano --workdir=runs/tokenizer --config.corpus=runs/mine

Expect at nano: 1,024 pieces, 1.9 characters a token on mined pages and 2.8 on problems.
"""

import ml_collections


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper's vocabulary size)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/tokenizer.py: preset {preset!r} is none of nano, 7b")
    c = ml_collections.ConfigDict()
    c.corpus = "runs/mine"  # a mining workdir, or a folder of Parquet files with a column `text`
    c.problems = "embedded"  # or embedded_large, or a folder with GSM8K's train.jsonl and test.jsonl
    c.num_problems = 20000  # training problems beside the corpus; 0: all that real files hold
    c.characters_per_document = 10000  # a few long pages must not own the vocabulary
    c.vocab_size = 1024 if preset == "nano" else 102400  # the paper's model
    c.seed = 0  # of all that is drawn at random
    return c
