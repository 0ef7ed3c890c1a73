"""Tool use against chain of thought: one model that learned both, asked in both ways for products of large numbers.

    python -m experiments.sweep --config=configs/ablations/tools.py:nano --workdir=runs/tools

The demo's base can be the parent: --config.parents.base.workdir=runs/demo/pretrain.

Expect in shape: with Python far above without (Table 5: MATH 57.4 against 46.8 of the instruct model).
"""

import ml_collections

from configs.ablations import sweep


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper's model)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/ablations/tools.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = sweep(preset)
    c.problems = "embedded_large"
    c.runs = ({"label": "SFT", "stage": "sft", "preset": preset, "overrides": {"init_from": "{base}"}},)
    c.common.sft.kinds = ("cot", "tir")  # each question once with its work and once with a program
    c.common.evaluate.modes = ("chat", "chat_tool")
    c.common.evaluate.num_problems = 500
    c.common.evaluate.num_samples = 4  # the figure is of greedy solutions
    if nano:
        c.parents.base.overrides.corpora = {"mined": "{mine}", "workbook": "embedded_large"}
        c.common.sft.length = 192
        c.common.evaluate.max_new_tokens = 112
    else:
        c.common.sft.num_problems = 100_000  # ours

    c.metrics = ("accuracy",)
    c.figure = ml_collections.ConfigDict(
        {"kind": "by_run", "metrics": ("accuracy",), "title": "Large numbers, without and with Python", "marks": ()}
    )
    return c
