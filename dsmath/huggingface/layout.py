"""Where each of our parameters lies in a Hugging Face checkpoint, and in which shape."""

import dataclasses
import functools
import math
import operator
from typing import Any

import numpy as np

from dsmath.model.config import ModelConfig

OUTPUT = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
_LAYER = "model.layers.{layer}."
_NORM = "model.norm.weight"


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One of our parameters; that of a layer is stacked over the layers.

    Attributes:
      path: keys of our params tree.
      name: of their tensor; `{layer}` stands for the layer's number.
      shape: ours, of one layer.
      their_shape: a matrix is [out, in], a vector is flat.
      transposed: whether ours is [in…, out…].
      layers: layers that are stacked; None: no layer's.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]
    transposed: bool
    layers: int | None

    @property
    def stacked_shape(self) -> tuple[int, ...]:
        """The shape of our array."""
        return self.shape if self.layers is None else (self.layers, *self.shape)

    def names(self) -> list[str]:
        """The names of their tensors, in our order."""
        return [self.name.format(layer=layer) for layer in range(self.layers or 1)]

    def from_theirs(self, tensor: np.ndarray) -> np.ndarray:
        """Their tensor in our shape; it shares memory, so that it can be read from and written to."""
        return (tensor.T if self.transposed else tensor).reshape(self.shape)

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """One layer of our array in their shape; it shares memory."""
        return array.reshape(self.their_shape[::-1]).T if self.transposed else array.reshape(self.their_shape)


def leaves(config: ModelConfig) -> list[Leaf]:
    """All parameters of a model."""
    width, mlp, heads = (config.width,), (config.mlp_width,), (config.num_heads, config.head_dim)
    kv_heads = (config.num_kv_heads, config.head_dim)

    def matrix(path: str, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Leaf:
        theirs = (math.prod(outputs), math.prod(inputs))
        return Leaf(("params", "blocks", *path.split("/")), _LAYER + name, inputs + outputs, theirs, True, layers)

    def vector(path: str, name: str, shape: tuple[int, ...]) -> Leaf:
        theirs = (math.prod(shape),)
        return Leaf(("params", "blocks", *path.split("/")), _LAYER + name, shape, theirs, False, layers)

    layers, table = config.num_layers, (config.vocab_size, config.width)
    found = [
        Leaf(("params", "embedding"), EMBEDDING, table, table, False, None),
        matrix("attention/q", "self_attn.q_proj.weight", width, heads),
        matrix("attention/k", "self_attn.k_proj.weight", width, kv_heads),
        matrix("attention/v", "self_attn.v_proj.weight", width, kv_heads),
        matrix("attention/out", "self_attn.o_proj.weight", heads, width),
        matrix("mlp/gate", "mlp.gate_proj.weight", width, mlp),
        matrix("mlp/up", "mlp.up_proj.weight", width, mlp),
        matrix("mlp/down", "mlp.down_proj.weight", mlp, width),
        vector("attention_norm/scale", "input_layernorm.weight", width),
        vector("mlp_norm/scale", "post_attention_layernorm.weight", width),
        Leaf(("params", "final_norm", "scale"), _NORM, width, width, False, None),
    ]
    if config.attention_bias:
        found += [
            vector("attention/q_bias", "self_attn.q_proj.bias", heads),
            vector("attention/k_bias", "self_attn.k_proj.bias", kv_heads),
            vector("attention/v_bias", "self_attn.v_proj.bias", kv_heads),
        ]
    if not config.tied:
        found.append(Leaf(("params", "output"), OUTPUT, table[::-1], table, True, None))
    return found


def tensors(config: ModelConfig) -> dict[str, tuple[Leaf, int]]:
    """Every tensor of a checkpoint by name: the parameter that it belongs to, and the number of its layer, or 0.

    They stand in the model's order: the embedding, layer after layer, the final norm, the output.
    """
    found = [(name, leaf, layer) for leaf in leaves(config) for layer, name in enumerate(leaf.names())]
    found.sort(key=lambda item: (item[0] in (_NORM, OUTPUT), item[0] != EMBEDDING, item[2]))  # stable
    return {name: (leaf, layer) for name, leaf, layer in found}


def state_dict(config: ModelConfig, params: Any) -> dict[str, np.ndarray]:
    """A model in memory under their names and in their shapes, without a copy where it is on the host.

    Args:
      config: the model's.
      params: its parameters.
    """
    found = {}
    for leaf in leaves(config):
        array = np.asarray(functools.reduce(operator.getitem, leaf.path, params)).reshape(-1, *leaf.shape)
        found |= {name: leaf.to_theirs(part) for name, part in zip(leaf.names(), array, strict=True)}
    return found
