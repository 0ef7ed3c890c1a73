"""An OpenAI-compatible endpoint over a checkpoint.

    python -m experiments.serve --config=configs/serve.py:nano --workdir=runs/rl

A model with a longer context: --config.length=1024 --config.max_new_tokens=512.
"""

import ml_collections

from configs.rl import rollout


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/serve.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = ml_collections.ConfigDict()
    c.name = ""  # by which clients call the model; "": the workdir's name
    c.length = 128 if nano else 4096  # tokens of a prompt and its completion together, as in training
    c.max_new_tokens = 64 if nano else 1024  # of a completion

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest

    c.rollout = rollout(preset)  # how much the engine holds at once
    c.rollout.slots = 32 if nano else 256  # ours
    c.rollout.block_steps = 8  # a stream goes on by so many tokens at a time; ours
    c.seed = 0  # of requests that bring none  # of all that is drawn at random
    return c
