"""Low-rank adapters: small matrices that learn beside frozen ones, for the RL of a 7B on one device.

An adapted weight is W + A·B, computed a layer at a time; adapters lie in the parameters' tree beside their weights
(`q_lora_a`, `q_lora_b`), so that the model, the sampler and the losses need nothing else. Source: Hu et al. 2021; ours:
the scale alpha / rank is 1, the learning rate does its work.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax import Array

from dsmath.model.config import ModelConfig
from dsmath.model.transformer import Transformer, init_params
from dsmath.runs.errors import InputError

_FAN_IN = {"q": 1, "k": 1, "v": 1, "out": 2, "gate": 1, "up": 1, "down": 1}  # axes of each matrix, after the layers'


def frozen_config(config: ModelConfig) -> ModelConfig:
    """Of the model beside adapters: its matrices stay as they are and need no more digits than they are used in."""
    return dataclasses.replace(config, param_dtype=config.dtype)


def init_adapters(model: Transformer, rank: int, key: Array) -> Any:
    """New adapters of every matrix in the layers, with Flax's boxes; A is random, B is zero: they change nothing yet.

    Args:
      model: the decoder.
      rank: of A [layers, fan-in axes, rank] and B [layers, rank, fan-out axes].
      key: of A.
    Raises:
      InputError: a rank below 1.
    """
    if rank < 1:
        raise InputError(f"config.lora.rank: {rank} must be at least 1")
    boxed = jax.eval_shape(lambda key: init_params(model, key), key)
    adapters = {}
    leaves = traverse_util.flatten_dict(boxed, is_leaf=lambda _, leaf: isinstance(leaf, nn.Partitioned))
    for index, (path, leaf) in enumerate(sorted(leaves.items(), key=lambda item: item[0])):
        if path[-1] not in _FAN_IN:
            continue
        inputs = _FAN_IN[path[-1]] + 1
        shape, axes = leaf.value.shape, leaf.names
        fan_in = shape[1:inputs]
        down = jax.random.normal(jax.random.fold_in(key, index), (shape[0], *fan_in, rank))
        down /= jnp.sqrt(jnp.prod(jnp.array(fan_in)))
        up = jnp.zeros((shape[0], rank, *shape[inputs:]))
        for part, value, names in (("a", down, (*axes[:inputs], "rank")), ("b", up, (axes[0], "rank", *axes[inputs:]))):
            adapters[(*path[:-1], f"{path[-1]}_lora_{part}")] = nn.Partitioned(value, names)
    return traverse_util.unflatten_dict(adapters)


def join(base: Any, adapters: Any) -> Any:
    """The parameters with their adapters, as the model takes them."""
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(base) | traverse_util.flatten_dict(adapters))


def merge(base: Any, adapters: Any) -> Any:
    """Plain parameters that compute the same: W + A·B, in the base's dtype."""
    flat, found = traverse_util.flatten_dict(base), traverse_util.flatten_dict(adapters)
    multiply = jax.vmap(lambda down, up: jnp.tensordot(down, up, 1))
    merged = dict(flat)
    for path, down in found.items():
        if path[-1].endswith("_lora_a"):
            target = (*path[:-1], path[-1].removesuffix("_lora_a"))
            product = multiply(down, found[(*path[:-1], path[-1][:-1] + "b")])
            merged[target] = (flat[target] + product).astype(flat[target].dtype)
    return traverse_util.unflatten_dict(merged)
