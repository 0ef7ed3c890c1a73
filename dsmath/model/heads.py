"""A scalar head on the decoder: what a reward model or a critic puts where the logits were."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dsmath.model.config import ModelConfig
from dsmath.model.transformer import Transformer


class ScalarHead(nn.Module):
    """One number a position: `ScalarHead().apply(params, hidden)`, hidden [..., width] -> float32 [...].

    It starts at zero: an untrained critic values everything alike.
    """

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        weight = self.param("weight", nn.with_partitioning(nn.initializers.zeros, ("embed",)), (hidden.shape[-1],))
        return jnp.einsum("...d,d->...", hidden, weight.astype(hidden.dtype), preferred_element_type=jnp.float32)


class ValueModel(Transformer):
    """The decoder with a scalar head, `params["params"]["head"]`, in place of the output matrix."""

    def setup(self):
        super().setup()
        self.head = ScalarHead()

    def init_all(self, tokens: Array, positions: Array, segment_ids: Array) -> Array:
        hidden, _ = self(tokens, positions, segment_ids)
        return self.head(hidden)


def headless(config: ModelConfig) -> ModelConfig:
    """The same decoder without an output matrix: a model that is tied has none of its own."""
    return dataclasses.replace(config, tied=True)
