"""One H100 for a night: the laptop's story with a model of 0.38 G parameters and pages of Common Crawl. NEVER RUN.

    source .venv/bin/activate && pip install -e '.[gpu]'
    python -m experiments.pipeline --config=configs/speedruns/h100.py:full --workdir=runs/speedruns/h100

Without a network: --config.input=embedded. On GSM8K instead of the embedded problems: --config.problems=DIR.

| stage | what | time, estimated |
| --- | --- | --- |
| mine | 90 WARC files of CC-MAIN-2024-22 (90 GB to download), paths marked by score, 16 processes | 1 to 2 h |
| tokenizer | byte-level BPE of 32,768 pieces | minutes |
| pretrain | 24 layers of width 1,024; 10,000 steps of 512 x 1,024 tokens = 5.2 G tokens | 4.0 to 5.7 h by plan |
| sft | 200,000 solutions, 1,000 steps of 64 rows of 1,024 tokens = 66 M tokens | minutes |
| rl | GRPO with the rule reward: 300 steps of 16 questions x 64 samples of at most 128 tokens | below an hour |
| evaluate | 500 held-out problems before and after, greedy and 16 samples | minutes |

The plan of pretraining: 21.0 of 80 GB; 1.45 to 2.06 s a step, 254,000 to 362,000 tokens a second, at the data sheet's
speeds (57 to 81 % MFU). The 1.3B was measured at 47.8 % on one H100 (benchmarks/README.md); at that it is 6.8 h.

    python -m experiments.plan --config=configs/pretrain.py:1b3 --mesh=fsdp=1 --device=h100 --vocab_size=32768 \\
        --config.model.width=1024 --config.model.num_heads=16 --config.model.num_kv_heads=16 \\
        --config.model.head_dim=64 --config.model.mlp_width=2816 --config.model.attention=cudnn \\
        --config.length=1024 --config.batch_size=512

Mining is reckoned from the 350 pages a second and core of the laptop; the other times are guesses. The sizes, rates and
shares are ours, and nothing was tuned. Expect more from the embedded problems than the laptop's 89 %, and little on
GSM8K: 5 G tokens are few.
"""

import ml_collections

from configs.speedruns import chain, shorten


def get_config(preset: str = "full") -> ml_collections.ConfigDict:
    """Presets: full, try (two steps of each stage)."""
    if preset not in ("full", "try"):
        raise ValueError(f"configs/speedruns/h100.py: preset {preset!r} is none of full, try")
    presets = {"mine": "nano", "tokenizer": "7b", "pretrain": "1b3", "sft": "7b", "rl": "1b3", "evaluate": "7b"}
    c = chain(presets)
    c.input = "CC-MAIN-2024-22"

    c.mine.max_files = 90 if preset == "full" else 1
    c.mine.workers = 16
    c.mine.annotation = "auto"  # nobody is there at night
    c.tokenizer.vocab_size = 32768

    c.pretrain.corpora.workbook = "embedded"
    c.pretrain.weights = ml_collections.ConfigDict({"mined": 0.5, "workbook": 0.5})
    c.pretrain.num_embedded = 400_000
    c.pretrain.model.update(width=1024, head_dim=64, mlp_width=2816, attention="cudnn")
    c.pretrain.update(length=1024, batch_size=512, num_steps=10_000)
    c.pretrain.optimizer.warmup_steps = 500

    c.sft.update(num_problems=200_000, length=1024, batch_size=64, num_microbatches=1, num_steps=1000)
    c.rl.update(reward="rule", num_problems=200_000, num_steps=300, microbatch_tokens=32_768)
    c.rl.decoding.max_new_tokens = 128
    c.rl.optimizer.peak_learning_rate = 1e-5  # a small model bears more than the paper's 1e-6
    judge(c, max_new_tokens=128, num_problems=500, num_samples=16)
    if preset == "try":
        shorten(c)
    return c


def judge(c: ml_collections.ConfigDict, **changes: object) -> None:
    """Has the chain's own problems asked in the chat frame, for the report card."""
    c.evaluate.update(benchmarks=("embedded",), modes=("chat",), sampled=(), protocol="", **changes)
