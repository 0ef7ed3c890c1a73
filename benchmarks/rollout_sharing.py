"""What sharing a question's keys and values with its samples saves: memory and time, on the CPU.

    python -m benchmarks.rollout_sharing [--prompt_tokens=1024 --group_size=64 …]

The same engine decodes a group twice: as one request, whose samples share the prompt, and as requests of one sample
each, which do not. The bytes are those of the arrays; the rates are tokens a second of processor time, the fastest of
the runs, with the prompts' own pass in them and without it. It ends with status 1 where the memory does not fall by
what arithmetic gives, G (P + T) / (P + G T) for prompts of P tokens and room for T.
"""

import time

import jax
import numpy as np
import optax
from absl import app, flags

from benchmarks import timing
from benchmarks.llama import use_nano
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Limits, Request
from dsmath.train.state import create_state

_PROMPT_TOKENS = flags.DEFINE_integer("prompt_tokens", 1024, "length of the prompt", lower_bound=2)
_GROUP_SIZE = flags.DEFINE_integer("group_size", 64, "samples", lower_bound=2)
_NEW_TOKENS = flags.DEFINE_integer("new_tokens", 64, "tokens of each sample", lower_bound=2)
_REPETITIONS = flags.DEFINE_integer("repetitions", 3, "runs of each", lower_bound=1)


def main(argv: list[str]) -> None:
    del argv
    machine = timing.describe_machine("jax", "jaxlib", "flax")
    config = use_nano()
    mesh = make_mesh({}, jax.devices()[:1])
    model = Transformer(config)
    params = create_state(model, optax.identity(), mesh, seed=0).params
    group, length, new = _GROUP_SIZE.value, _PROMPT_TOKENS.value, _NEW_TOKENS.value
    prompt = np.random.default_rng(0).integers(config.vocab_size, size=length).tolist()
    print(f"prompt of {length} tokens, {group} samples of {new} tokens; load {machine['load']:.1f} before the start")
    print(f"{'':<12}{'KV MiB':>10}{'tokens/s':>12}{'decoding':>12}")
    taken = {}
    for name, rows in (("shared", 1), ("not shared", group)):
        limits = Limits(
            rows=rows,
            width=group // rows,
            prompt_buckets=(length,),
            new_buckets=(new,),
            block_steps=16,
            prefill_tokens=2048,
            max_stop_ids=1,
            cache_dtype="float32",
        )
        engine = Engine(model, mesh, limits, pad_id=0)

        def run(tokens: int, engine=engine, rows=rows) -> float:
            decoding = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=tokens)
            requests = [Request(row, prompt, group // rows, decoding) for row in range(rows)]
            started = time.process_time()
            assert len(list(engine.generate(params, requests, jax.random.key(0)))) == group
            return time.process_time() - started

        run(new)
        taken[name] = sum(leaf.nbytes for leaf in jax.tree.leaves(engine.programs.create()))
        whole, first = (np.min([run(tokens) for _ in range(_REPETITIONS.value)]) for tokens in (new, 1))
        decoding_rate = group * (new - 1) / (whole - first)
        print(f"{name:<12}{taken[name] / 2**20:>10.1f}{group * new / whole:>12,.0f}{decoding_rate:>12,.0f}")
    expected = group * (length + new) / (length + group * new)
    timing.conclude("rollout_sharing_memory", taken["not shared"] / taken["shared"], round(expected, 3))


if __name__ == "__main__":
    app.run(main)
