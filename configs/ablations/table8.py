"""Table 8: does training on papers help?

    python -m experiments.sweep --config=configs/ablations/table8.py:nano --workdir=runs/table8

Expect in shape (§5.1.2): hardly, whether the model was trained on general text or on code before. The paper trains the
1.3B on 150 B tokens and the 7B on 40 B. No papers lie on a laptop: at nano the mined pages, which define and derive
but solve no problems, stand in for them.
"""

import ml_collections

from configs.ablations import TABLE_1, as_it_is, ask, base_runs, base_sweep, parent, tune


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (from DeepSeek-LLM 1.3B), 7b (from DeepSeek-Coder-Base-v1.5 7B)."""
    if preset not in ("nano", "1b3", "7b"):
        raise ValueError(f"configs/ablations/table8.py: preset {preset!r} is none of nano, 1b3, 7b")
    c = base_sweep(preset)
    c.figure.title = "Papers"
    if preset == "nano":
        runs = []
        for name, label in (("general", "General"), ("code", "Code")):
            alone = {"corpora": {name: f"{{{name}}}"}, "weights": {name: 1.0}}
            c.parents[f"{name}_base"] = parent("pretrain", "nano", **alone)
            papers = {"corpora": {"mined": "{mine}"}, "weights": {"mined": 1.0}}
            runs += [
                tune(label, f"{{{name}_base}}"),
                *base_runs(f"{label}, then formal pages", "nano", init_from=f"{{{name}_base}}", **papers),
            ]
        c.runs = tuple(runs)
        return c
    c.common.pretrain.num_steps = 37_500 if preset == "1b3" else 3_815  # 150 B and 40 B tokens
    ask(c, TABLE_1)
    c.runs = (
        as_it_is("No papers", "{start}"),
        *base_runs("MathPile", preset, corpora={"mathpile": "data/mathpile"}, weights={"mathpile": 1.0}),
        *base_runs("ArXiv-RedPajama", preset, corpora={"arxiv": "data/arxiv"}, weights={"arxiv": 1.0}),
    )
    return c
