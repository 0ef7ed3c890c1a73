"""The gradient coefficient of each token: how hard a method pulls it up or pushes it down."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

# Bins of the coefficients' histogram: a middle one for what teaches nothing, then half octaves to both sides; ours.
_MAGNITUDES = np.exp2(np.arange(-10.0, 4.5, 0.5))
EDGES = np.concatenate([-_MAGNITUDES[::-1], _MAGNITUDES]).astype(np.float32)


def gradient_coefficients(objective: Callable[[Any], Array], logprobs: Any, mask: Any) -> Any:
    """GC of every token, by differentiating an objective over arrays: grad J = E[1/|o| sum_t GC_t grad log pi(o_t)].

    No gradient flows into them or through them: the model is not run, and not differentiated, once more.

    Args:
      objective: log-probabilities to the sum of a loss over outputs (DPO: over pairs), each output's tokens averaged.
        Where the sum is over tokens that all count alike, the coefficients are |o| times those of the tokens.
      logprobs: float32 [..., length], or a tree of such arrays, as `objective` takes it.
      mask: of the same shapes, 1 on the tokens of the outputs.
    Returns:
      float32 of the same shapes; 0 where there is no token that the policy chose.
    Source: DeepSeekMath §5.2.1, eq. 5.
    """
    gradients = jax.grad(objective)(jax.tree.map(stop_gradient, logprobs))
    return jax.tree.map(
        lambda gradient, ones: stop_gradient(jnp.where(ones > 0, -gradient * ones.sum(axis=-1, keepdims=True), 0.0)),
        gradients,
        mask,
    )


def histogram(values: Array, mask: Array, edges: Array = EDGES) -> Array:
    """How many values lie in each bin; the outermost bins take all that lies beyond them.

    Args:
      values, mask: float32 of one shape; a value counts where the mask is 1.
      edges: float32 [bins + 1], ascending.
    Returns:
      float32 [bins]. Counts of parts of a batch may be added.
    """
    inner = jnp.asarray(edges)[1:-1]
    # Sums, not a scatter: they are right on any mesh.
    above = jax.vmap(lambda edge: (mask * (values >= edge)).sum())(inner)
    total = mask.sum()[None]
    return jnp.concatenate([total, above]) - jnp.concatenate([above, jnp.zeros(1)])
