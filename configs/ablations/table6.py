"""Table 6: code before mathematics. Two stages or one, general text or code in the first.

    python -m experiments.sweep --config=configs/ablations/table6.py:nano --workdir=runs/table6

Expect in shape (§5.1.1): after code, mathematics is learned better than after general text, with Python and without;
mathematics alone does better than code and mathematics mixed, but with Python the mixture is best of all.
"""

import ml_collections

from configs.ablations import as_it_is, ask, base_runs, base_sweep

NANO_MATH, NANO_FIRST = 300, 800  # steps, as 150 B to 400 B tokens
# At nano a single corpus of mathematics is the demo's mixture.
MATH = {
    "nano": ({"mined": "{mine}", "workbook": "embedded"}, {"mined": 0.2, "workbook": 0.8}),
    "1b3": ({"mined": "runs/export_round_2"}, {"mined": 1.0}),  # §5.1: the 89 B tokens of round 2
}


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (the paper)."""
    if preset not in ("nano", "1b3"):
        raise ValueError(f"configs/ablations/table6.py: preset {preset!r} is none of nano, 1b3")
    nano = preset == "nano"
    c = base_sweep(preset)
    c.figure.title = "Code before mathematics"
    math_steps = NANO_MATH if nano else 37_500  # 150 B tokens
    first_steps = NANO_FIRST if nano else 100_000  # 400 B tokens
    general = {"general": "{general}" if nano else "data/natural_language"}
    code = {"code": "{code}" if nano else "data/github"}
    math, math_weights = MATH[preset]

    def first(label: str, corpora: dict[str, str]) -> tuple:
        """A first stage, of one corpus."""
        return base_runs(label, preset, corpora=corpora, weights=dict.fromkeys(corpora, 1.0), num_steps=first_steps)

    def second(label: str, before: str = "") -> tuple:
        """Mathematics, from the start or after a first stage."""
        start = {"init_from": f"{{{before}, base}}" if nano else f"{{{before}}}"} if before else {}
        return base_runs(label, preset, corpora=math, weights=math_weights, num_steps=math_steps, **start)

    share = math_steps / (math_steps + first_steps)
    mixed = {name: share * weight for name, weight in math_weights.items()} | {"code": 1 - share}
    c.runs = (
        *(() if nano else (as_it_is("No training", "{start}"),)),
        *first("General", general),
        *second("General, then mathematics", "General"),
        *first("Code", code),
        *second("Code, then mathematics", "Code"),
        *second("Mathematics"),
        *base_runs(
            "Code and mathematics mixed", preset,
            corpora=math | code, weights=mixed, num_steps=math_steps + first_steps,
        ),
    )  # fmt: skip
    if not nano:
        ask(c, ("gsm8k-few_shot", "math-few_shot", "cmath-few_shot", "gsm8k-few_shot_pot", "math-few_shot_pot"))
    return c
