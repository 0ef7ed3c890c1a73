"""Pretraining on a mixture of corpora.

python -m experiments.pretrain --config=configs/pretrain.py:nano --workdir=runs/pretrain \\
    --config.tokenizer=runs/tokenizer --config.corpora.mined=runs/mine

Expect at nano, on 2 cores: 102 s, loss about 1.1 (0.5 on the workbook, 3.6 on web pages).

Another mixture: --config.corpora and --config.weights take whole dictionaries, such as
    --config.corpora="{'mined': 'runs/mine', 'arxiv': 'data/arxiv'}" --config.weights="{'mined': 0.9, 'arxiv': 0.1}"
"""

import ml_collections


def get_config(preset: str = "nano") -> ml_collections.ConfigDict:
    """Presets: nano (a laptop), 1b3 (the paper's ablations), 7b (the paper's base model)."""
    if preset not in ("nano", "1b3", "7b"):
        raise ValueError(f"configs/pretrain.py: preset {preset!r} is none of nano, 1b3, 7b")
    c = ml_collections.ConfigDict()
    c.tokenizer = "runs/tokenizer"  # workdir
    c.init_from = ""  # workdir of the parent; empty: random parameters
    # The mixture: folders of Parquet files with a column `text`, or exports, and each one's share of the tokens. It is
    # kept in every row at any time but for one document a corpus. The paper's is
    # 56 % DeepSeekMath Corpus, 4 % AlgebraicStack, 10 % arXiv, 20 % GitHub, 10 % natural language (§2.3); its 1.3B saw
    # one corpus alone, to compare corpora (§2.2).
    c.corpora = ml_collections.ConfigDict(
        {
            "mined": "runs/mine",  # workdir of mining, or an export of it
        }
    )
    c.weights = ml_collections.ConfigDict({"mined": 1.0})  # shares of the tokens, by corpus
    if preset == "nano":  # a model this small meets arithmetic in a workbook, or not at all
        c.corpora.workbook = "embedded"  # the generator's
        c.weights = ml_collections.ConfigDict({"mined": 0.2, "workbook": 0.8})
    if preset == "7b":  # lay your own folders, or links to them, where these say, or name them here
        c.corpora.mined = "runs/export"
        c.corpora.algebraic_stack = "data/algebraic_stack"
        c.corpora.arxiv = "data/arxiv"
        c.corpora.github = "data/github"
        c.corpora.natural_language = "data/natural_language"
        c.weights = ml_collections.ConfigDict(
            {"mined": 0.56, "algebraic_stack": 0.04, "arxiv": 0.1, "github": 0.2, "natural_language": 0.1}
        )
    c.num_embedded = 4000  # pages of the embedded workbook
    c.on_exhausted = "repeat"  # ours; a corpus that has been read whole is read again; "stop": the run ends there

    # Devices along each axis; -1 is the rest.
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "sequence": 1, "tensor": 1})
    if preset == "nano":  # so small a model is whole on each device
        c.mesh.update({"data": -1, "fsdp": 1})
    c.num_cpu_devices = 2  # without an accelerator, the host counts as this many devices; one a core is fastest

    # A Llama (§2.2, DeepSeek-LLM and DeepSeek-Coder).
    c.model = ml_collections.ConfigDict(
        {
            "num_layers": {"nano": 4, "1b3": 24, "7b": 30}[preset],  # of the decoder
            "width": {"nano": 128, "1b3": 2048, "7b": 4096}[preset],  # of the residual stream
            "num_heads": {"nano": 4, "1b3": 16, "7b": 32}[preset],  # of the queries
            "num_kv_heads": {"nano": 2, "1b3": 16, "7b": 32}[preset],  # of keys and values; fewer: grouped
            "head_dim": {"nano": 32, "1b3": 128, "7b": 128}[preset],  # width of a head
            "mlp_width": {"nano": 352, "1b3": 5504, "7b": 11008}[preset],  # width within SwiGLU
            "norm_eps": 1e-6,  # of RMSNorm
            "rope_theta": 10000.0,  # base of the rotary embedding
            # Rotary embedding for contexts beyond those of the start.
            "rope_scaling": {
                "kind": "none",  # or linear, llama3
                "factor": 1.0,  # longer contexts by so much
                "low_freq_factor": 1.0,  # of llama3
                "high_freq_factor": 4.0,  # of llama3
                "original_length": 4096,  # context before scaling
            },
            "attention_bias": False,  # of queries, keys and values
            "tied": False,  # True: one matrix embeds and predicts
            "dtype": "float32" if preset == "nano" else "bfloat16",  # of the computation
            "param_dtype": "float32",  # of the weights that learn
            "remat": "dots" if preset == "nano" else "full",  # or none, minimal, offload
            "attention": "xla",  # cudnn or cudnn_documents on NVIDIA, splash on TPU
        }
    )

    c.length = 128 if preset == "nano" else 4096  # §2.2.1: context 4 K
    c.batch_size = {"nano": 8, "1b3": 1024, "7b": 2560}[preset]  # rows; §2.2.1, §2.3: 4 M and 10 M tokens
    c.num_microbatches = {"nano": 1, "1b3": 8, "7b": 20}[preset]  # ours
    c.logits_chunk = 512  # tokens of a row whose logits stand in a device's memory at a time; ours
    c.num_steps = {"nano": 1200, "1b3": 37500, "7b": 50000}[preset]  # §2.2.1: 150 B tokens, §2.3: 500 B
    c.save_every = 200 if preset == "nano" else 1000  # steps between two checkpoints
    c.keep_last = 2  # newest regular checkpoints that stay; ours
    c.keep_best = 0  # besides: so many of the lowest loss; ours
    c.log_every = 10  # steps between two lines of the metrics
    c.seed = 0  # of all that is drawn at random

    # AdamW and its schedule.
    c.optimizer = ml_collections.ConfigDict(
        {
            "schedule": "multi_step",  # §2.2.1: 31.6 % of the peak after 80 % of training, 10 % after 90 %
            "peak_learning_rate": {"nano": 2e-3, "1b3": 5.3e-4, "7b": 4.2e-4}[preset],  # §2.2.1, §2.3
            "warmup_steps": 20 if preset == "nano" else 2000,  # §2.2.1
            "b1": 0.9,  # §2.2.1
            "b2": 0.95,  # §2.2.1
            "moments": "float32",  # or bfloat16, factored: less memory; ours
            "weight_decay": 0.1,  # §2.2.1
            "clip_norm": 1.0,  # ours: the paper is silent
        }
    )

    # What a bad step or a step that hangs does: "none", "stop", "skip" or "rollback".
    c.guards = guards(preset)
    c.profile = ml_collections.ConfigDict({"first_step": 0, "num_steps": 3})  # 0: none, but kill -USR1 makes one
    return c


def guards(preset: str) -> ml_collections.ConfigDict:
    """What a run of next-token training does with bad steps and hangs."""
    # Bad steps: "stop", "skip" (the update) or "rollback" (to the last checkpoint, on with the data that follow).
    return ml_collections.ConfigDict(
        {
            "on_nonfinite": "stop" if preset == "nano" else "skip",  # a loss or gradient that is not finite; ours
            "on_spike": "none" if preset == "nano" else "skip",  # a loss or gradient norm far above the last; ours
            "spike_sigmas": 6.0,  # so many standard deviations, as OLMo 2 (arXiv 2501.00656)
            "spike_window": 128,  # of so many good steps, as OLMo 2
            "max_skips": 10,  # in a row; then the run stops; ours
            "max_rollbacks": 3,  # then the run stops; ours
            "hang_seconds": 600.0 if preset == "nano" else 3600.0,  # then hang-PROCESS.txt tells; ours
        }
    )
