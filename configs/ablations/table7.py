"""Table 7: the models of Table 6 on general language and on code. They are Table 6's; name its store to have them.

    python -m experiments.sweep --config=configs/ablations/table7.py:nano --workdir=runs/table7 \\
        --config.store=runs/table6/stages

Expect in shape (§5.1.1): code in the first stage keeps up programming, and mathematics after it lowers that again, less
so where code is mixed in; mathematics helps MMLU and BBH. A nano model is too small for these benchmarks: there it is
the loss on held-out pages, held-out code and new pages of the workbook.
"""

import ml_collections

from configs import loss
from configs.ablations import ask, parent, table6


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (the paper)."""
    if preset not in ("nano", "1b3"):
        raise ValueError(f"configs/ablations/table7.py: preset {preset!r} is none of nano, 1b3")
    c = table6.get_config(preset)
    c.figure.title = "Code before mathematics: language and programs"
    if preset == "nano":
        c.runs = tuple(
            run | {"label": run["label"].removesuffix(", base"), "judged": True, "overrides": _renamed(run)}
            for run in map(dict, c.runs)
            if run["stage"] == "pretrain"
        )
        c.parents.general_held_out = parent("corpus", "nano", source="rejected", part="held_out")
        c.parents.code_held_out = parent("corpus", "nano", source="code", part="held_out")
        held_out = {"general": "{general_held_out}", "code": "{code_held_out}", "workbook": "embedded"}
        c.defaults.loss = loss.get_config("nano")
        c.evaluation = ml_collections.ConfigDict(
            {
                "stage": "loss",
                "preset": "nano",
                "overrides": {"init_from": "{run}", "corpora": held_out},
                "steps": (),
            }
        )
        c.metrics = c.figure.metrics = tuple(f"loss.{name}" for name in held_out)
    else:
        ask(c, ("mmlu-choice", "bbh-few_shot", "humaneval-few_shot", "mbpp-few_shot"))
        c.figure.metrics = c.metrics[1:3]
    return c


def _renamed(run: dict) -> dict:
    """Table 6's overrides, which name a first stage as it does."""
    return {
        field: value.replace(", base}", "}") if field == "init_from" else value
        for field, value in dict(run["overrides"]).items()
    }
