"""Looks into a checkpoint: sizes of its weights, where its heads look, what each layer would say."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jax import Array

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.attention import causal_mask
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Attention, Block, RMSNorm, Transformer
from dsmath.runs.errors import InputError
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model as it was saved."""

    model: Transformer
    params: Any
    tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True)
class Trace:
    """One text on its way through a model.

    Attributes:
      tokens: the text's tokens, as pieces [length].
      stream: float32 [layers + 1, length, width], the residual stream before each layer and after the last.
      attention: float32 [layers, heads, length, length], what each head's queries (rows) look at; rows sum to 1.
      logprobs: float32 [layers + 1, length, vocab], the next token's if the stream were read there: the "logit lens"
        (nostalgebraist 2020). The last one is the model's own.
    """

    tokens: list[str]
    stream: np.ndarray
    attention: np.ndarray
    logprobs: np.ndarray


def load(workdir: str | os.PathLike, step: int = 0) -> Checkpoint:
    """Reads a checkpoint onto one device.

    Args:
      workdir: of the run that made it.
      step: of the checkpoint; 0: the newest.
    """
    model = Transformer(read_model(workdir, "workdir", step))
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    params = read_params(workdir, abstract_params(model, mesh), "workdir", step)
    return Checkpoint(model, meta.unbox(params), Tokenizer.load(workdir, "workdir"))


def weight_norms(params: Any) -> dict[str, np.ndarray]:
    """The root mean square of each weight of the decoder's layers by name, float32 [layers]."""
    leaves = jax.tree.leaves_with_path(params["params"]["blocks"])
    return {
        "/".join(str(key.key) for key in path): np.sqrt(
            np.mean(np.square(np.asarray(leaf, np.float32)), axis=tuple(range(1, leaf.ndim)))
        )
        for path, leaf in leaves
    }


def trace(checkpoint: Checkpoint, text: str) -> Trace:
    """Runs a text through the model, layer by layer.

    Raises:
      InputError: the text is empty.
    """
    model, params, tokenizer = checkpoint.model, checkpoint.params, checkpoint.tokenizer
    if not text:
        raise InputError("text: empty; write a few words")
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    tokens = jnp.array([ids], jnp.int32)
    positions, segments = jnp.arange(len(ids), dtype=jnp.int32)[None], jnp.ones_like(tokens)
    config = dataclasses.replace(model.config, attention="xla")

    @jax.jit
    def run(layer: Any, x: Array) -> tuple[Array, Array]:
        after, _ = Block(config).apply({"params": layer}, x, positions, segments)
        return after, _attention(config, layer, x, positions, segments)

    @jax.jit
    def read(x: Array) -> Array:
        normalized = model.apply(params, x, method="normalize")
        return jax.nn.log_softmax(model.apply(params, normalized, method="logits"))

    stream, maps = [jax.jit(functools.partial(model.apply, method="embed"))(params, tokens)], []
    for layer in _layers(params):
        x, weights = run(layer, stream[-1])
        stream.append(x)
        maps.append(np.asarray(weights))
    return Trace(
        tokens=[tokenizer.decode([token]) or "<bos>" for token in ids],
        stream=np.stack([np.asarray(x[0], np.float32) for x in stream]),
        attention=np.stack(maps),
        logprobs=np.stack([np.asarray(read(x)[0]) for x in stream]),
    )


def stream_norms(found: Trace) -> np.ndarray:
    """The root mean square of the residual stream, float32 [layers + 1, length]."""
    return np.sqrt(np.mean(np.square(found.stream), axis=-1))


def likeliest(found: Trace, tokenizer: Tokenizer) -> tuple[list[list[str]], np.ndarray]:
    """The likeliest next token at each layer and place, as text, and its probability [layers + 1, length]."""
    best = found.logprobs.argmax(axis=-1)
    probability = np.exp(np.take_along_axis(found.logprobs, best[..., None], axis=-1)[..., 0])
    return [[tokenizer.decode([int(token)]) for token in row] for row in best], probability


def _layers(params: Any) -> Iterator[Any]:
    """The parameters of each layer, which are stored in one array."""
    blocks = jax.tree.map(np.asarray, params["params"]["blocks"])
    for number in range(jax.tree.leaves(blocks)[0].shape[0]):
        yield jax.tree.map(lambda leaf, number=number: leaf[number], blocks)


def _attention(config: Any, layer: Any, x: Array, positions: Array, segments: Array) -> Array:
    """The weights of one layer's attention, float32 [heads, length, length]."""
    normalized = RMSNorm(config).apply({"params": layer["attention_norm"]}, x)
    query, key, _ = Attention(config).apply({"params": layer["attention"]}, normalized, positions, method="_project")
    key = jnp.repeat(key, config.num_heads // config.num_kv_heads, axis=2)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32) / config.head_dim**0.5
    scores = jnp.where(causal_mask(segments)[:, None], scores, -jnp.inf)
    return jax.nn.softmax(scores)[0]


def sharpest_heads(found: Trace, count: int) -> Sequence[tuple[int, int]]:
    """The (layer, head) pairs whose attention is spread least, by mean entropy over the text."""
    attention = found.attention
    entropy = -(attention * np.log(np.maximum(attention, 1e-30))).sum(axis=-1).mean(axis=-1)
    order = np.argsort(entropy, axis=None)[:count]
    return [tuple(int(index) for index in np.unravel_index(place, entropy.shape)) for place in order]
