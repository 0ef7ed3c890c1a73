"""GRPO's weight of the KL term, beta, and its group size, G; a step has equally many outputs in all runs.

    python -m experiments.sweep --config=configs/ablations/kl_and_group.py:nano --workdir=runs/kl_and_group

The paper sets beta 0.04 and G 64 (§4.2) and tells no others; these are ours. Expect in shape: without KL the reward
rises fastest, and a learned reward is gamed soonest; a larger group judges its questions better and sees fewer.
"""

import ml_collections

from configs.ablations import sweep


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (around the paper's)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/ablations/kl_and_group.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = sweep(preset)
    outputs = 512 if nano else 1024  # of a step; §4.2
    method = "nano" if nano else "7b,grpo_os"  # nano's reward is the rule: no reward model to train

    def of_paper(size: int) -> dict[str, object]:
        """What the paper's sizes need besides: a reward model, and room for a whole group, which it scores at once."""
        return {"reward_model": "{reward_outcome}", "microbatch_tokens": max(64, size) * 1024 + 2048}

    c.runs = tuple(
        {
            "label": f"beta {beta:g}, G {size}",
            "stage": "rl",
            "preset": method,
            "overrides": {
                "beta": beta,
                "group_size": size,
                "num_groups": outputs // size,
                **({} if nano else of_paper(size)),
            },
        }
        for beta in (0.0, 0.04, 0.2)
        for size in ((4, 16, 64) if nano else (16, 64, 256))
    )
    c.common.rl.num_steps = 30 if nano else 500  # ours
    c.common.evaluate.num_samples = 16
    c.metrics = ("accuracy", "maj_at.16", "pass_at.16")
    c.figure = ml_collections.ConfigDict(
        {"kind": "by_run", "metrics": c.metrics[:2], "title": "KL and group size", "marks": ()}
    )
    return c
