"""Weak scaling on 1, 2, 4 and 8 CPU devices: what a step exchanges, by its compiled program and by arithmetic.

python -m benchmarks.scaling

The rows grow with the devices; along tensor they stay. The devices share this machine's cores: the seconds say that the
steps run, and nothing about scaling. Ends with 1 where a count is more than 1 % off.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from configs import pretrain
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.plan.plan import plan
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import create_state, make_train_step
from dsmath.train.supervised import next_token_loss

COUNTS = (1, 2, 4, 8)
AXES = ("data", "fsdp", "tensor")
_ROWS, _VOCAB = 8, 1024


def expected_bytes(model: ModelConfig, axis: str, count: int, rows: int, length: int) -> dict[str, int]:
    """Bytes of the float32 arrays that one micro-batch exchanges where all devices lie along one axis, by kind.

    Args:
      model: untied, its layers not rematerialised.
      axis, count: "data", "fsdp" or "tensor", and the devices along it.
      rows, length: of the whole batch.
    """
    table = model.vocab_size * model.width  # of the embedding, and of the output
    norms = (2 * model.num_layers + 1) * model.width
    attention = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim * model.width
    layers = model.num_layers * (attention + 3 * model.width * model.mlp_width)
    if axis == "data":  # every gradient
        return {"all-reduce": 4 * (layers + 2 * table + norms)}
    if axis == "fsdp":
        return {
            # The layers for the forward and for the backward pass; the tokens, for the embedding's gradient: a device
            # makes a part of its width, for which it gets that part of what came down to every token.
            "all-gather": 4 * (2 * layers + 2 * table + rows * length),
            "all-to-all": 4 * rows * length * model.width // count,
            "reduce-scatter": 4 * (layers + table),  # the gradients of the layers and of the output
            "all-reduce": 4 * norms,
        }
    # Of a layer: the two outputs, and the gradients that q, k, v, gate and up give their inputs; then the embedded
    # tokens, and the gradient by the logits.
    return {"all-reduce": 4 * (7 * model.num_layers + 2) * rows * length * model.width}


def main() -> None:
    """Prints a line for each axis and count of devices."""
    parser = argparse.ArgumentParser(description="What a step exchanges on 1, 2, 4 and 8 CPU devices.")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed")
    parser.add_argument("--json", help="file for all figures")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    use_cpu_devices(max(COUNTS))

    config = pretrain.get_config("nano")
    fields = {**config.model, "vocab_size": _VOCAB, "num_heads": 8, "num_kv_heads": 8, "remat": "none"}
    model = ModelConfig.create(fields)
    rows = []
    print(f"{'axis':<8}{'devices':>8}{'kind':>17}{'counted MB':>12}{'expected MB':>13}{'sent MB':>9}{'step, s':>9}")
    for axis in AXES:
        for count in COUNTS:
            config.batch_size = _ROWS * (1 if axis == "tensor" else count)
            config.num_microbatches = 1
            found = plan(config, {axis: count}, model=model, prompt_length=1)
            seconds = _time(config, model, {axis: count}, arguments.steps)
            counted = {kind: value for (_, kind), value in found.collective_bytes().items()}
            expected = expected_bytes(model, axis, count, config.batch_size, config.length) if count > 1 else {}
            for kind in sorted(counted.keys() | expected.keys()) or ["nothing"]:
                held, sent = counted.get(kind, (0, 0))
                rows.append(
                    {"axis": axis, "devices": count, "kind": kind, "counted": held, "expected": expected.get(kind, 0)}
                    | {"sent": sent, "seconds": seconds}
                )
                print(
                    f"{axis:<8}{count:>8}{kind:>17}{held / 1e6:>12.3f}{expected.get(kind, 0) / 1e6:>13.3f}"
                    f"{sent / 1e6:>9.3f}{seconds:>9.3f}"
                )
    print("the devices share this machine's cores: the seconds mean nothing")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    worst = 0.0  # of what a mesh exchanges in all: sums of single numbers are beside what is expected
    for axis in AXES:
        for count in COUNTS[1:]:
            here = [row for row in rows if (row["axis"], row["devices"]) == (axis, count)]
            off = sum(abs(row["counted"] - row["expected"]) for row in here)
            worst = max(worst, off / sum(row["expected"] for row in here))
    print(f"the counted bytes are within {100 * worst:.2f} % of the expected ones")
    sys.exit(worst > 0.01)


def _time(config: ml_collections.ConfigDict, model: ModelConfig, shape: dict[str, int], steps: int) -> float:
    """Median seconds of a step on these devices."""
    mesh = make_mesh(shape, jax.devices()[: next(iter(shape.values()))])
    decoder, (optimizer, _) = Transformer(model), make_optimizer(config.optimizer, config.num_steps)
    state = create_state(decoder, optimizer, mesh, seed=0)
    step = make_train_step(next_token_loss(decoder, config.logits_chunk), optimizer, mesh)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, (config.batch_size, config.length), np.int32)
    ones = np.ones_like(tokens)
    batch: dict[str, Any] = {"tokens": tokens, "targets": tokens, "segment_ids": ones}
    batch |= {"positions": np.cumsum(ones, axis=1, dtype=np.int32) - 1, "loss_mask": ones.astype(np.float32)}
    seconds = []
    for _ in range(steps + 1):  # the first compiles
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
