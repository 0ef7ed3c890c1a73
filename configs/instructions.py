"""Public instruction sets to checked solutions for SFT.

    python -m experiments.instructions --config=configs/instructions.py:nano --workdir=runs/instructions \\
        --config.inputs='data/sets/*.json' --config.benchmarks='data/benchmarks,!*train*' --config.golds=data/benchmarks

Then: python -m experiments.sft … --config.solutions="{'sets': 'runs/instructions'}"
"""

import ml_collections


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (two programs at a time), 7b (sixteen)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/instructions.py: preset {preset!r} is none of nano, 7b")
    c = ml_collections.ConfigDict()
    c.inputs = "sets"  # files, globs or folders, by commas: JSON lines, JSON, Parquet
    c.benchmarks = ""  # whose questions are left out, such as 'data/benchmarks,!*train*'; "": none is looked for
    # Share of a question whose sentences may hold 10-grams of a benchmark's; ours, 0 for pages (§2.1).
    c.max_overlap = 0.5
    c.golds = ""  # folder of benchmarks: gsm8k and math of it tell the answers of their training questions; "": none
    c.near_duplicate_threshold = 0.8  # Jaccard similarity of question and solution; ours

    c.workers = 2 if preset == "nano" else 16  # programs that run at a time
    c.isolation = "bubblewrap"  # or none, where the code is trusted
    c.seconds = 10.0  # of a block of code; as in the released evaluation
    c.memory_gib = 0.5  # of a solution's code
    return c
