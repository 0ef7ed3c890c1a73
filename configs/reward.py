"""Reward models: of outcomes, or of steps with Math-Shepherd's labels.

    python -m experiments.reward --config=configs/reward.py:nano --workdir=runs/reward
    python -m experiments.reward --config=configs/reward.py:nano --workdir=runs/process --config.kind=process

On real files: --config.problems=DIR --config.num_problems=0, a folder with GSM8K's train.jsonl and test.jsonl, and room
for their solutions: --config.decoding.max_new_tokens=320. 1b3 and 7b ask all problems of such a folder: name one.
On labels of others: --config.labelled=FILE, of PRM800K or Math-Shepherd.
"""

import ml_collections

from configs.pretrain import guards
from configs.rl import rollout


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 and 7b (the paper)."""
    if preset not in ("nano", "1b3", "7b"):
        raise ValueError(f"configs/reward.py: preset {preset!r} is none of nano, 1b3, 7b")
    nano = preset == "nano"
    c = ml_collections.ConfigDict()
    c.kind = "outcome"  # a score for a solution; or process: one for each of its steps
    c.loss = "sigmoid"  # or pairwise, of outcomes alone; ours: the paper is silent
    c.init_from = "runs/pretrain"  # workdir of the parent; §4.2: the base model

    # What it learns from: samples of a model, with labels by the gold answers.
    c.sampler = "runs/sft"  # workdir of the model that samples and, for labels of steps, completes
    c.problems = "embedded"  # or a folder with GSM8K's train.jsonl and test.jsonl
    c.num_problems = 1500 if nano else 0  # 0: all that a folder holds
    c.num_samples = 8 if nano else 15  # of a problem; 15: Math-Shepherd §4
    # How tokens are drawn.
    c.decoding = ml_collections.ConfigDict(
        {
            "temperature": 1.0,  # ours
            "top_p": 1.0,  # ours
            "max_new_tokens": 40 if nano else 1024,  # as in RL, §4.2
        }
    )
    c.num_completions = 8  # N, from each step; Math-Shepherd §4
    c.labels = "hard"  # of a step: any completion is right; or soft: the share of them. Math-Shepherd §3.3
    c.rollout = rollout(preset)  # how much the engine holds at once
    c.shard_size = 50 if nano else 256  # problems of a file of samples or labels; a killed run loses one at most
    c.labelled = ""  # or a file of PRM800K or Math-Shepherd, in place of the sampler and its problems
    c.held_out = 0.1  # share of the questions; ours
    c.threshold = 0.5  # a probability or a soft label from here on says right; ours

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    if nano:  # so small a model is whole on each device
        c.mesh.update({"data": -1, "fsdp": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest

    c.batch_size = 16 if nano else 32  # questions, with all their samples; ours
    c.microbatch_tokens = 0 if nano else 131072  # most tokens in work on a device; 0: all of a batch. Ours
    c.num_steps = 250 if nano else 5000  # ours
    c.save_every = 50 if nano else 250  # steps between two checkpoints
    c.keep_last = 2  # newest regular checkpoints that stay; ours
    c.keep_best = 0  # besides: so many of the lowest loss; ours
    c.log_every = 10  # steps between two lines of the metrics
    c.seed = 0  # of all that is drawn at random

    # AdamW and its schedule.
    c.optimizer = ml_collections.ConfigDict(
        {
            "schedule": "constant",  # ours
            "peak_learning_rate": 1e-3 if nano else 2e-5,  # §4.2
            "warmup_steps": 10 if nano else 0,  # ours
            "b1": 0.9,  # §2.2.1
            "b2": 0.95,  # §2.2.1
            "moments": "float32",  # or bfloat16, factored: less memory; ours
            "weight_decay": 0.1,  # ours: as in pretraining
            "clip_norm": 1.0,  # ours
        }
    )

    # What a bad step or a step that hangs does: "none", "stop", "skip" or "rollback".
    c.guards = guards(preset)
    c.profile = ml_collections.ConfigDict({"first_step": 0, "num_steps": 3})  # 0: none, but kill -USR1 makes one
    return c
