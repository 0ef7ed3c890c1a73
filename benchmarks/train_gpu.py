"""A training step of the 1.3B at 4 K context on one GPU, beside Hugging Face's LlamaForCausalLM under torch.compile.

    python -m benchmarks.train_gpu [--peer=PYTHON] [--config.batch_size=16 --config.num_microbatches=2 …] [--json=FILE]

Both learn the same shape from random tokens, whole rows of one document each: forward pass, backward pass, clipping by
the global norm, AdamW; float32 master weights, bfloat16 in the matrix products, flash attention. Ours is the step that
`experiments.pretrain` runs, with its attention within documents and its metrics, in two parts. The peer runs as its
users run it: autocast, torch.compile, the attention kernel that PyTorch takes by itself, the fused AdamW; it adds up
the gradients of parts, too, as large as fit. Model FLOPs utilisation counts six operations a weight and token and what
the causal mask leaves of attention, against the card's data sheet; nothing that is computed twice counts twice.
"""

import json
import statistics
import sys
import time

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from benchmarks import gpu, timing
from dsmath.huggingface import config as huggingface
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.plan import flops
from dsmath.plan.devices import find_device
from dsmath.runs.workdir import write_json
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import create_state, make_train_step
from dsmath.train.supervised import next_token_loss

_OURS = gpu.make_config(remat="minimal", attention="cudnn_documents")
_OURS.update({"batch_size": 16, "num_microbatches": 2, "logits_chunk": 1024})
_OURS.optimizer.update({"schedule": "constant", "warmup_steps": 0})
_CONFIG = config_flags.DEFINE_config_dict("config", _OURS, "shape, batch and optimizer")
_STEPS = flags.DEFINE_integer("steps", 5, "counted steps, after three others", lower_bound=1)
_PEER_ROWS = flags.DEFINE_list("peer_rows", ["4", "2"], "rows of the peer's parts, tried in this order")
_PEER = flags.DEFINE_string("peer", sys.executable, "Python with torch and transformers; empty: no peer")
_DEVICE = flags.DEFINE_string("device", "h100", "the card, a key of dsmath.plan.devices")
_SECONDS = flags.DEFINE_integer("seconds", 600, "after which a contestant is stopped", lower_bound=1)
_PROFILE = flags.DEFINE_string("profile", None, "folder for a trace of two of our steps")
_CONTESTANT = flags.DEFINE_bool("contestant", False, "be our contestant")
_JSON = flags.DEFINE_string("json", None, "file for all figures")
_GOAL_MFU, _GOAL_RATIO, _WARM_UP = 0.55, 1.2, 3


def main(argv: list[str]) -> None:
    del argv
    if _CONTESTANT.value:
        print(json.dumps(train()))
        return
    config = _CONFIG.value
    model_config = ModelConfig.create(config.model.to_dict())
    ours = [sys.executable, "-m", "benchmarks.train_gpu", *sys.argv[1:], "--contestant"]
    found = {"dsmath": gpu.run(ours, _SECONDS.value)}
    if _PEER.value:
        job = {
            "task": "train",
            "shape": huggingface.to_huggingface(model_config, dtype="float32", length=config.length),
            "rows": config.batch_size,
            "length": config.length,
            "part_rows": [int(rows) for rows in _PEER_ROWS.value],
            "steps": _STEPS.value,
            "warm_up": _WARM_UP,
            "optimizer": config.optimizer.to_dict(),
        }
        found["transformers"] = gpu.run(
            [_PEER.value, "benchmarks/gpu_peer.py"], _SECONDS.value, {"JOB": json.dumps(job)}
        )
    _conclude(found, model_config)


def train() -> dict:
    """Our steps, in this process."""
    config = _CONFIG.value
    mesh = make_mesh({})
    model = Transformer(ModelConfig.create(config.model.to_dict()))
    optimizer, _ = make_optimizer(config.optimizer, num_steps=1000)
    step = make_train_step(next_token_loss(model, config.logits_chunk), optimizer, mesh, config.num_microbatches)
    shape = (config.batch_size, config.length)
    rows = np.random.default_rng(0).integers(config.model.vocab_size, size=(shape[0], shape[1] + 1), dtype=np.int32)
    batch = {
        "tokens": rows[:, :-1],
        "targets": rows[:, 1:],
        "positions": np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape),
        "segment_ids": np.ones(shape, np.int32),
        "loss_mask": np.ones(shape, np.float32),
    }
    state = create_state(model, optimizer, mesh, seed=0)
    seconds, losses = [], []
    for _ in range(_WARM_UP + _STEPS.value):
        started = time.perf_counter()
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - started)
    if _PROFILE.value:
        with jax.profiler.trace(_PROFILE.value):
            for _ in range(2):
                state, metrics = step(state, batch)
            jax.block_until_ready(state)
    memory = jax.devices()[0].memory_stats() or {}  # the CPU tells nothing
    return {
        "device": jax.devices()[0].device_kind,
        "seconds": seconds[_WARM_UP:],
        "first_seconds": seconds[0],
        "losses": losses,
        "peak_bytes": memory.get("peak_bytes_in_use", 0),
        "versions": {"jax": jax.__version__},
    }


def _conclude(found: dict, model_config: ModelConfig) -> None:
    rows, length = _CONFIG.value.batch_size, _CONFIG.value.length
    tokens = rows * length
    work = 3 * flops.forward(model_config, tokens, tokens, rows * flops.causal_pairs(length)).total
    peak = find_device(_DEVICE.value).flops
    print(
        f"{model_config.num_layers} layers of {model_config.width}, {rows} x {length} tokens a step, "
        f"{work / 1e12:.0f} TFLOP a step, {peak / 1e12:.0f} TFLOP/s by the data sheet"
    )
    print(f"{'':<14}{'tokens/s':>10}{'s a step':>10}{'MFU':>8}{'peak GiB':>10}{'first loss':>12}{'first step, s':>15}")
    rates = {}
    for name, of_name in found.items():
        if "error" in of_name:
            print(f"{name:<14}{of_name['error']}")
            continue
        median = statistics.median(of_name["seconds"])
        rates[name] = tokens / median
        of_name["mfu"] = work / median / peak
        print(
            f"{name:<14}{rates[name]:>10,.0f}{median:>10.3f}{of_name['mfu']:>8.1%}"
            f"{of_name['peak_bytes'] / 2**30:>10.1f}{of_name['losses'][0]:>12.3f}{of_name['first_seconds']:>15.0f}"
            f"  {of_name['device']}"
        )
    if _JSON.value:
        write_json(_JSON.value, {"contestants": found, "command": sys.argv})
    if "dsmath" not in rates:
        sys.exit(1)
    figures = {"train_mfu": (found["dsmath"]["mfu"], _GOAL_MFU)}
    if "transformers" in rates:
        figures["train_tokens_per_second"] = (rates["dsmath"] / rates["transformers"], _GOAL_RATIO)
    timing.conclude_all(figures)


if __name__ == "__main__":
    app.run(main)
