"""Sampling groups of answers beside `generate` of Hugging Face's LlamaForCausalLM on PyTorch, on the CPU.

    python -m benchmarks.rollout [--json=FILE] [--config.num_groups=16 --prompt_tokens=128 …]

The work is that of one RL step: for each of many prompts a group of samples, at the config's temperature and top-p,
with the same weights, in float32 on all cores that this process may use. No sample ends early, so both draw the same
number of tokens. Ours is `dsmath.rollout.sampler.Sampler`, whose groups share the keys and values of their prompt and
which returns every token's log-probability too; the peer runs eagerly with its default attention and its key-value
cache, gets each prompt once with `num_return_sequences`, and returns the tokens alone. They take turns after a warm-up,
which compiles ours; the figure is the ratio of the median rates of new tokens. Before the turns, the peer must find the
log-probabilities that our sampler gave for its own samples.
"""

import time

import jax
import numpy as np
import optax
from absl import app, flags
from ml_collections import config_flags

from benchmarks import timing
from benchmarks.llama import LlamaPeer, prepare
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.sampler import Sampler
from dsmath.runs.workdir import write_json
from dsmath.train.state import create_state

_CONFIG = config_flags.DEFINE_config_file("config", "configs/rl.py:nano", "num_groups, group_size and decoding")
_PROMPT_TOKENS = flags.DEFINE_integer("prompt_tokens", 48, "length of every prompt", lower_bound=1)
_REPETITIONS = flags.DEFINE_integer("repetitions", 5, "turns of each", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOAL = 5.0


def main(argv: list[str]) -> None:
    del argv
    config = _CONFIG.value
    decoding = Decoding(**config.decoding)
    machine = timing.describe_machine("jax", "jaxlib", "flax")
    model_config = prepare()
    mesh = make_mesh({})
    model = Transformer(model_config)
    params = create_state(model, optax.identity(), mesh, seed=0).params
    sampler = Sampler(
        model,
        mesh,
        eos_id=model_config.vocab_size,  # is never drawn: every sample has its full length
        pad_id=0,
        decoding=decoding,
        group_size=config.group_size,
        batch_size=config.num_groups,
    )
    shape = (config.num_groups, _PROMPT_TOKENS.value)
    prompts = np.random.default_rng(0).integers(model_config.vocab_size, size=shape, dtype=np.int32)
    new_tokens = config.num_groups * config.group_size * decoding.max_new_tokens
    keys = iter(jax.random.split(jax.random.key(0), _REPETITIONS.value + 2))

    def sample():
        return sampler(params, prompts, range(config.num_groups), next(keys))

    def ours() -> float:
        started = time.perf_counter()
        sample()
        return time.perf_counter() - started

    drawn = sample()
    with LlamaPeer(
        model_config,
        params,
        task="rollout",
        settings={"group_size": config.group_size, **config.decoding},
        arrays={"prompts": prompts, "checked": np.concatenate([prompts, drawn.tokens[:, 0]], axis=1)},
    ) as peer:
        difference = peer.check(drawn.logprobs[:, 0])
        turns = timing.take_turns(ours, peer.run, _REPETITIONS.value)
    machine["versions"] |= peer.versions

    names = ("dsmath", "transformers")
    rates = {name: timing.summarize_rates(seconds, new_tokens) for name, seconds in zip(names, turns, strict=True)}
    ratio = rates["dsmath"]["median"] / rates["transformers"]["median"]
    timing.print_rates(
        f"{peer.parameters / 1e6:.2f} M parameters, {shape[0]} prompts of {shape[1]} tokens x {config.group_size} "
        f"samples x {decoding.max_new_tokens} new tokens a turn, {_REPETITIONS.value} turns, "
        f"{machine['threads']} threads; log-probabilities differ by {difference:.1e} at most",
        "new tokens/s",
        rates,
        machine,
    )
    if _JSON.value:
        figures = {"new_tokens_per_second": rates, "ratio": ratio, "goal": _GOAL, "difference": difference}
        work = {"prompt_tokens": _PROMPT_TOKENS.value, "config": config.to_dict()}
        write_json(_JSON.value, {**figures, **work, "machine": machine})
    timing.conclude("rollout_tokens_per_second", ratio, _GOAL)


if __name__ == "__main__":
    app.run(main)
