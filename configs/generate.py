"""Completions of the prompts of a file.

    python -m experiments.generate --config=configs/generate.py:nano --workdir=runs/generate \\
        --config.init_from=runs/rl --config.input=data/prompts.jsonl

A line of the file is a JSON object: a `prompt`, read as it is, or a `question`, put into the chat frame (`language` and
`kind` are as in files of solutions); an `id` and an `answer` where there are any; other fields are left out.
"""

import ml_collections

from configs.rl import rollout, tool


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/generate.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = ml_collections.ConfigDict()
    c.init_from = "runs/rl"  # workdir of the checkpoint
    c.input = "prompts.jsonl"  # the file, as above

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest

    c.num_samples = 16 if nano else 64  # of a prompt; §5.2.2
    # How tokens are drawn.
    c.decoding = ml_collections.ConfigDict(
        {
            "temperature": 0.7,  # §5.2.2, Figure 7; 0 is greedy
            "top_p": 1.0,  # ours
            "top_k": 0,  # all tokens; ours
            "min_p": 0.0,  # off; ours
            "repetition_penalty": 1.0,  # off; ours
            "max_new_tokens": 40 if nano else 1024,  # the released evaluation
        }
    )
    c.stop = ()  # strings that end a completion, besides the end-of-sequence token
    c.shard_size = 64 if nano else 256  # prompts of a file of completions; a killed run loses those that are not full
    c.rollout = rollout(preset)  # how much the engine holds at once
    c.tool = tool()  # Python that a sample may call
    c.tool.enabled = False  # True: blocks of Python are run; prompts of kind tir ask for them
    c.seed = 0  # of all that is drawn at random
    return c
