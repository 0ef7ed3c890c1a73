"""A corpus to set beside the mined one, for ablations.

    python -m experiments.corpus --config=configs/corpus.py:nano --workdir=runs/general --config.mine=runs/mine

A mining workdir has more pages than its corpus: those that its classifier rejected stand for general text, and those
of its first round tell what the later rounds add. Python's own library stands for code. Expect, on 2 cores: 3 s.
"""

import ml_collections


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop)."""
    if preset != "nano":
        raise ValueError(f"configs/corpus.py: preset {preset!r} is not nano; larger corpora are brought along")
    c = ml_collections.ConfigDict()
    c.source = "rejected"  # pages that a round of mining did not collect; "collected": those that it did; or "code"
    c.mine = "runs/mine"  # a mining workdir; "code" needs none
    c.round = 0  # of mining; 0: the last
    c.part = "train"  # nine documents of ten, by a hash; "held_out": the tenth
    c.max_documents = 4000  # the first ones
    c.seed = 0  # of the order of code
    return c
