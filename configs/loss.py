"""A base model's loss on held-out texts: what a model too small for benchmarks of language and code can be told by.

    python -m experiments.loss --config=configs/loss.py:nano --workdir=runs/loss --config.init_from=runs/pretrain \\
        --config.corpora="{'code': 'runs/code_held_out'}"

Losses are nats a token, so only models with one tokenizer compare.
"""

import ml_collections


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 7b (the paper's context)."""
    if preset not in ("nano", "7b"):
        raise ValueError(f"configs/loss.py: preset {preset!r} is none of nano, 7b")
    nano = preset == "nano"
    c = ml_collections.ConfigDict()
    c.init_from = "runs/pretrain"  # workdir of the checkpoint
    c.step = 0  # of the checkpoint; 0: the newest
    c.corpora = ml_collections.ConfigDict({"workbook": "embedded"})  # folders of Parquet files with a column `text`
    c.num_embedded = 400  # pages of the embedded workbook
    c.num_batches = 20  # of each corpus
    c.batch_size = 16 if nano else 64  # rows
    c.length = 128 if nano else 4096  # of a row
    c.logits_chunk = 512  # tokens of a row whose logits stand in a device's memory at a time
    c.seed = 1  # of the workbook's pages and the order; not the seed of training

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest
    return c
