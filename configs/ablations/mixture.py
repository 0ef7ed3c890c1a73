"""The weights of the mixture (§2.3): what each corpus brings.

    python -m experiments.sweep --config=configs/ablations/mixture.py:nano --workdir=runs/mixture

The paper tells its mixture and no others; these are ours: each leaves one corpus out, whose share the mined pages take.
At nano it is the share of the workbook beside the mined pages and code. Expect at nano: the more workbook, the better.
"""

import ml_collections

from configs import pretrain
from configs.ablations import TABLE_1, ask, base_runs, base_sweep


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (the paper's mixture, with the 1.3B and 150 B tokens), 7b (500 B)."""
    if preset not in ("nano", "1b3", "7b"):
        raise ValueError(f"configs/ablations/mixture.py: preset {preset!r} is none of nano, 1b3, 7b")
    c = base_sweep(preset)
    c.figure.title = "Mixtures"
    if preset == "nano":
        corpora = {"mined": "{mine}", "workbook": "embedded", "code": "{code}"}
        mixtures = {
            f"{100 * share:.0f} % workbook": {"workbook": share, "mined": (1 - share) * 3 / 4, "code": (1 - share) / 4}
            for share in (0.2, 0.5, 0.8, 0.95)
        }
    else:
        ask(c, (*TABLE_1, "gsm8k-few_shot_pot", "mmlu-choice", "bbh-few_shot", "humaneval-few_shot"))
        whole = pretrain.get_config("7b")
        corpora, paper = whole.corpora.to_dict(), whole.weights.to_dict()
        mixtures = {"The paper's": paper}
        for left_out in ("algebraic_stack", "arxiv", "github", "natural_language"):
            kept = {name: weight for name, weight in paper.items() if name != left_out}
            mixtures[f"Without {left_out}"] = kept | {"mined": kept["mined"] + paper[left_out]}
    c.runs = tuple(
        run
        for label, weights in mixtures.items()
        for run in base_runs(label, preset, corpora={name: corpora[name] for name in weights}, weights=weights)
    )
    return c
