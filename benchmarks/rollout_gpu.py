"""Sampling of the 1.3B on one GPU beside Hugging Face's `generate`, and beside what the card's memory allows.

    python -m benchmarks.rollout_gpu [--peer=PYTHON] [--num_groups=64 --group_size=16 …] [--json=FILE]

The work is that of one RL step: for each question a group of samples at temperature 1, bfloat16 weights and cache. A
sample ends with any of the stop ids, so that lengths are mixed as those of answers are. What counts are the tokens up
to and with the stop id. A step of decoding must read the weights, each sample's keys and values so far and each
question's once; these bytes over the bandwidth of a large copy on the same card are the bound, and the figure is its
share of the time of everything: prompts, steps, drawing, the host. The peer has no continuous batching, and each sample
has its own copy of the question; it decodes one batch, as many samples as ours has slots, for so many seconds at most.
"""

import dataclasses
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from ml_collections import config_flags

from benchmarks import gpu, timing
from dsmath.huggingface import config as huggingface
from dsmath.model import flash_decoding
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout import memory
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.runs.workdir import write_json
from dsmath.train.state import create_state

_NUM_GROUPS = flags.DEFINE_integer("num_groups", 64, "questions", lower_bound=1)
_GROUP_SIZE = flags.DEFINE_integer("group_size", 16, "samples of each", lower_bound=1)
_PROMPT_TOKENS = flags.DEFINE_integer("prompt_tokens", 128, "of each question", lower_bound=2)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 1024, "most tokens of a sample", lower_bound=2)
_NUM_STOP_IDS = flags.DEFINE_integer("num_stop_ids", 200, "ids that end a sample", lower_bound=1)
_CONFIG = config_flags.DEFINE_config_dict(
    "config", gpu.make_config(param_dtype="bfloat16"), "of which the model counts"
)
_SLOTS = flags.DEFINE_integer("slots", 256, "most samples decoded at once", lower_bound=1)
_MEMORY = flags.DEFINE_float("memory_gib", 62.0, "for keys, values and logits; it lowers the slots")
_CACHE = flags.DEFINE_string("cache_dtype", "bfloat16", "of keys and values, ours")
_BLOCK_STEPS = flags.DEFINE_integer("block_steps", 32, "decode steps of ours between two looks of the host")
_REPETITIONS = flags.DEFINE_integer("repetitions", 1, "counted turns, after one that compiles", lower_bound=1)
_PEER = flags.DEFINE_string("peer", sys.executable, "Python with torch and transformers; empty: no peer")
_PEER_BATCH = flags.DEFINE_integer("peer_batch", 256, "samples that the peer decodes at once", lower_bound=1)
_PEER_SECONDS = flags.DEFINE_float("peer_seconds", 60.0, "after which the peer stops decoding")
_SECONDS = flags.DEFINE_integer("seconds", 600, "after which a contestant is stopped", lower_bound=1)
_CONTESTANT = flags.DEFINE_bool("contestant", False, "be our contestant")
_JSON = flags.DEFINE_string("json", None, "file for all figures")
_GOAL = 0.6


def main(argv: list[str]) -> None:
    del argv
    if _CONTESTANT.value:
        roll_out()
        return
    ours = [sys.executable, "-m", "benchmarks.rollout_gpu", *sys.argv[1:], "--contestant"]
    found = {"dsmath": gpu.run(ours, _SECONDS.value)}
    if _PEER.value:
        config = ModelConfig.create(_CONFIG.value.model.to_dict())
        job = {
            "task": "rollout",
            "shape": huggingface.to_huggingface(config, dtype="bfloat16", length=4096),
            "batch_size": _PEER_BATCH.value,
            "group_size": _GROUP_SIZE.value,
            "prompt_tokens": _PROMPT_TOKENS.value,
            "max_new_tokens": _MAX_NEW_TOKENS.value,
            "stop_ids": list(range(_NUM_STOP_IDS.value)),
            "seconds": _PEER_SECONDS.value,
        }
        found["transformers"] = gpu.run(
            [_PEER.value, "benchmarks/gpu_peer.py"], _SECONDS.value, {"JOB": json.dumps(job)}
        )
    _conclude(found)


