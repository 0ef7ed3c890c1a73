"""Figure 6: iterative GRPO. At each dotted line the reference is reset to the policy.

    python -m experiments.sweep --config=configs/ablations/fig6.py:nano --workdir=runs/fig6

Expect in shape: each iteration helps, the first one most (§5.2.2). Ours: beside it a run of one iteration and as many
steps, which tells what the iterations add to the steps.
"""

import ml_collections

from configs.ablations import sweep


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/ablations/fig6.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    steps = 20 if nano else 200  # of an iteration; ours
    c = sweep(preset)
    c.runs = (
        {"label": "one iteration", "stage": "rl", "preset": f"{preset},grpo_os", "overrides": {}},
        {
            "label": "three iterations",
            "stage": "rl",
            "preset": f"{preset},grpo_iterative",
            "overrides": {"iterations": 3},  # Figure 6: 0, 1 and 2
        },
    )
    c.common.rl.reward_model = "{reward_outcome}"
    c.common.rl.num_steps = 3 * steps
    c.common.rl.save_every = steps // 2
    c.common.rl.keep_last = 6  # all that are evaluated
    c.common.evaluate.num_samples = 4 if nano else 1  # the figure is of greedy solutions
    c.evaluation.steps = tuple(range(0, 3 * steps + 1, steps // 2))

    c.metrics = ("accuracy",)
    c.figure = ml_collections.ConfigDict(
        {"kind": "by_step", "metrics": ("accuracy",), "title": "Iterative GRPO", "marks": (steps, 2 * steps)}
    )
    return c
