"""Tunix's side of rollout.py, its Llama with our weights; started by it with the Python of Tunix's own environment.

It reads JSON lines from standard input, first the job, then requests, and answers each with one line.
"""

import functools
import json
import sys
import time
from importlib import metadata
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tunix.generate import sampler as sampler_lib
from tunix.models.llama3 import model as llama


class Numbers:
    """Token ids as text: what Tunix's sampler takes in."""

    def encode(self, text: str, **_) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int], **_) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0  # none is put before the prompt

    def eos_id(self) -> int:
        return 0

    def pad_id(self) -> int:
        return 0


def main() -> None:
    answers, job, arrays, model = start()
    requests = rollout(model, job, arrays["prompts"], arrays["checked"])
    say(answers, ready(model))
    for line in sys.stdin:
        say(answers, requests[json.loads(line)["do"]]())


def start() -> tuple[TextIO, dict[str, Any], dict[str, np.ndarray], llama.Llama3]:
    """Where answers go, the job, its arrays, and a model with our weights."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the library prints must not mix with the answers
    job = json.loads(sys.stdin.readline())
    with np.load(job["file"]) as file:
        arrays = {name: file[name] for name in file.files}
    weights = {name.removeprefix("weights/"): arrays[name] for name in arrays if "weights/" in name}
    return answers, job, arrays, build(job["shape"], weights)


def say(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


def ready(model: llama.Llama3) -> dict[str, Any]:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    return {"versions": {"google-tunix": metadata.version("google-tunix")}, "parameters": parameters}


def build(shape: dict[str, Any], weights: dict[str, np.ndarray]) -> llama.Llama3:
    """Tunix's model with weights under Hugging Face's names."""
    width, heads, head_dim = shape["hidden_size"], shape["num_attention_heads"], shape["head_dim"]
    config = llama.ModelConfig(
        num_layers=shape["num_hidden_layers"],
        vocab_size=shape["vocab_size"],
        embed_dim=width,
        hidden_dim=shape["intermediate_size"],
        num_heads=heads,
        head_dim=head_dim,
        num_kv_heads=shape["num_key_value_heads"],
        rope_theta=shape["rope_theta"],
        norm_eps=shape["rms_norm_eps"],
    )
    # Tunix 0.1.7 does not pass its config's theta on to the function that rotates.
    llama.apply_rope = functools.partial(llama.apply_rope, rope_theta=config.rope_theta)
    model = llama.Llama3(config, rngs=nnx.Rngs(0))

    def put(param: nnx.Param, name: str, shape: tuple[int, ...] | None = None) -> None:
        value = weights[name] if name.endswith(("norm.weight", "embed_tokens.weight")) else weights[name].T
        value = value.reshape(shape) if shape else value
        assert param.shape == value.shape, name
        param.set_value(jnp.asarray(value))

    put(model.embedder.input_embedding, "model.embed_tokens.weight")
    put(model.final_norm.w, "model.norm.weight")
    put(model.lm_head.w, "lm_head.weight")
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}"
        put(layer.input_layernorm.w, f"{prefix}.input_layernorm.weight")
        put(layer.post_attention_layernorm.w, f"{prefix}.post_attention_layernorm.weight")
        for name, count in (("q", heads), ("k", config.num_kv_heads), ("v", config.num_kv_heads)):
            projection = getattr(layer.attn, f"{name}_proj")
            put(projection.w, f"{prefix}.self_attn.{name}_proj.weight", (width, count, head_dim))
        put(layer.attn.o_proj.w, f"{prefix}.self_attn.o_proj.weight", (heads, head_dim, width))
        for name in ("gate", "up", "down"):
            put(getattr(layer.mlp, f"{name}_proj").kernel, f"{prefix}.mlp.{name}_proj.weight")
    return model


def rollout(model: llama.Llama3, job: dict[str, Any], prompts: np.ndarray, checked: np.ndarray) -> dict[str, Any]:
    """Samples of `prompts` [questions, length], which end with any of `stop_ids`; `checked` as in llama_peer.py."""
    length = prompts.shape[1]
    config = model.config
    cache = sampler_lib.CacheConfig(
        cache_size=length + job["max_new_tokens"] + 1,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    sampler = sampler_lib.Sampler(model, Numbers(), cache)
    texts = [" ".join(map(str, prompt)) for prompt in prompts for _ in range(job["group_size"])]
    seeds = iter(range(1000))

    def run() -> dict[str, Any]:
        started, lengths, first = time.perf_counter(), [], []
        for start in range(0, len(texts), job["batch_size"]):
            output = sampler(
                texts[start : start + job["batch_size"]],
                max_generation_steps=job["max_new_tokens"],
                max_prompt_length=length,
                eos_tokens=job["stop_ids"],
                temperature=job["temperature"],
                top_p=job["top_p"],
                seed=next(seeds),
            )
            # What is given back ends before the stop id.
            lengths += [min(len(tokens) + 1, job["max_new_tokens"]) for tokens in output.tokens]
            first += [int(tokens[0]) if len(tokens) else -1 for tokens in output.tokens]
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "cpu_seconds": time.process_time(), "lengths": lengths, "first": first}

    return {"run": run, "check": lambda: nats(model, checked, length)}


def nats(model: llama.Llama3, checked: np.ndarray, length: int) -> dict[str, Any]:
    """Log-probabilities of what follows `length` tokens of each row."""
    tokens = jnp.asarray(checked)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool)), (len(tokens), *tokens.shape[1:] * 2))
    logits, _ = model(tokens, positions, None, mask)
    logprobs = jax.nn.log_softmax(logits)[:, length - 1 : -1]
    return {"nats": jnp.take_along_axis(logprobs, tokens[:, length:, None], axis=-1)[..., 0].tolist()}


if __name__ == "__main__":
    main()
