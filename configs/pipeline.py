"""The whole chain, each stage with its own config below its name.

python -m experiments.pipeline --config=configs/pipeline.py:nano --workdir=runs/demo

Another crawl:            --config.input='crawl/*.warc.gz'
Other problems:           --config.problems=gsm8k, a folder with train.jsonl and test.jsonl
A field of any stage:     --config.rl.num_steps=100
"""

import ml_collections

from configs import evaluate, mine, pretrain, rl, sft, tokenizer


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop; 2 cores, 15 minutes)."""
    if preset != "nano":
        raise ValueError(f"configs/pipeline.py: preset {preset!r} is not nano; larger chains are run stage by stage")
    c = ml_collections.ConfigDict()
    c.seed = 0  # of every stage
    c.input = "embedded"  # the crawl: the documentation on this disk, or WARC files by a glob
    c.problems = "embedded"  # or a folder with GSM8K's train.jsonl and test.jsonl
    c.num_cpu_devices = 1  # without an accelerator, the host counts as this many devices

    c.mine = mine.get_config(preset)
    c.tokenizer = tokenizer.get_config(preset)
    c.pretrain = pretrain.get_config(preset)
    c.sft = sft.get_config(preset)
    c.rl = rl.get_config(preset)
    c.evaluate = evaluate.get_config(preset)

    # One value for all stages; a change of the field above changes them.
    c.mine.input = c.get_ref("input")
    for stage in (c.mine, c.tokenizer, c.pretrain, c.sft, c.rl, c.evaluate):
        stage.seed = c.get_ref("seed")
    for stage in (c.tokenizer, c.sft, c.rl, c.evaluate):
        stage.problems = c.get_ref("problems")
    for stage in (c.pretrain, c.sft, c.rl, c.evaluate):
        stage.num_cpu_devices = c.get_ref("num_cpu_devices")
    return c
