"""Table 1: which corpus teaches mathematics. One model a corpus, from one start, with equally many tokens.

    python -m experiments.sweep --config=configs/ablations/table1.py:nano --workdir=runs/table1

Expect in shape, at 1b3: no mathematics < MathPile < OpenWebMath < Proof-Pile-2 < DeepSeekMath Corpus, on English
benchmarks; on Chinese ones the DeepSeekMath Corpus alone helps, for it alone is bilingual (§2.2.3). At nano the corpora
are others, and the workbook, which looks like the test, must win.
"""

import ml_collections

from configs.ablations import TABLE_1, as_it_is, ask, base_runs, base_sweep
from configs.ablations.table6 import MATH


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (the paper)."""
    if preset not in ("nano", "1b3"):
        raise ValueError(f"configs/ablations/table1.py: preset {preset!r} is none of nano, 1b3")
    c = base_sweep(preset)
    c.figure.title = "Corpora"

    def trained(label: str, corpora: dict[str, str], weights: dict[str, float] | None = None) -> tuple:
        """One line of the table; a single corpus needs no weights."""
        return base_runs(label, preset, corpora=corpora, weights=weights or dict.fromkeys(corpora, 1.0))

    if preset == "nano":
        c.parents.first_round = {
            "stage": "corpus", "preset": "nano", "workdir": "", "overrides": {"source": "collected", "round": 1},
        }  # fmt: skip
        c.runs = (
            *trained("No mathematics", {"general": "{general}"}),
            *trained("First round of mining", {"mined": "{first_round}"}),
            *trained("Mined", {"mined": "{mine}"}),
            *trained("Workbook", {"workbook": "embedded"}),
            *trained("Mined and workbook", *MATH["nano"]),
        )
        return c
    ask(c, TABLE_1)
    c.runs = (
        as_it_is("No mathematics", "{start}"),
        *trained("MathPile, 8.9 B tokens", {"mathpile": "data/mathpile"}),
        *trained("OpenWebMath, 13.6 B", {"open_web_math": "data/open_web_math"}),
        *trained(
            "Proof-Pile-2, 51.9 B",
            {"arxiv": "data/proof_pile_2/arxiv", "web": "data/open_web_math", "code": "data/algebraic_stack"},
            {"arxiv": 2 / 7, "web": 4 / 7, "code": 1 / 7},  # as Llemma mixes it
        ),
        *trained("DeepSeekMath Corpus, 120.2 B", {"mined": "runs/export"}),
    )
    return c
