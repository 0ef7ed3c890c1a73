"""From logits to a token: greedy, temperature, top-p."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.rollout.decoding import Decoding, draw
from dsmath.runs.errors import InputError

PROBABILITIES = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
ROWS = 4000


def _draw(temperature: float, top_p: float, probabilities=PROBABILITIES):
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(probabilities, jnp.float32)), (ROWS, len(probabilities)))
    keys = jax.random.split(jax.random.key(0), ROWS)
    tokens, logprobs = jax.jit(draw, static_argnums=2)(logits, keys, Decoding(temperature, top_p, 1))
    return np.asarray(tokens), np.asarray(logprobs)


def _shares(tokens: np.ndarray, size: int = 5) -> np.ndarray:
    return np.bincount(tokens, minlength=size) / ROWS


@pytest.mark.parametrize("top_p", [0.1, 1.0])
def test_temperature_zero_takes_the_likeliest(top_p):
    tokens, logprobs = _draw(0.0, top_p)
    assert (tokens == 1).all()
    np.testing.assert_allclose(logprobs, np.log(0.4), atol=1e-5)


def test_temperature_one_draws_from_the_distribution():
    tokens, _ = _draw(1.0, 1.0)
    np.testing.assert_allclose(_shares(tokens), PROBABILITIES, atol=0.03)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits(temperature):
    tokens, _ = _draw(temperature, 1.0)
    expected = PROBABILITIES ** (1 / temperature)
    np.testing.assert_allclose(_shares(tokens), expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, [1]),
        (0.39, [1]),
        (0.41, [1, 3]),
        (0.69, [1, 3]),
        (0.71, [1, 3, 4]),
        (0.84, [1, 3, 4]),
        (0.94, [0, 1, 3, 4]),
        (0.96, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_smallest_set_with_that_probability(top_p, kept):
    tokens, _ = _draw(1.0, top_p)
    assert sorted(set(tokens.tolist())) == kept
    expected = np.where(np.isin(np.arange(5), kept), PROBABILITIES, 0)
    np.testing.assert_allclose(_shares(tokens), expected / expected.sum(), atol=0.03)


def test_top_p_looks_at_the_tempered_distribution():
    # At temperature 0.25 the likeliest token holds 0.4^4 / sum = 0.74 of the probability.
    assert set(_draw(0.25, 0.7)[0].tolist()) == {1}
    assert set(_draw(1.0, 0.7)[0].tolist()) == {1, 3}


def test_logprobs_are_those_of_the_untempered_policy():
    tokens, logprobs = _draw(2.0, 0.5)
    assert len(set(tokens.tolist())) > 1
    np.testing.assert_allclose(logprobs, np.log(PROBABILITIES)[tokens], atol=1e-5)


def test_a_rows_draw_depends_on_its_own_key_alone():
    logits = jnp.zeros((6, 50))
    keys = jax.random.split(jax.random.key(1), 6)
    decoding = Decoding(1.0, 1.0, 1)
    all_rows, _ = draw(logits, keys, decoding)
    some_rows, _ = draw(logits[:2], keys[jnp.array([4, 1])], decoding)
    assert some_rows.tolist() == [int(all_rows[4]), int(all_rows[1])]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((-0.1, 1.0, 8), "temperature: -0.1"),
        ((1.0, 0.0, 8), "top_p: 0.0"),
        ((1.0, 1.1, 8), "top_p: 1.1"),
        ((1.0, 1.0, 0), "max_new_tokens: 0"),
    ],
)
def test_bad_values_are_named(values, named):
    with pytest.raises(InputError, match=named):
        Decoding(*values)
