"""A mined corpus as tokens for training, with a data card.

python -m experiments.export --config=configs/export.py:nano --workdir=runs/export --config.corpus=runs/mine \\
    --config.tokenizer=runs/tokenizer

Then `--config.corpora.mined=runs/export` of pretraining reads it without tokenizing again. With
`--config.max_tokens=40e9,80e9` the folders runs/export/top-40e9 and runs/export/top-80e9 stand for the best pages of
the one ranking: name one of them instead.

Expect at nano, on 2 cores: 4 s for the thousand pages of the embedded crawl, and `card.md`, which says what they are.
"""

import ml_collections


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), paper (the paper's cuts)."""
    if preset not in ("nano", "paper"):
        raise ValueError(f"configs/export.py: preset {preset!r} is none of nano, paper")
    c = ml_collections.ConfigDict()
    c.corpus = "runs/mine"  # a mining workdir
    c.tokenizer = "runs/tokenizer"  # workdir of the one that counts
    # The best pages until so many tokens are reached, several cuts with commas between; "0": all pages.
    # The preset paper has the four that §2.1 compared; its last holds all pages where mining kept 120e9, see
    # docs/guides/common-crawl.md.
    c.max_tokens = "0" if preset == "nano" else "40e9,80e9,120e9,160e9"
    c.min_score = 0.0  # pages below it are left out
    c.languages = ""  # such as "en,zh"; pages in others are left out; "": all
    return c
