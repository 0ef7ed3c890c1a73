"""How many of the best pages to keep: pretraining on the top of the ranking (§2.1).

    python -m experiments.sweep --config=configs/ablations/corpus_size.py:nano --workdir=runs/corpus_size

All see equally many tokens: of a small top the same ones more often. Expect in shape: quality falls down the ranking
and repetition up it, so that the best lies between. The paper kept the top 40 B in its first round and 120 B in its
last, and tells no figures. At nano the tops are so many tokens of what mining collected, 1.3 M in all.
"""

import ml_collections

from configs.ablations import TABLE_1, ask, base_runs, base_sweep, parent


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (the paper)."""
    if preset not in ("nano", "1b3"):
        raise ValueError(f"configs/ablations/corpus_size.py: preset {preset!r} is none of nano, 1b3")
    c = base_sweep(preset)
    c.figure.title = "Pages kept"
    if preset == "nano":
        tops = {"100 K": "100e3", "300 K": "300e3", "600 K": "600e3", "all": "0"}
        for label, tokens in tops.items():
            c.parents[f"top {label}"] = parent("export", "nano", max_tokens=tokens)
        folders = {label: f"{{top {label}}}" for label in tops}
    else:
        ask(c, TABLE_1)
        folders = {f"{size} B": f"runs/export/top-{size}e9" for size in (40, 80, 120, 160)}  # cuts of one export
    c.runs = tuple(
        run
        for label, folder in folders.items()
        for run in base_runs(f"Top {label} tokens", preset, corpora={"mined": folder}, weights={"mined": 1.0})
    )
    return c
