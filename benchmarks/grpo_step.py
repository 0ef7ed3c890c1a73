"""A whole GRPO step beside TRL's GRPOTrainer and Tunix's GRPO learner, on the CPU.

    python -m benchmarks.grpo_step [--json=FILE] [--num_groups=16 --group_size=16 --max_new_tokens=256 …]

A step samples a group of answers to every prompt at temperature 1, rewards them by a rule on their text, finds the
log-probabilities of the reference and makes one update by AdamW, in float32, on all cores that this process may use.
All contestants start from the same weights, those of the nano preset's Llama with random numbers, which are their
reference too; settings are the paper's: beta 0.04, one update a step, each output's tokens averaged. A sample ends with
any of a few stop ids, so lengths are mixed as those of answers are. Ours is the loop of `experiments.rl` without its
files. TRL samples by `generate` of transformers and Tunix by its compiled sampler, all samples at once; their updates
take `microbatch_size` samples at a time, without gradient checkpointing, logs or files. `make peers` installs both.

Before the turns the peers must find the log-probabilities that ours gave for its own samples; contestants take turns
step by step after warm-up steps, which compile; and the lengths of what they drew must be of one distribution.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from scipy import stats

from benchmarks import timing
from benchmarks.llama import LlamaPeer, find_python, prepare
from configs import rl
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rl import loop, paradigm
from dsmath.rl.exploration import Stage
from dsmath.rl.rewards import Rewards, decode_samples
from dsmath.rollout.batches import size_of
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import halvings
from dsmath.rollout.requests import Limits
from dsmath.rollout.samples import Samples
from dsmath.runs.workdir import write_json
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import create_state, make_accumulate, make_apply

_NUM_GROUPS = flags.DEFINE_integer("num_groups", 16, "prompts", lower_bound=1)
_GROUP_SIZE = flags.DEFINE_integer("group_size", 16, "samples of each prompt", lower_bound=2)
_PROMPT_TOKENS = flags.DEFINE_integer("prompt_tokens", 48, "length of every prompt", lower_bound=2)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 256, "most tokens of a sample", lower_bound=2)
_NUM_STOP_IDS = flags.DEFINE_integer("num_stop_ids", 32, "ids that end a sample", lower_bound=1)
_SLOTS = flags.DEFINE_integer("slots", 128, "samples that ours decodes at once", lower_bound=4)
_MICROBATCH_SIZE = flags.DEFINE_integer("microbatch_size", 64, "samples of a part of the peers' updates", lower_bound=1)
_WARM_UP = flags.DEFINE_integer("warm_up", 2, "steps of each that are not counted", lower_bound=1)
_REPETITIONS = flags.DEFINE_integer("repetitions", 5, "counted steps of each", lower_bound=1)
_PEERS = flags.DEFINE_list("peers", ["trl", "tunix"], "trl, tunix or both")
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOALS = {"trl": 4.0, "tunix": 2.0}
_SCRIPTS = {
    "trl": {"script": "grpo_peer_trl.py"},
    "tunix": {"script": "grpo_peer_tunix.py", "environment": ".venv-tunix"},
}
_CLIP_EPS, _BETA = 0.2, 0.04
_OPTIMIZER = {"learning_rate": 1e-4, "b1": 0.9, "b2": 0.95, "weight_decay": 0.0, "clip_norm": 1.0}
_WIDTH, _BLOCK_STEPS = 4, 8  # ours: samples of a prompt that a row holds, decode steps between two looks of the host


def main(argv: list[str]) -> None:
    del argv
    machine = timing.describe_machine("jax", "jaxlib", "flax")
    config = prepare()
    stop_ids = tuple(range(_NUM_STOP_IDS.value))
    shape = (_NUM_GROUPS.value, _PROMPT_TOKENS.value)
    prompts = np.random.default_rng(0).integers(len(stop_ids), config.vocab_size, size=shape, dtype=np.int32)
    decoding = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=_MAX_NEW_TOKENS.value)
    params, drawn, ours = _make_step(config, prompts.tolist(), decoding, stop_ids)
    settings = {
        "group_size": _GROUP_SIZE.value,
        "microbatch_size": min(_MICROBATCH_SIZE.value, _NUM_GROUPS.value * _GROUP_SIZE.value),
        "stop_ids": stop_ids,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": _MAX_NEW_TOKENS.value,
        "beta": _BETA,
        "clip_eps": _CLIP_EPS,
        "optimizer": _OPTIMIZER,
    }
    checked = int(drawn.lengths[:, 0].max())
    arrays = {"prompts": prompts, "checked": np.concatenate([prompts, drawn.tokens[:, 0, :checked]], axis=1)}
    with contextlib.ExitStack() as stack:
        peers = {
            name: stack.enter_context(
                LlamaPeer(config, params, task="grpo", settings=settings, arrays=arrays, **_SCRIPTS[name])
            )
            for name in _PEERS.value
            if find_python(_SCRIPTS[name].get("environment", ".venv-peers")).exists()
        }
        for peer in peers.values():
            machine["versions"] |= peer.versions
        differences = {name: _check(name, peer, drawn, checked) for name, peer in peers.items()}
        contestants = {"dsmath": ours} | {
            name: lambda peer=peer: peer.ask({"do": "run"}) for name, peer in peers.items()
        }
        turns = {name: [] for name in contestants}
        for _ in range(_WARM_UP.value + _REPETITIONS.value):
            for name, run in contestants.items():
                turns[name].append(run())
    _conclude(machine, turns, differences)


def _make_step(
    config: ModelConfig, prompts: list[list[int]], decoding: Decoding, stop_ids: tuple[int, ...]
) -> tuple[Any, Samples, Callable[[], dict[str, Any]]]:
    """Our first parameters, on the host, samples that they drew, and our step: every call is the next one."""
    mesh = make_mesh({"data": -1})
    model = Transformer(config)
    settings = dict(_OPTIMIZER, schedule="constant", warmup_steps=0, moments="float32")
    settings["peak_learning_rate"] = settings.pop("learning_rate")
    optimizer, _ = make_optimizer(settings, num_steps=1000)
    state = create_state(model, optimizer, mesh, seed=0)
    reference = jax.tree.map(jax.numpy.copy, state.params)
    limits = Limits(
        rows=_SLOTS.value // _WIDTH,
        width=_WIDTH,
        prompt_buckets=(_PROMPT_TOKENS.value,),
        new_buckets=halvings(_MAX_NEW_TOKENS.value, _BLOCK_STEPS),
        block_steps=_BLOCK_STEPS,
        prefill_tokens=1024,
        max_stop_ids=len(stop_ids),
        cache_dtype="float32",
    )
    engine = Engine(model, mesh, limits, pad_id=0)
    of_rl = rl.get_config("nano")
    of_rl.update({"clip_eps": _CLIP_EPS, "beta": _BETA, "logits_chunk": 64})
    of_rl.decoding.max_new_tokens = _MAX_NEW_TOKENS.value
    logprobs = loop.make_logprobs(model, mesh, of_rl.logits_chunk)
    loss_function = loop.make_loss(model, paradigm.make_objective(of_rl), of_rl)
    accumulate, apply = make_accumulate(loss_function, mesh), make_apply(optimizer, mesh)
    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def learn(samples: Samples, rewards: np.ndarray) -> float:
        """The update; when the log-probabilities of the reference were there."""
        nonlocal state
        numbers = np.arange(len(prompts))
        stage = Stage(numbers, numbers, samples, Rewards(rewards, rewards > 0), None, {}, 0, 0)
        batch, _ = loop.make_step_batch(stage, prompts, of_rl, _decode, pad_id=0)
        batch["ref_logprobs"] = loop.over(loop.cut(batch, 0, mesh), logprobs, reference)
        scored = time.perf_counter()
        state, _ = loop.update(state, loop.cut(batch, 0, mesh), accumulate, apply)
        jax.block_until_ready(state)
        return scored

    def step() -> dict[str, Any]:
        started = time.perf_counter()
        samples = engine.sample(
            state.params,
            prompts,
            range(len(prompts)),
            next(keys),
            decoding=decoding,
            group_size=_GROUP_SIZE.value,
            stop_ids=stop_ids,
        )
        sampled = time.perf_counter()
        rewards = np.array([_reward(group) for group in decode_samples(samples, _decode)])
        scored = learn(samples, rewards)
        ended = time.perf_counter()
        return {
            "seconds": ended - started,
            "phases": {"rollout": sampled - started, "scoring": scored - sampled, "update": ended - scored},
            "cpu_seconds": time.process_time(),
            "lengths": samples.lengths.ravel().tolist(),
            "reward": float(rewards.mean()),
            "samples": samples,
        }

    first = jax.device_get(state.params)
    drawn = step()["samples"]
    _compile_shapes(learn, drawn)
    return first, drawn, step


def _compile_shapes(learn: Callable[[Samples, np.ndarray], float], drawn: Samples) -> None:
    """Compiles the update for half to twice as many packed rows as these samples fill, as a run comes to do in time.

    Equal rewards have no gradient, so that nothing is learned.
    """
    questions, group_size, length = drawn.tokens.shape
    filled = int(np.ceil(drawn.lengths.sum(axis=1).max() / length))
    for rows in range(max(1, filled // 2), min(2 * filled, group_size) + 1):
        if rows == size_of(rows):
            lengths = np.where(np.arange(group_size) < rows, length, 0) * np.ones((questions, 1), np.int32)
            mask = (np.arange(length) < lengths[..., None]).astype(np.float32)
            learn(drawn._replace(lengths=lengths, mask=mask), np.zeros((questions, group_size), np.float32))


def _decode(tokens: np.ndarray) -> str:
    return " ".join(map(str, tokens))


def _reward(texts: list[str]) -> np.ndarray:
    """A rule on the text, the peers' too: 1 where the first token is even."""
    return np.array([float(int(text.split()[0]) % 2 == 0) if text else 0.0 for text in texts], np.float32)