class _Count:
    """Stands before the engine's program of decoding and keeps what each block did, on the device."""

    def __init__(self, engine: Engine):
        self._decode, self._engine = engine.programs.decode, engine
        engine.programs.decode = self
        self.blocks: list[tuple] = []

    def __call__(self, params, cache, block, picked, key, **shape):
        cache, drawn = self._decode(params, cache, block, picked, key, **shape)
        # A picked slot is a row of its own, and several may be of one question.
        questions = np.arange(len(block.prefix_lengths)) if picked is None else block.streams
        self.blocks.append((block.lengths, block.prefix_lengths, questions, drawn.counts))
        return cache, drawn

    def read(self, weights: float, token: float) -> dict[str, float]:
        """What the blocks had to read: bytes, and their number of steps; forgets them.

        Args:
          weights: bytes that a step reads.
          token: bytes of a token's keys and values.
        """
        steps = own = shared = 0
        for lengths, prefix_lengths, questions, counts in jax.device_get(self.blocks):
            steps += int(counts.max())
            own += int((counts * lengths + counts * (counts + 1) // 2).sum())
            of_rows = counts.max(axis=1) * prefix_lengths
            shared += sum(int(of_rows[questions == question].max()) for question in np.unique(questions))
        self.blocks.clear()
        return {"bytes": steps * weights + (own + shared) * token, "steps": steps, "own": own, "shared": shared}


def roll_out() -> None:
    """Our samples, in this process; prints the figures, and again with the check."""
    config = ModelConfig.create(_CONFIG.value.model.to_dict())
    mesh = make_mesh({})
    model = Transformer(config)
    params = create_state(model, optax.identity(), mesh, seed=0).params
    limits = memory.fit(
        config,
        mesh,
        slots=_SLOTS.value,
        memory_gib=_MEMORY.value,
        cache_dtype=_CACHE.value,
        block_steps=_BLOCK_STEPS.value,
        prefill_tokens=8192,
        group_size=_GROUP_SIZE.value,
        longest_prompt=_PROMPT_TOKENS.value,
        max_new_tokens=_MAX_NEW_TOKENS.value,
    )
    limits = dataclasses.replace(limits, max_stop_ids=_NUM_STOP_IDS.value)
    engine = Engine(model, mesh, limits, pad_id=0)
    count = _Count(engine)
    shape = (_NUM_GROUPS.value, _PROMPT_TOKENS.value)
    prompts = np.random.default_rng(0).integers(_NUM_STOP_IDS.value, config.vocab_size, size=shape, dtype=np.int32)

    def sample(number: int, questions: int, new_tokens: int) -> tuple[float, np.ndarray]:
        started = time.perf_counter()
        samples = engine.sample(
            params,
            prompts[:questions].tolist(),
            range(questions),
            jax.random.key(number),
            decoding=Decoding(temperature=1.0, top_p=1.0, max_new_tokens=new_tokens),
            group_size=_GROUP_SIZE.value,
            stop_ids=tuple(range(_NUM_STOP_IDS.value)),
        )
        return time.perf_counter() - started, samples.lengths

    bandwidth = measure_bandwidth()
    first, _ = sample(0, min(shape[0], limits.rows), 2 * _BLOCK_STEPS.value)
    if not flash_decoding.serves(config, limits.prompt_buckets[-1], limits.new_buckets[-1]):
        for bucket in limits.new_buckets[1:]:  # each has a program of its own
            sample(0, 1, bucket)
    count.read(0, 0)
    token = memory.token_bytes(config, limits.cache_dtype)
    turns = []
    for number in range(_REPETITIONS.value):
        seconds, lengths = sample(number + 1, shape[0], _MAX_NEW_TOKENS.value)
        read = count.read(weight_bytes(config), token)
        turns.append(
            {"seconds": seconds, "tokens": int(lengths.sum()), "share": read["bytes"] / bandwidth / seconds} | read
        )
    of_device = jax.devices()[0].memory_stats() or {}  # the CPU tells nothing
    figures = {
        "device": jax.devices()[0].device_kind,
        "bandwidth": bandwidth,
        "slots": limits.rows * limits.width,
        "mean_length": float(lengths.mean()),
        "first_seconds": first,
        "reshard_seconds": engine.reshard_seconds,
        "turns": turns,
        "peak_bytes": of_device.get("peak_bytes_in_use", 0),
        "versions": {"jax": jax.__version__},
    }
    print(json.dumps(figures), flush=True)
    print(json.dumps(figures | {"differences": _check(engine, params, prompts[:8, : shape[1] // 2].tolist())}))


def _check(engine: Engine, params, prompts: list[list[int]]) -> dict[str, float]:
    """How far log-probabilities of samples are from those of one pass over prompt and sample, as training makes it."""
    key, begun = jax.random.key(0), len(prompts[0])
    decoding = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=begun)
    samples = engine.sample(params, prompts, range(len(prompts)), key, decoding=decoding, group_size=1, stop_ids=())
    engine.load(params, key)
    texts = [prompt + tokens.tolist() for prompt, tokens in zip(prompts, samples.tokens[:, 0], strict=True)]
    scored = np.stack([found.logprobs for found in engine.score(texts)])[:, begun - 1 :]
    engine.release()
    apart = np.abs(scored - samples.logprobs[:, 0])
    return {"mean": float(apart.mean()), "largest": float(apart.max())}


def weight_bytes(config: ModelConfig) -> float:
    """Bytes of the weights that a decode step reads, in bfloat16: all but the embedding, of which it reads rows."""
    heads = 2 * (config.num_heads + config.num_kv_heads) * config.head_dim * config.width
    layer = heads + 3 * config.width * config.mlp_width
    return 2.0 * (config.num_layers * layer + config.width * config.vocab_size)


def measure_bandwidth() -> float:
    """Bytes a second that a large copy reads and writes, the best of ten."""
    source = jnp.zeros((2**30 if jax.default_backend() == "gpu" else 2**22,), jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    jax.block_until_ready(copy(source))
    best = np.inf
    for _ in range(10):
        started = time.perf_counter()
        jax.block_until_ready(copy(source))
        best = min(best, time.perf_counter() - started)
    return 2 * source.nbytes / best


def _conclude(found: dict) -> None:
    rates = {}
    for name, of_name in found.items():
        if "error" in of_name:
            print(f"{name}: {of_name['error']}")
            continue
        turns = of_name.get("turns") or [of_name]
        turn = sorted(turns, key=lambda turn: turn["seconds"])[len(turns) // 2]
        rates[name] = turn["tokens"] / turn["seconds"]
        print(
            f"{name}: {rates[name]:,.0f} new tokens/s ({turn['tokens']:,} in {turn['seconds']:.1f} s, "
            f"{turn['steps']:,} steps, {of_name['mean_length']:.0f} tokens a sample), "
            f"{of_name['peak_bytes'] / 2**30:.1f} GiB at most, {of_name['device']}"
        )
        if "share" in turn:
            print(
                f"  {of_name['slots']} slots; {turn['bytes'] / 1e12:.2f} TB at {of_name['bandwidth'] / 1e12:.2f} TB/s "
                f"are {turn['share']:.1%} of the time"
            )
    if "differences" in found["dsmath"]:
        apart = found["dsmath"]["differences"]
        print(
            f"  log-probabilities differ from those of a plain forward pass by {apart['mean']:.4f} nats on average, "
            f"{apart['largest']:.3f} at most"
        )
    if _JSON.value:
        write_json(_JSON.value, {"contestants": found, "command": sys.argv})
    if "dsmath" not in rates:
        sys.exit(1)
    figures = {"rollout_bandwidth_share": (turn_share(found["dsmath"]), _GOAL)}
    if "transformers" in rates:
        print(f"{rates['dsmath'] / rates['transformers']:.1f} times the peer's tokens a second")
    timing.conclude_all(figures)


def turn_share(ours: dict) -> float:
    """The median turn's share of the bound."""
    return float(np.median([turn["share"] for turn in ours["turns"]]))


if __name__ == "__main__":
    app.run(main)
