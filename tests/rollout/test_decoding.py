"""From logits to a token: greedy, temperature, top-k, top-p, min-p, repetition penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dsmath.rollout.decoding import Decoding, Settings, draw, invert
from dsmath.runs.errors import InputError

PROBABILITIES = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
ROWS = 4000


def _draw(temperature: float, top_p: float, probabilities=PROBABILITIES, seen=None, **filters):
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(probabilities, jnp.float32)), (ROWS, len(probabilities)))
    keys = jax.random.split(jax.random.key(0), ROWS)
    settings = Settings.stack([Decoding(temperature, top_p, 1, **filters)] * ROWS)
    seen = None if seen is None else jnp.broadcast_to(jnp.array(seen), logits.shape)
    tokens, logprobs = jax.jit(draw)(logits, keys, settings, seen)
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


def _assert_kept(tokens: np.ndarray, kept: list[int]) -> None:
    assert sorted(set(tokens.tolist())) == kept
    expected = np.where(np.isin(np.arange(5), kept), PROBABILITIES, 0)
    np.testing.assert_allclose(_shares(tokens), expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize(("top_k", "kept"), [(1, [1]), (3, [1, 3, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_top_k_keeps_the_likeliest(top_k, kept):
    _assert_kept(_draw(1.0, 1.0, top_k=top_k)[0], kept)


@pytest.mark.parametrize(("min_p", "kept"), [(0.01, [0, 1, 2, 3, 4]), (0.3, [1, 3, 4]), (0.7, [1, 3]), (1.0, [1])])
def test_min_p_keeps_what_is_near_the_likeliest(min_p, kept):
    _assert_kept(_draw(1.0, 1.0, min_p=min_p)[0], kept)


def test_top_p_counts_among_the_top_k():
    # Of the three likeliest, 0.85 together, the first two hold 0.82.
    _assert_kept(_draw(1.0, 0.82, top_k=3)[0], [1, 3])
    _assert_kept(_draw(1.0, 0.82)[0], [1, 3, 4])


def test_the_repetition_penalty_makes_seen_tokens_less_likely_and_leaves_the_logprobs():
    seen = [False, True, False, False, False]
    tokens, logprobs = _draw(1.0, 1.0, seen=seen, repetition_penalty=2.0)
    expected = np.where(seen, PROBABILITIES**2, PROBABILITIES)  # all logits are negative here
    np.testing.assert_allclose(_shares(tokens), expected / expected.sum(), atol=0.03)
    np.testing.assert_allclose(logprobs, np.log(PROBABILITIES)[tokens], atol=1e-5)
    greedy, _ = _draw(0.0, 1.0, seen=seen, repetition_penalty=2.0)
    assert (greedy == 3).all()


@pytest.mark.parametrize(("size", "filters"), [(17, {}), (61, {}), (61, {"top_k": 20})])
def test_the_shares_of_the_tokens_pass_a_chi_square_test(size, filters):
    probabilities = np.random.default_rng(size).dirichlet(np.ones(size))
    tokens, _ = _draw(1.0, 1.0, probabilities, **filters)
    least = np.sort(probabilities)[-filters.get("top_k", size)]
    expected = np.where(probabilities >= least, probabilities, 0)
    expected *= ROWS / expected.sum()
    counts = np.bincount(tokens, minlength=size)
    assert counts[expected == 0].sum() == 0
    rare = expected < 5  # are counted together
    counts, expected = ([*x[~rare], *([x[rare].sum()] if expected[rare].any() else [])] for x in (counts, expected))
    assert stats.chisquare(counts, expected).pvalue > 0.001


def test_no_token_without_weight_is_drawn_where_the_sums_are_rounded_apart():
    rng = np.random.default_rng(0)
    weights = rng.random((200, 1000)).astype(np.float32) * (rng.random((200, 1000)) < 0.5)
    weights[:100, 900:] = 0
    cumulative = np.asarray(jnp.cumsum(weights, axis=-1))
    row, before = np.nonzero((np.diff(cumulative, axis=-1) > 0) & (weights[:, 1:] == 0))  # what grew without weight
    uniform = cumulative[row, before] / cumulative[row, -1]
    first = np.minimum((cumulative[row] <= (uniform * cumulative[row, -1])[:, None]).sum(axis=-1), 999)
    assert (weights[row, first] == 0).sum() > 100
    last = 999 - np.argmax(weights[:, ::-1] > 0, axis=-1)
    assert (first > last[row]).any()  # behind it there is no weight to go on to
    drawn = np.asarray(jax.jit(invert)(weights[row], uniform))
    assert (weights[row, drawn] > 0).all()
    whole = rng.random(200).astype(np.float32)  # elsewhere it is the first place above
    first = (cumulative <= (whole * cumulative[:, -1])[:, None]).sum(axis=-1)
    held = weights[np.arange(200), first] > 0
    assert held.sum() > 190
    np.testing.assert_array_equal(np.asarray(jax.jit(invert)(weights, whole))[held], first[held])


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf")])
def test_a_place_is_never_outside(weight):
    uniform = jnp.array([0.0, 0.5, 1.0])
    drawn = np.asarray(jax.jit(invert)(jnp.full((3, 7), weight), uniform))
    assert ((drawn >= 0) & (drawn < 7)).all()


@pytest.mark.parametrize(
    "filters",
    [
        {"top_p": 1e-6},
        {"temperature": 1e-37},
        {"temperature": 1e30, "top_k": 1},
        {"min_p": 1.0},
        {"repetition_penalty": 1e-6, "top_k": 1},
        {"repetition_penalty": 1e6, "top_k": 1},
    ],
)
def test_the_least_and_the_most_still_draw_the_likeliest(filters):
    decoding = {"temperature": 1.0, "top_p": 1.0} | filters
    tokens, logprobs = _draw(**decoding, seen=[False] * 5)
    assert (tokens == 1).all()
    np.testing.assert_allclose(logprobs, np.log(0.4), atol=1e-5)
    seen = _draw(**decoding, seen=[True] * 5)[0]  # of negative logits all keep their order
    assert (seen == 1).all()


def test_rows_of_any_decoding_mix():
    logits = jax.random.normal(jax.random.key(1), (4, 40))
    keys = jax.random.split(jax.random.key(2), 4)
    kinds = [Decoding(0.0, 1.0, 1), Decoding(1.0, 0.5, 1), Decoding(2.0, 1.0, 1, top_k=7), Decoding(1.0, 1.0, 1)]
    mixed, _ = draw(logits, keys, Settings.stack(kinds))
    for row, kind in enumerate(kinds):
        alone, _ = draw(logits[row : row + 1], keys[row : row + 1], Settings.stack([kind]))
        assert int(alone[0]) == int(mixed[row])
    assert Settings.stack(kinds).sorts
    assert not Settings.stack([kinds[0], kinds[3], Decoding(0.0, 0.5, 1)]).sorts


def test_logprobs_are_those_of_the_untempered_policy():
    tokens, logprobs = _draw(2.0, 0.5)
    assert len(set(tokens.tolist())) > 1
    np.testing.assert_allclose(logprobs, np.log(PROBABILITIES)[tokens], atol=1e-5)


def test_a_rows_draw_depends_on_its_own_key_alone():
    logits = jnp.zeros((6, 50))
    keys = jax.random.split(jax.random.key(1), 6)
    decoding = Decoding(1.0, 1.0, 1)
    all_rows, _ = draw(logits, keys, Settings.stack([decoding] * 6))
    some_rows, _ = draw(logits[:2], keys[jnp.array([4, 1])], Settings.stack([decoding] * 2))
    assert some_rows.tolist() == [int(all_rows[4]), int(all_rows[1])]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((-0.1, 1.0, 8), "temperature: -0.1"),
        ((1.0, 0.0, 8), "top_p: 0.0"),
        ((1.0, 1.1, 8), "top_p: 1.1"),
        ((1.0, 1.0, 0), "max_new_tokens: 0"),
        ((1.0, 1.0, 8, -1), "top_k: -1"),
        ((1.0, 1.0, 8, 0, 1.5), "min_p: 1.5"),
        ((1.0, 1.0, 8, 0, 0.0, 0.0), "repetition_penalty: 0.0"),
        ((float("nan"), 1.0, 8), "temperature: nan"),
        # What float32 has as 0 or infinite.
        ((1.0, 1e-46, 8), r"top_p: 1e-46 is not in \[1e-06, 1\]"),
        ((1.0, 1.0, 8, 0, 0.0, 1e-46), r"repetition_penalty: 1e-46 is not in \[1e-06, 1000000\]"),
        ((1.0, 1.0, 8, 0, 0.0, 1e39), r"repetition_penalty: 1e\+39 is not in"),
        ((1e-40, 1.0, 8), "temperature: 1e-40"),
        ((1e39, 1.0, 8), r"temperature: 1e\+39"),
    ],
)
def test_bad_values_are_named(values, named):
    with pytest.raises(InputError, match=named):
        Decoding(*values)


def test_a_bad_field_of_a_config_is_named():
    with pytest.raises(InputError, match=r"config\.decoding\.max_new_tokens: 0 must be at least 1"):
        Decoding.read({"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 0})
