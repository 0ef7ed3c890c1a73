"""A training step beside Hugging Face's LlamaForCausalLM on PyTorch, on the CPU.

    python -m benchmarks.train_step [--json=FILE] [--config.batch_size=64 --config.model.width=256 …]

Both start from the same weights, work through the same batches and learn the same targets: forward pass, backward
pass, clipping by the global norm and AdamW, in float32 on all cores that this process may use. Ours is the step that
`experiments.pretrain` runs, with its packing mask and its metrics. The peer runs as its users run it: eager, its
default attention (PyTorch's own kernel, told that the mask is causal), logits and cross-entropy in one piece, the fused
AdamW. They take turns after a warm-up, which compiles ours; the figure is the ratio of the median rates. Before the
turns, both must find the same loss.
"""

import resource
import time

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from benchmarks import timing
from benchmarks.llama import LlamaPeer, prepare
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.runs.workdir import write_json
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import create_state, make_train_step
from dsmath.train.supervised import next_token_loss

_CONFIG = config_flags.DEFINE_config_file("config", "configs/pretrain.py:nano", "shape, batch and optimizer")
_STEPS = flags.DEFINE_integer("steps", 10, "steps of a turn", lower_bound=1)
_REPETITIONS = flags.DEFINE_integer("repetitions", 5, "turns of each", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOAL = 2.5


def main(argv: list[str]) -> None:
    del argv
    config = _CONFIG.value
    config.optimizer.update({"schedule": "constant", "warmup_steps": 0})
    machine = timing.describe_machine("jax", "jaxlib", "flax", "optax")
    model_config = prepare(config.model)
    mesh = make_mesh({"data": -1})
    model = Transformer(model_config)
    optimizer, _ = make_optimizer(config.optimizer, num_steps=_STEPS.value)
    state = create_state(model, optimizer, mesh, seed=0)
    step = make_train_step(next_token_loss(model, config.logits_chunk), optimizer, mesh)

    shape = (_STEPS.value, config.batch_size, config.length)
    rows = np.random.default_rng(0).integers(model_config.vocab_size, size=(*shape[:2], shape[2] + 1), dtype=np.int32)
    tokens, targets = rows[..., :-1], rows[..., 1:]
    whole_rows = {  # one document fills a row
        "positions": np.broadcast_to(np.arange(config.length, dtype=np.int32), shape[1:]),
        "segment_ids": np.ones(shape[1:], np.int32),
        "loss_mask": np.ones(shape[1:], np.float32),
    }
    batches = [{"tokens": tokens[i], "targets": targets[i], **whole_rows} for i in range(_STEPS.value)]
    settings = {name: config.optimizer[name] for name in ("b1", "b2", "weight_decay", "clip_norm")}
    settings["learning_rate"] = config.optimizer.peak_learning_rate

    def ours() -> float:
        nonlocal state
        started = time.perf_counter()
        for batch in batches:
            state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - started

    with LlamaPeer(
        model_config,
        state.params,
        task="train",
        settings={"optimizer": settings},
        arrays={"tokens": tokens, "targets": targets},
    ) as peer:
        loss, sums = jax.jit(next_token_loss(model, config.logits_chunk))(state.params, batches[0])
        difference = peer.check(np.asarray(-loss / sums["denominator"]))
        turns = timing.take_turns(ours, peer.run, _REPETITIONS.value)
        memory = {
            "dsmath": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "transformers": peer.ask({"do": "run"})["peak_bytes"],
        }
    machine["versions"] |= peer.versions

    names = ("dsmath", "transformers")
    rates = {name: timing.summarize_rates(seconds, tokens.size) for name, seconds in zip(names, turns, strict=True)}
    ratio = rates["dsmath"]["median"] / rates["transformers"]["median"]
    timing.print_rates(
        f"{peer.parameters / 1e6:.2f} M parameters, {shape[1]} x {shape[2]} tokens a step, {shape[0]} steps a turn, "
        f"{_REPETITIONS.value} turns, {machine['threads']} threads; first losses differ by {difference:.1e}",
        "tokens/s",
        rates,
        machine,
    )
    shown = ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in memory.items())
    print(f"peak memory of the process, libraries and compilation included: {shown}")
    if _JSON.value:
        figures = {"tokens_per_second": rates, "ratio": ratio, "goal": _GOAL, "difference": difference}
        figures["peak_bytes"] = memory
        write_json(_JSON.value, {**figures, "config": config.to_dict(), "machine": machine})
    timing.conclude("train_tokens_per_second", ratio, _GOAL)


if __name__ == "__main__":
    app.run(main)
