"""The decoder at generation: a cache whose prefixes are shared, its filling, one token at a time; and groups whole."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dsmath.model import attention
from dsmath.model.attention import Stored
from dsmath.model.config import ModelConfig
from dsmath.model.precision import cast_matrices
from dsmath.model.transformer import Block, Transformer, rematerialize


@struct.dataclass
class Cache:
    """Keys and values of what is being decoded: rows hold a question each, and `width` samples of it.

    The layers are apart, not stacked: one array of all layers would be copied at every token.

    Attributes:
      prefix: of each layer, the rows' questions [rows, …, prefix_length, …]; see `Stored`.
      suffix: of each layer, the samples' own tokens [rows, width, …, suffix_length, …].
    """

    prefix: tuple[Stored, ...]
    suffix: tuple[Stored, ...]


def empty_cache(
    config: ModelConfig, rows: int, width: int, prefix_length: int, suffix_length: int, dtype: jnp.dtype
) -> Cache:
    """A cache that holds nothing yet.

    Args:
      config: the model's.
      rows, width, prefix_length, suffix_length: see `Cache`.
      dtype: of what is stored: float32, bfloat16 or int8.
    """

    def empty(shape: tuple[int, ...], length: int) -> Stored:
        keys = jax.ShapeDtypeStruct((*shape, length, config.num_kv_heads, config.head_dim), jnp.float32)
        stored = jax.eval_shape(lambda key, value: attention.store(key, value, dtype), keys, keys)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), stored)

    layers = range(config.num_layers)
    return Cache(
        prefix=tuple(empty((rows,), prefix_length) for _ in layers),
        suffix=tuple(empty((rows, width), suffix_length) for _ in layers),
    )


def unstack(params: Any, config: ModelConfig, joined: bool = False) -> Any:
    """Parameters as generation reads them: a tuple of layers, matrices in the computation's dtype.

    Norms and adapters keep their dtype; see `cast_matrices`.

    Args:
      params: as in training, layers stacked.
      config: the model's.
      joined: whether the matrices that read the same input become one, where they have no adapters: of the few rows of
        a decode step a GPU makes one large product faster than three small ones.
    """

    params = cast_matrices(params, config)["params"]
    layers = (jax.tree.map(lambda leaf, n=layer: leaf[n], params["blocks"]) for layer in range(config.num_layers))
    layers = tuple(_join(layer) if joined else layer for layer in layers)
    return {"params": {name: leaf for name, leaf in params.items() if name != "blocks"}, "blocks": layers}


def _join(layer: Any) -> Any:
    joined = dict(layer)
    for module, names, whole in (("attention", ("q", "k", "v"), "qkv"), ("mlp", ("gate", "up"), "gate_up")):
        weights = dict(layer[module])
        if not any("_lora_" in name for name in weights):
            weights[whole] = jnp.concatenate([weights.pop(name) for name in names], axis=1)
        joined[module] = weights
    return joined


def run_prompts(
    model: Transformer, params: Any, tokens: Array, lengths: Array
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Runs prompts whole.

    Args:
      params: as `unstack` gives them.
      tokens: int32 [prompts, length], padded on the right.
      lengths: int32 [prompts].
    Returns:
      hidden [prompts, length, width] and each layer's keys and values [prompts, length, kv_heads, head_dim].
    """
    model = _plain(model)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    segment_ids = (positions < lengths[:, None]).astype(jnp.int32)
    block = Block(model.config)
    x, keys_values = _outside(model, params, tokens, "embed"), []
    for weights in params["blocks"]:
        x, of_layer = block.apply({"params": weights}, x, positions, segment_ids)
        keys_values.append(of_layer)
    return _outside(model, params, x, "normalize"), keys_values


def fill(model: Transformer, params: Any, cache: Cache, tokens: Array, lengths: Array, rows: Array) -> Cache:
    """Runs questions and stores their keys and values.

    Args:
      params: as `unstack` gives them.
      cache: is changed in these rows.
      tokens: int32 [questions, length], padded on the right; at most the cache's prefix_length.
      lengths: int32 [questions].
      rows: int32 [questions], where each goes; a number past the last row goes nowhere.
    """
    _, keys_values = run_prompts(model, params, tokens, lengths)
    prefix = []
    for old, (key, value) in zip(cache.prefix, keys_values, strict=True):
        new = attention.store(key, value, old.value.dtype)
        length = tokens.shape[1]
        prefix.append(
            Stored(
                key=old.key.at[rows, :, :, :length].set(new.key, mode="drop"),
                value=old.value.at[rows, :, :length].set(new.value, mode="drop"),
                **{
                    name: None
                    if getattr(old, name) is None
                    else getattr(old, name).at[rows, :, :length].set(getattr(new, name), mode="drop")
                    for name in ("key_scale", "value_scale")
                },
            )
        )
    return cache.replace(prefix=tuple(prefix))


