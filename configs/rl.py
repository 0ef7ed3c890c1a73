"""GRPO with outcome supervision and the rule reward.

    python -m experiments.rl --config=configs/rl.py:nano --workdir=runs/rl --config.init_from=runs/sft

Expect at nano, on 2 cores: 220 s; greedy accuracy 74 to 89 % on held-out problems over four runs.

On real files: --config.problems=DIR --config.num_problems=0, a folder with GSM8K's train.jsonl and test.jsonl; and room
for their solutions: --config.decoding.max_new_tokens=320.
"""

import ml_collections


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/rl.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = ml_collections.ConfigDict()
    c.init_from = "runs/sft"  # workdir of the parent; it is the reference too
    c.lora_rank = 0  # 0: all parameters learn; else adapters of this rank beside frozen ones, for little memory
    c.problems = "embedded"  # or a folder with GSM8K's train.jsonl and test.jsonl
    c.num_problems = 12000 if nano else 0  # 0: all that real files hold; §4.2: about 144 K questions

    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    c.num_cpu_devices = 1

    c.num_groups = 32 if nano else 16  # questions of a step; ours: §4.2 gives the batch of 1,024 outputs
    c.group_size = 16 if nano else 64  # §4.2
    c.updates_per_rollout = 1  # mu, §4.2; with 1 the ratio is 1 and nothing is clipped
    c.clip_eps = 0.2  # ours: the paper is silent
    c.beta = 0.04  # §4.2
    c.decoding = ml_collections.ConfigDict(
        {
            "temperature": 1.0,  # ours
            "top_p": 1.0,  # ours
            "max_new_tokens": 40 if nano else 1024,  # §4.2
        }
    )

    c.rollout = rollout(preset)

    c.num_microbatches = 1  # ours
    c.logits_chunk = 64  # tokens of an output whose logits stand in memory at a time; ours
    c.num_steps = 50 if nano else 500  # ours
    c.save_every = 10 if nano else 50
    c.keep_last = 2  # newest regular checkpoints that stay; ours
    c.keep_best = 0  # besides: so many of the highest reward; ours
    c.seed = 0

    c.optimizer = ml_collections.ConfigDict(
        {
            "schedule": "constant",
            "peak_learning_rate": 3e-4 if nano else 1e-6,  # §4.2
            "warmup_steps": 3 if nano else 0,  # ours
            "b1": 0.9,
            "b2": 0.95,
            "moments": "float32",  # or bfloat16, factored: less memory; ours
            "weight_decay": 0.0,  # ours
            "clip_norm": 1.0,  # ours
        }
    )

    # Bad steps: "stop" or "skip" (the update).
    c.guards = ml_collections.ConfigDict(
        {
            "on_nonfinite": "stop" if nano else "skip",  # a loss or gradient that is not finite; ours
            # A loss or gradient norm far above the last. Ours: groups without signal have both at zero, and after
            # them the first one with signal would be a spike.
            "on_spike": "none",
            "spike_sigmas": 6.0,  # so many standard deviations, as OLMo 2 (arXiv 2501.00656)
            "spike_window": 128,  # of so many good steps, as OLMo 2
            "max_skips": 10,  # in a row; then the run stops; ours
            "hang_seconds": 600.0 if nano else 3600.0,  # then hang-PROCESS.txt tells; ours
        }
    )
    c.profile = ml_collections.ConfigDict({"first_step": 0, "num_steps": 3})  # 0: none, but kill -USR1 makes one
    return c


def rollout(preset: str) -> ml_collections.ConfigDict:
    """How much the rollout engine holds at once; all ours. None but cache_dtype changes what is sampled."""
    nano = preset == "nano"
    return ml_collections.ConfigDict(
        {
            "slots": 128 if nano else 1024,  # samples decoded at once
            "memory_gib": 1.0 if nano else 24.0,  # of a device, for keys, values and logits; it lowers the slots
            "cache_dtype": "float32" if nano else "bfloat16",  # or int8
            "block_steps": 8 if nano else 32,  # decode steps between two looks of the host
            "prefill_tokens": 1024 if nano else 16384,  # of the prompts that are run together
        }
    )