def _check(name: str, peer: LlamaPeer, drawn: Samples, checked: int) -> float:
    """The largest difference between our log-probabilities and the peer's, of the first sample of each prompt."""
    theirs = np.array(peer.ask({"do": "check"})["nats"])
    mask = drawn.mask[:, 0, :checked]
    difference = float(np.abs((theirs - drawn.logprobs[:, 0, :checked]) * mask).max())
    if not difference < 1e-3:
        raise RuntimeError(f"{name} differs by {difference} nats on the same tokens under the same weights")
    return difference


def _conclude(machine: dict, turns: dict[str, list[dict]], differences: dict[str, float]) -> None:
    counted = {name: of_name[_WARM_UP.value :] for name, of_name in turns.items()}
    seconds = {name: [turn["seconds"] for turn in of_name] for name, of_name in counted.items()}
    lengths = np.array([turn["lengths"] for turn in counted["dsmath"]])
    print(
        f"{_NUM_GROUPS.value} prompts of {_PROMPT_TOKENS.value} tokens x {_GROUP_SIZE.value} samples; lengths "
        f"{lengths.mean():.0f} on average, {np.percentile(lengths, 90):.0f} at 90 %, {lengths.max()} at most; "
        f"{_REPETITIONS.value} steps, {machine['threads']} threads"
    )
    print(f"{'seconds a step':<18}{'median':>10}{'slowest':>10}{'fastest':>10}{'processor':>11}{'reward':>9}")
    for name, of_name in seconds.items():
        # Other work on the machine takes cores away; time on the processor does not see it.
        processor = (counted[name][-1]["cpu_seconds"] - turns[name][_WARM_UP.value - 1]["cpu_seconds"]) / len(of_name)
        reward = np.mean([turn["reward"] for turn in counted[name]])
        figures = (np.median(of_name), max(of_name), min(of_name), processor)
        print(f"{name:<18}" + "".join(f"{x:>10.2f}" for x in figures) + f"{reward:>10.3f}")
    phases = {
        phase: float(np.median([turn["phases"][phase] for turn in counted["dsmath"]]))
        for phase in ("rollout", "scoring", "update")
    }
    print("dsmath: " + ", ".join(f"{phase} {value:.2f} s" for phase, value in phases.items()))
    timing.warn_if_busy(machine)
    for name, difference in differences.items():
        # Tunix counts a sample without its stop id.
        theirs = np.array([turn["lengths"] for turn in counted[name]]).ravel()
        ends = (theirs < _MAX_NEW_TOKENS.value) & (name == "tunix")
        pvalue = stats.ks_2samp(lengths.ravel(), theirs + ends).pvalue
        print(f"{name}: log-probabilities differ by {difference:.1e} at most; lengths are alike (p = {pvalue:.2f})")
    ratios = {name: float(np.median(seconds[name]) / np.median(seconds["dsmath"])) for name in differences}
    if _JSON.value:
        for turn in turns["dsmath"]:
            del turn["samples"]
        write_json(
            _JSON.value,
            {
                "seconds": seconds,
                "phases": phases,
                "ratios": ratios,
                "goals": _GOALS,
                "differences": differences,
                "turns": turns,
                "machine": machine,
            },
        )
    timing.conclude_all({name: (ratio, _GOALS[name]) for name, ratio in ratios.items()})


if __name__ == "__main__":
    app.run(main)
