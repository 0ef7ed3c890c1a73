"""The whole chain, each stage with its own config below its name.

python -m experiments.pipeline --config=configs/pipeline.py:nano --workdir=runs/demo

Another crawl:            --config.input='data/crawl/*.warc.gz'
Other problems:           --config.problems=data/gsm8k, a folder with train.jsonl and test.jsonl
A field of any stage:     --config.rl.num_steps=100

Larger chains are in configs/speedruns/.
"""

import ml_collections

from configs.speedruns import STAGES, chain


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop; 2 cores, 15 minutes)."""
    if preset != "nano":
        raise ValueError(f"configs/pipeline.py: preset {preset!r} is not nano; see configs/speedruns/ for others")
    return chain(dict.fromkeys(STAGES, "nano"))
