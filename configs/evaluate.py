"""Evaluation on held-out problems: greedy accuracy, pass@k, maj@k.

    python -m experiments.evaluate --config=configs/evaluate.py:nano --workdir=runs/evaluate --config.init_from=runs/rl

On real files: --config.problems=DIR --config.num_problems=0 --config.max_new_tokens=320, a folder with
GSM8K's test.jsonl.
"""

import ml_collections

from configs.rl import rollout


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/evaluate.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = ml_collections.ConfigDict()
    c.init_from = "runs/rl"  # workdir of the checkpoint
    c.step = 0  # of the checkpoint; 0: the newest
    c.problems = "embedded"  # or a folder with GSM8K's test.jsonl
    c.num_problems = 500 if nano else 0  # 0: all that real files hold

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    c.num_cpu_devices = 1  # without an accelerator, the host counts as this many devices

    c.num_samples = 16 if nano else 64  # of a problem, for pass@k and maj@k; §5.2.2
    c.temperature = 0.7  # §5.2.2, Figure 7
    c.top_p = 1.0  # ours
    c.max_new_tokens = 40 if nano else 1024  # the released evaluation
    c.batch_size = 512 if nano else 1024  # samples of a file of generations; a killed run loses no more
    c.rollout = rollout(preset)  # how much the engine holds at once
    c.reward_model = ""  # or the workdir of one: best_of and weighted_maj of the samples by its scores
    c.aggregate = "min"  # or product, last: of the steps' scores, where it scores steps; Math-Shepherd §3.4
    c.seed = 0  # of all that is drawn at random
    return c
