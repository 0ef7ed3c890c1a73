"""Sampling groups of answers of mixed lengths beside Hugging Face's `generate` and Tunix's sampler, on the CPU.

    python -m benchmarks.rollout [--json=FILE] [--num_groups=32 --batch_size=128 --max_new_tokens=256 …]

The work is that of one RL step: for each of many prompts a group of samples at temperature 1, with the same weights, in
float32 on all cores that this process may use. A sample ends with any of a few stop ids, so lengths are mixed as those
of answers are; each contestant decodes as many samples at once (`batch_size`), and what counts are the tokens up to and
with the stop id. Ours is `dsmath.rollout.engine.Engine`, which fills the places of samples that end, stores a prompt
once for its group and returns every token's log-probability too. The peers run whole batches until the longest sample
of each ends: `generate` of LlamaForCausalLM on PyTorch, and Tunix's compiled sampler where there is an environment with
it; `make peers` makes both. They take turns after a warm-up, which compiles. Before the turns, the peers must find the
log-probabilities that ours gave for its own samples; after them, the lengths must be of one distribution.
"""

import contextlib
import time

import jax
import numpy as np
import optax
from absl import app, flags
from scipy import stats

from benchmarks import timing
from benchmarks.llama import LlamaPeer, find_python, prepare
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import halvings
from dsmath.rollout.requests import Limits
from dsmath.runs.workdir import write_json
from dsmath.train.state import create_state

_NUM_GROUPS = flags.DEFINE_integer("num_groups", 32, "prompts", lower_bound=1)
_GROUP_SIZE = flags.DEFINE_integer("group_size", 16, "samples of each prompt", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "samples decoded at once, by each", lower_bound=16)
_PROMPT_TOKENS = flags.DEFINE_integer("prompt_tokens", 48, "length of every prompt", lower_bound=2)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 256, "most tokens of a sample", lower_bound=2)
_NUM_STOP_IDS = flags.DEFINE_integer("num_stop_ids", 32, "ids that end a sample", lower_bound=1)
_REPETITIONS = flags.DEFINE_integer("repetitions", 3, "turns of each", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 4, "samples of a prompt that ours decodes at once", lower_bound=1)
_BLOCK_STEPS = flags.DEFINE_integer("block_steps", 8, "decode steps of ours between two looks of the host")
_TUNIX = flags.DEFINE_string("tunix", ".venv-tunix", "environment of Tunix; without it, it is left out")
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOALS = {"transformers": 5.0, "tunix": 2.0}


def main(argv: list[str]) -> None:
    del argv
    machine = timing.describe_machine("jax", "jaxlib", "flax")
    config = prepare()
    mesh = make_mesh({"data": -1})
    model = Transformer(config)
    params = create_state(model, optax.identity(), mesh, seed=0).params
    stop_ids = tuple(range(_NUM_STOP_IDS.value))
    limits = Limits(
        rows=_BATCH_SIZE.value // _WIDTH.value,
        width=_WIDTH.value,
        prompt_buckets=(_PROMPT_TOKENS.value,),
        new_buckets=halvings(_MAX_NEW_TOKENS.value, _BLOCK_STEPS.value),
        block_steps=_BLOCK_STEPS.value,
        prefill_tokens=1024,
        max_stop_ids=len(stop_ids),
        cache_dtype="float32",
    )
    engine = Engine(model, mesh, limits, pad_id=0)
    shape = (_NUM_GROUPS.value, _PROMPT_TOKENS.value)
    prompts = np.random.default_rng(0).integers(len(stop_ids), config.vocab_size, size=shape, dtype=np.int32)
    keys = iter(jax.random.split(jax.random.key(0), _REPETITIONS.value + 2))
    decoding = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=_MAX_NEW_TOKENS.value)

    def sample():
        return engine.sample(
            params,
            prompts.tolist(),
            range(len(prompts)),
            next(keys),
            decoding=decoding,
            group_size=_GROUP_SIZE.value,
            stop_ids=stop_ids,
        )

    def ours() -> dict:
        started = time.perf_counter()
        samples = sample()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "cpu_seconds": time.process_time(), "lengths": samples.lengths.ravel().tolist()}

    drawn = sample()
    checked = int(drawn.lengths[:, 0].max())
    settings = {
        "group_size": _GROUP_SIZE.value,
        "batch_size": _BATCH_SIZE.value,
        "stop_ids": stop_ids,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": _MAX_NEW_TOKENS.value,
    }
    arrays = {"prompts": prompts, "checked": np.concatenate([prompts, drawn.tokens[:, 0, :checked]], axis=1)}
    environments = {"transformers": {}}
    if find_python(_TUNIX.value).exists():
        environments["tunix"] = {"script": "tunix_peer.py", "environment": _TUNIX.value}
    with contextlib.ExitStack() as stack:
        peers = {
            name: stack.enter_context(
                LlamaPeer(config, params, task="rollout", settings=settings, arrays=arrays, **where)
            )
            for name, where in environments.items()
        }
        for peer in peers.values():
            machine["versions"] |= peer.versions
        differences = {name: _check(name, peer, drawn, checked) for name, peer in peers.items()}
        contestants = {"dsmath": ours} | {
            name: lambda peer=peer: peer.ask({"do": "run"}) for name, peer in peers.items()
        }
        warm = {name: run() for name, run in contestants.items()}
        turns = {name: [] for name in contestants}
        for _ in range(_REPETITIONS.value):
            for name, run in contestants.items():
                turns[name].append(run())
    _conclude(machine, warm, turns, differences)