def decode(
    model: Transformer, params: Any, tokens: Array, prefix_lengths: Array, lengths: Array, cache: Cache
) -> tuple[Array, Cache]:
    """Advances every sample by one token.

    Args:
      params: as `unstack` gives them.
      tokens: int32 [rows, width], what is read now.
      prefix_lengths: int32 [rows], tokens of the rows' prefixes; 0 is allowed.
      lengths: int32 [rows, width], tokens of each sample read before; the token is written there.
    Returns:
      logits float32 [rows, width, vocab] and the cache with the tokens' keys and values in it.
    """
    block, suffix = Block(model.config), []
    positions = (prefix_lengths[:, None] + lengths)[..., None]
    x = _outside(model, params, tokens[..., None], "embed")  # [rows, width, 1, model's width]
    own_mask = (
        jnp.arange(cache.suffix[0].value.shape[-2]) <= lengths[..., None, None]
    )  # [rows, width, 1, suffix_length]
    for weights, prefix, past in zip(params["blocks"], cache.prefix, cache.suffix, strict=True):
        mask = jnp.arange(prefix.value.shape[-2]) < prefix_lengths[:, None]
        x, own = block.apply({"params": weights}, x, positions, prefix, mask, own_mask, past, lengths, method="extend")
        suffix.append(own)
    logits = _outside(model, params, _outside(model, params, x[:, :, 0], "normalize"), "logits")
    return logits, cache.replace(suffix=tuple(suffix))


def logits(model: Transformer, params: Any, hidden: Array) -> Array:
    """hidden [..., width] -> float32 [..., vocab], with parameters as `unstack` gives them."""
    return _outside(model, params, hidden, "logits")


def _outside(model: Transformer, params: Any, x: Array, method: str) -> Array:
    """What stands before and after the layers."""
    return model.apply({"params": params["params"]}, x, method=method)


def group_hidden(
    model: Transformer,
    params: Any,
    prompts: Array,
    prompt_lengths: Array,
    rows: Array,
    segments: Array,
    offsets: Array,
) -> tuple[Array, Array]:
    """The last hidden states of groups' completions, packed into rows; each prompt is run once for its whole group.

    The same numbers as a plain forward pass over prompt and completion, at a fraction of its cost.

    Args:
      params: as in training, layers stacked.
      prompts: int32 [questions, prefix_length], padded on the right.
      prompt_lengths: int32 [questions], at least 1.
      rows: int32 [questions, rows, length], tokens of completions, one completion after another.
      segments: int32 of the same shape: a number for each completion of a row; 0 is padding.
      offsets: int32 of the same shape: the token's place in its completion.
    Returns:
      two arrays [questions, rows, length, width]: the state that predicts each token, which is that of the token before
      it or the prompt's last one, and the state after the token was read. At padding they mean nothing.
    """
    model = _plain(model)
    slots = jnp.broadcast_to(jnp.arange(prompts.shape[1], dtype=jnp.int32), prompts.shape)
    valid = slots < prompt_lengths[:, None]
    hidden, prefix = model.apply(params, prompts, slots, valid.astype(jnp.int32))
    last = jnp.take_along_axis(hidden, (prompt_lengths - 1)[:, None, None], axis=1)[:, None]  # [questions, 1, 1, width]
    positions = prompt_lengths[:, None, None] + offsets
    block = Block(model.config)

    def layer(x: Array, weights_and_prefix: tuple[Any, tuple[Array, Array]]) -> tuple[Array, None]:
        weights, of_prompt = weights_and_prefix
        return block.apply({"params": weights}, x, positions, segments, of_prompt, valid, method="after_prefix"), None

    x = model.apply(params, rows, method="embed")
    x, _ = jax.lax.scan(rematerialize(layer, model.config.remat), x, (params["params"]["blocks"], prefix))
    at = model.apply(params, x, method="normalize")
    before = jnp.pad(at[:, :, :-1], [(0, 0), (0, 0), (1, 0), (0, 0)])
    return jnp.where((offsets == 0)[..., None], last, before), at


def _plain(model: Transformer) -> Transformer:
    """The same model without a flash kernel, which takes neither a prompt's length nor every dtype."""
    return Transformer(dataclasses.replace(model.config, attention="xla"))
