"""From logits to the next token: greedy, temperature, top-k, top-p, min-p, repetition penalty, mixed in one batch."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from dsmath.runs.errors import InputError

LEAST = 1e-6  # top_p and repetition_penalty; what float32 has as 0 would leave no token to draw
MOST = 1e6  # repetition_penalty
_TINIEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How the tokens of a request are drawn; the fields with a value here are off by it.

    Attributes:
      temperature: 0 is greedy.
      top_p: the smallest set of tokens with this much probability is kept; 1 keeps all.
      max_new_tokens: most tokens of a sample: the end-of-sequence token and what tools said are counted.
      top_k: so many of the likeliest tokens are kept; 0 keeps all.
      min_p: tokens below this share of the likeliest one's probability are left out.
      repetition_penalty: divides positive logits of tokens that the prompt or the sample holds already, multiplies
        negative ones (Keskar et al. 2019).
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature: {self.temperature} is negative or no number; 0 is greedy")
        if self.temperature and not _TINIEST <= self.temperature <= _LARGEST:
            raise InputError(f"temperature: {self.temperature} is no number of float32 other than 0; 0 is greedy")
        if not LEAST <= self.top_p <= 1:
            raise InputError(f"top_p: {self.top_p} is not in [{LEAST}, 1]")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens: {self.max_new_tokens} must be at least 1")
        if self.top_k < 0:
            raise InputError(f"top_k: {self.top_k} is negative; 0 keeps all tokens")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p: {self.min_p} is not in [0, 1]")
        if not LEAST <= self.repetition_penalty <= MOST:
            raise InputError(f"repetition_penalty: {self.repetition_penalty} is not in [{LEAST}, {MOST:.0f}]; 1 is off")

    @classmethod
    def read(cls, fields: Mapping[str, float]) -> "Decoding":
        """The decoding of a config.

        Args:
          fields: `config.decoding`.
        Raises:
          InputError: names the field.
        """
        try:
            return cls(**fields)
        except InputError as error:
            raise InputError(f"config.decoding.{error}") from error


@struct.dataclass
class Settings:
    """The decoding of many rows as arrays [rows], so that one program draws for any mixture.

    Attributes:
      temperature, top_p, top_k, min_p, repetition_penalty: as in `Decoding`.
      sorts: whether any row needs its logits sorted (top-k, top-p); a program without the sort is much faster.
    """

    temperature: Array
    top_p: Array
    top_k: Array
    min_p: Array
    repetition_penalty: Array
    sorts: bool = struct.field(pytree_node=False)

    @classmethod
    def stack(cls, rows: Sequence[Decoding]) -> "Settings":
        """On the host, one entry a row."""
        return cls(
            temperature=np.array([row.temperature for row in rows], np.float32),
            top_p=np.array([row.top_p for row in rows], np.float32),
            top_k=np.array([row.top_k for row in rows], np.int32),
            min_p=np.array([row.min_p for row in rows], np.float32),
            repetition_penalty=np.array([row.repetition_penalty for row in rows], np.float32),
            sorts=any(row.temperature > 0 and (row.top_p < 1 or row.top_k > 0) for row in rows),
        )


def draw(logits: Array, keys: Array, settings: Settings, seen: Array | None = None) -> tuple[Array, Array]:
    """Draws one token a row.

    Args:
      logits: float32 [rows, vocab].
      keys: random keys [rows]; a row's draw depends on its own key alone.
      settings: of the rows.
      seen: bool [rows, vocab], tokens that the repetition penalty is laid on; None: no row has one.
    Returns:
      tokens int32 [rows] and their log-probabilities [rows] under the untempered policy, which is what the
      training forward pass computes.
    """
    adjusted = logits
    if seen is not None:
        penalty = settings.repetition_penalty[:, None]
        adjusted = jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)
    highest = adjusted.max(axis=-1, keepdims=True)
    greedy = settings.temperature == 0
    # The likeliest token stands at 0, so that nothing overflows however low the temperature is.
    tempered = (adjusted - highest) / jnp.where(greedy, 1.0, settings.temperature)[:, None]
    if settings.sorts:
        tempered = _keep_likeliest(tempered, settings)
    weights = jnp.where(tempered >= _log(settings.min_p)[:, None], jnp.exp(tempered), 0.0)
    drawn = jnp.where(greedy, jnp.argmax(adjusted, axis=-1), _categorical(weights, keys))
    chosen = jnp.take_along_axis(logits, drawn[:, None], axis=-1)[:, 0]
    return drawn.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


def _log(x: Array) -> Array:
    return jnp.where(x > 0, jnp.log(jnp.maximum(x, jnp.finfo(jnp.float32).tiny)), -jnp.inf)


def _keep_likeliest(logits: Array, settings: Settings) -> Array:
    """Sets all but the top k, and of these all outside the nucleus, to minus infinity; the likeliest always stays."""
    descending = jnp.sort(logits, axis=-1, descending=True)
    places = jnp.where(settings.top_k > 0, settings.top_k, logits.shape[-1])[:, None]
    descending = jnp.where(jnp.arange(logits.shape[-1]) < places, descending, -jnp.inf)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities  # probability of all likelier tokens
    kept = (before < settings.top_p[:, None]) | (settings.top_p[:, None] == 1)  # cumsum may round past 1
    least = jnp.min(jnp.where(kept & (descending > -jnp.inf), descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


def _categorical(weights: Array, keys: Array) -> Array:
    """Draws from unnormalised weights [rows, vocab] by two uniform numbers: first a run of tokens, then one of it.

    A uniform number a token, as in the Gumbel trick, costs more than a small model's step.
    """
    size = math.isqrt(weights.shape[-1] - 1) + 1
    weights = jnp.pad(weights, ((0, 0), (0, -weights.shape[-1] % size)))
    runs = weights.reshape(weights.shape[0], -1, size)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    run = invert(runs.sum(axis=-1), uniform[:, 0])
    within = jnp.take_along_axis(runs, run[:, None, None], axis=1)[:, 0]
    return run * size + invert(within, uniform[:, 1])


def invert(weights: Array, uniform: Array) -> Array:
    """The first place of positive weight whose cumulative weight is above that share of the whole; else the last."""
    cumulative = jnp.cumsum(weights, axis=-1)
    total = cumulative[:, -1]
    target = jnp.minimum(uniform * total, jnp.nextafter(total, jnp.zeros_like(total)))
    first = (cumulative <= target[:, None]).sum(axis=-1, keepdims=True)
    # The sums are of different trees, so that they may grow by a rounding error where there is no weight.
    places, positive = jnp.arange(weights.shape[-1]), weights > 0
    following = jnp.where(positive & (places >= first), places, places.size).min(axis=-1)
    return jnp.minimum(following, jnp.where(positive, places, 0).max(axis=-1))
