"""TPU v5p-128 (64 chips, 16 hosts): the paper's 7B, whole. NEVER RUN.

    python -m experiments.pipeline --config=configs/speedruns/v5p128.py:full --workdir=/runs/speedruns/v5p128 \\
        --config.launch='--target=gke --target.accelerator=v5p-128 --target.image=REGISTRY/dsmath:{code}' \\
        --config.mine.seed_texts='data/openwebmath/*.parquet' --config.problems=/runs/data/gsm8k \\
        --config.pretrain.corpora.algebraic_stack=/runs/data/algebraic_stack \\
        --config.pretrain.corpora.arxiv=/runs/data/arxiv --config.pretrain.corpora.github=/runs/data/github \\
        --config.pretrain.corpora.natural_language=/runs/data/natural_language

All hosts and this machine see /runs; the pods see nothing else of this machine. There must be GSM8K's train.jsonl and
test.jsonl, and the corpora of configs/pretrain.py:7b. Mining runs here; it wants data/openwebmath/*.parquet, the first
seed (without the override openwebmath/*.parquet), and data/benchmarks, from which the corpus is cleaned. It stops for
people to mark paths.

| stage | what | time, estimated |
| --- | --- | --- |
| mine | CC-MAIN-2024-22, 4 rounds, 120 G tokens (§2.1) | see docs/mining.md; not on the TPUs |
| tokenizer | byte-level BPE of 102,400 pieces | hours, on one host |
| pretrain | 6.9 G parameters; 50,000 steps of 2,560 x 4,096 tokens = 524 G (§2.3) | 10.8 to 14.3 days by plan |
| sft | 500 steps of 256 rows of 4,096 tokens (§3) | 16 to 22 minutes by plan |
| rl | GRPO with the rule reward (ours): 500 steps of 16 questions x 64 samples of at most 1,024 tokens (§4.2) | a day |
| evaluate | GSM8K before and after, chat, greedy and 64 samples | hours, on one host |

The plan of pretraining: fsdp 16 x tensor 4; 18.71 to 24.74 s a step at the data sheet's speeds, 61 to 80 % MFU; a real
step is slower. A pod that is taken away costs what was trained since the last of the checkpoints, every 1,000 steps.

    python -m experiments.plan --config=configs/pretrain.py:7b --mesh=data=1,fsdp=16,tensor=4 --device=v5p \\
        --config.model.attention=splash

The other times are guesses. The paper starts from
DeepSeek-Coder-Base-v1.5 before its decay of the learning rate, which was not released: this starts from nothing, so
that Table 2 is not to be expected. GSM8K is the report card; experiments.evaluate asks the rest.
"""

import ml_collections

from configs.speedruns import STAGES, chain, shorten
from configs.speedruns.h100 import judge


def get_config(preset: str = "full") -> ml_collections.ConfigDict:
    """Presets: full, try (two steps of each stage)."""
    if preset not in ("full", "try"):
        raise ValueError(f"configs/speedruns/v5p128.py: preset {preset!r} is none of full, try")
    c = chain(dict.fromkeys(STAGES, "7b") | {"mine": "paper"})
    c.input = "CC-MAIN-2024-22"
    c.problems = "data/gsm8k"

    c.pretrain.model.attention = "splash"
    for stage in (c.pretrain, c.sft, c.rl):
        stage.mesh.update(data=1, fsdp=16, tensor=4)
    c.rl.reward = "rule"  # ours: the chain trains no reward model
    judge(c, max_new_tokens=1024, num_problems=0, num_samples=64)
    if preset == "try":
        c.mine.max_files = 1
        shorten(c)
    return c
