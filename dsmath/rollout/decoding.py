"""From logits to the next token: greedy, temperature, top-p."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from dsmath.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How tokens are drawn.

    Attributes:
      temperature: 0 is greedy.
      top_p: the smallest set of tokens with this much probability is kept; 1 keeps all.
      max_new_tokens: most tokens of a sample, the end-of-sequence token counted.
    """

    temperature: float
    top_p: float
    max_new_tokens: int

    def __post_init__(self):
        if self.temperature < 0:
            raise InputError(f"temperature: {self.temperature} is negative; 0 is greedy")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p: {self.top_p} is not in (0, 1]")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens: {self.max_new_tokens} must be at least 1")


def draw(logits: Array, keys: Array, decoding: Decoding) -> tuple[Array, Array]:
    """Draws one token a row.

    Args:
      logits: float32 [rows, vocab].
      keys: random keys [rows]; a row's draw depends on its own key alone.
    Returns:
      tokens int32 [rows] and their log-probabilities [rows] under the untempered policy, which is what the
      training forward pass computes.
    """
    if decoding.temperature == 0:
        tokens = jnp.argmax(logits, axis=-1)
    else:
        tempered = logits / decoding.temperature
        if decoding.top_p < 1:
            tempered = _keep_top_p(tempered, decoding.top_p)
        tokens = jax.vmap(jax.random.categorical)(keys, tempered)
    logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), logprobs


def _keep_top_p(logits: Array, top_p: float) -> Array:
    """Sets the logits outside the nucleus to minus infinity; the most likely token always stays."""
    descending = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # probability of all more likely tokens
    least = jnp.min(jnp.where(before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)
