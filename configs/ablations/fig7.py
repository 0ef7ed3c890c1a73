"""Figure 7: maj@k and pass@k of SFT and of RL.

    python -m experiments.sweep --config=configs/ablations/fig7.py:nano --workdir=runs/fig7

Expect in shape: RL lifts maj@k and hardly pass@k (§5.2.2).
"""

import ml_collections

from configs.ablations import sweep


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/ablations/fig7.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = sweep(preset)
    reward = {} if nano else {"reward_model": "{reward_outcome}"}  # nano's reward is the rule
    # Each seed fine-tunes the base, and goes on from there.
    c.runs = (
        {"label": "SFT", "stage": "sft", "preset": preset, "overrides": {"init_from": "{base}"}},
        {"label": "RL", "stage": "rl", "preset": preset, "overrides": {"init_from": "{SFT}", **reward}},
    )
    c.common.evaluate.num_samples = 32 if nano else 64  # §5.2.2
    c.common.evaluate.temperature = 0.7  # Figure 7

    c.metrics = ("accuracy", f"maj_at.{c.common.evaluate.num_samples}", f"pass_at.{c.common.evaluate.num_samples}")
    c.figure = ml_collections.ConfigDict(
        {"kind": "at_k", "metrics": ("maj_at", "pass_at"), "title": "SFT and RL", "marks": ()}
    )
    return c
