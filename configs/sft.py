"""Supervised fine-tuning on solutions.

    python -m experiments.sft --config=configs/sft.py:nano --workdir=runs/sft --config.init_from=runs/pretrain

Expect at nano, on 2 cores: 51 s, loss about 0.2; greedy accuracy 23 to 58 % on held-out problems over six runs.

On real files: --config.problems=DIR --config.num_problems=0, a folder with GSM8K's train.jsonl and test.jsonl; and room
for their solutions: --config.length=768. 7b takes all problems of such a folder: name one, or a mixture.

A mixture of solutions: --config.solutions and --config.repeats take whole dictionaries, such as
    --config.solutions="{'sets': 'runs/instructions', 'mine': 'data/mine.jsonl'}" --config.repeats="{'mine': 2}"
"""

import ml_collections

from configs.pretrain import guards


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/sft.py: preset {preset!r} is none of nano, 7b")
    c = ml_collections.ConfigDict()
    c.init_from = "runs/pretrain"  # workdir of the parent
    c.problems = "embedded"  # or embedded_large, or a folder with GSM8K's train.jsonl and test.jsonl
    c.num_problems = 12000 if preset == "nano" else 0  # 0: all that a folder holds
    c.kinds = ("cot",)  # of solutions, each question with each; embedded_large has pot and tir (tool use) too
    # By name, in place of the problems: files of solutions, workdirs of experiments.instructions, or problems as above
    c.solutions = ml_collections.ConfigDict({})
    c.repeats = ml_collections.ConfigDict({})  # how often a name's solutions come in an epoch: 1; 0.5: a random half

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    if preset == "nano":  # so small a model is whole on each device
        c.mesh.update({"data": -1, "fsdp": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest

    c.length = 128 if preset == "nano" else 4096  # §3: concatenated up to 4 K tokens
    c.packing_bins = 16  # ours: rows that are filled at a time, each solution into the first where it fits
    c.batch_size = 8 if preset == "nano" else 256  # rows; §3
    c.num_microbatches = 1 if preset == "nano" else 8  # ours
    c.logits_chunk = 512  # tokens of a row whose logits stand in a device's memory at a time; ours
    c.num_steps = 600 if preset == "nano" else 500  # §3
    c.save_every = 200 if preset == "nano" else 100  # steps between two checkpoints
    c.keep_last = 2  # newest regular checkpoints that stay; ours
    c.keep_best = 0  # besides: so many of the lowest loss; ours
    c.log_every = 10  # steps between two lines of the metrics
    c.seed = 0  # of all that is drawn at random

    # AdamW and its schedule.
    c.optimizer = ml_collections.ConfigDict(
        {
            "schedule": "constant",  # §3
            "peak_learning_rate": 1e-3 if preset == "nano" else 5e-5,  # §3
            "warmup_steps": 10 if preset == "nano" else 0,  # ours: the paper is silent
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
