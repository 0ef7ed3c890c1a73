"""Figure 5: RFT, online RFT, and GRPO with outcome and with process supervision, from one SFT model.

    python -m experiments.sweep --config=configs/ablations/fig5.py:nano --workdir=runs/fig5

The demo's models can be the parents: --config.parents.base.workdir=runs/demo/pretrain
--config.parents.sft.workdir=runs/demo/sft. All runs see equally many questions and samples.

Expect in shape: RFT < online RFT < GRPO+OS <= GRPO+PS (§5.2.2).
"""

import ml_collections

from configs.ablations import sweep


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (the paper)."""
    if preset not in ("nano", "1b3"):
        raise ValueError(f"configs/ablations/fig5.py: preset {preset!r} is none of nano, 1b3")
    nano = preset == "nano"
    c = sweep(preset)
    c.runs = (
        run("RFT", f"{preset},rft"),
        run("Online RFT", f"{preset},online_rft"),
        run("GRPO+OS", f"{preset},grpo_os", reward_model="{reward_outcome}"),
        run("GRPO+PS", f"{preset},grpo_ps", reward_model="{reward_process}"),
    )
    c.common.rl.num_steps = 50 if nano else 500  # ours
    c.common.rl.save_every = 10 if nano else 100
    c.common.rl.keep_last = 5  # all that are evaluated
    c.common.evaluate.num_samples = 4 if nano else 1  # the figure is of greedy solutions
    c.evaluation.steps = (0, 10, 20, 30, 40, 50) if nano else (0, 100, 200, 300, 400, 500)

    c.metrics = ("accuracy",)
    c.figure = ml_collections.ConfigDict(
        {"kind": "by_step", "metrics": ("accuracy",), "title": "Source and supervision", "marks": ()}
    )
    return c


def run(label: str, preset: str, **overrides: object) -> dict[str, object]:
    """One of the lines."""
    return {"label": label, "stage": "rl", "preset": preset, "overrides": overrides}
