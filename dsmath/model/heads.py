"""A scalar head beside the decoder: what a reward model or a value model puts where the logits were."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array


class ScalarHead(nn.Module):
    """One number a position: `ScalarHead().apply(params, hidden)`, hidden [..., width] -> float32 [...].

    It starts at zero: an untrained critic values everything alike.
    """

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        weight = self.param("weight", nn.with_partitioning(nn.initializers.zeros, ("embed",)), (hidden.shape[-1],))
        return jnp.einsum("...d,d->...", hidden, weight.astype(hidden.dtype), preferred_element_type=jnp.float32)