def _check(name: str, peer: LlamaPeer, drawn, checked: int) -> float:
    """The largest difference between our log-probabilities and the peer's, of the first sample of each prompt."""
    theirs = np.array(peer.ask({"do": "check"})["nats"])
    mask = drawn.mask[:, 0, :checked]
    difference = float(np.abs((theirs - drawn.logprobs[:, 0, :checked]) * mask).max())
    if not difference < 1e-3:
        raise RuntimeError(f"{name} differs by {difference} nats on the same tokens under the same weights")
    return difference


def _conclude(machine: dict, warm: dict, turns: dict, differences: dict) -> None:
    tokens = {name: sum(map(sum, (turn["lengths"] for turn in of_name))) for name, of_name in turns.items()}
    rates, busy = {}, {}
    for name, of_name in turns.items():
        own = [sum(turn["lengths"]) / turn["seconds"] for turn in of_name]
        rates[name] = {"median": float(np.median(own)), "slowest": min(own), "fastest": max(own)}
        # Other work on the machine takes cores away; time on the processor does not see it.
        processor = of_name[-1]["cpu_seconds"] - warm[name]["cpu_seconds"]
        busy[name] = tokens[name] / processor
    lengths = np.array(turns["dsmath"][0]["lengths"])
    timing.print_rates(
        f"{_NUM_GROUPS.value} prompts of {_PROMPT_TOKENS.value} tokens x {_GROUP_SIZE.value} samples, "
        f"{_BATCH_SIZE.value} at once; lengths {lengths.mean():.0f} on average, {np.percentile(lengths, 90):.0f} at "
        f"90 %, {lengths.max()} at most; {_REPETITIONS.value} turns, {machine['threads']} threads",
        "new tokens/s",
        rates,
        machine,
    )
    for name, difference in differences.items():
        pvalue = stats.ks_2samp(
            *(np.concatenate([turn["lengths"] for turn in turns[who]]) for who in ("dsmath", name))
        ).pvalue
        print(
            f"{name}: log-probabilities differ by {difference:.1e} at most; lengths are alike (p = {pvalue:.2f}); "
            f"tokens a second of processor time {busy[name]:,.0f}, ours {busy['dsmath']:,.0f}"
        )
    ratios = {name: rates["dsmath"]["median"] / rates[name]["median"] for name in differences}
    if _JSON.value:
        write_json(
            _JSON.value,
            {
                "new_tokens_per_second": rates,
                "per_processor_second": busy,
                "ratios": ratios,
                "goals": _GOALS,
                "differences": differences,
                "turns": turns,
                "machine": machine,
            },
        )
    timing.conclude_all({f"rollout_{name}": (ratio, _GOALS[name]) for name, ratio in ratios.items()})


if __name__ == "__main__":
    app.run(main)
