"""GRPO against eq. 3 and 4 by hand, and its gradient against the paper's coefficient table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.rl.objectives import grpo, kl_k3

G, LENGTH, EPS, BETA = 4, 6, 0.2, 0.04
LENGTHS = np.array([6, 1, 3, 4])


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A group of outputs; the ratio lies outside the clip range at about half of the tokens."""
    rng = np.random.default_rng(0)
    logprobs = -rng.exponential(1.0, (G, LENGTH))
    return {
        "logprobs": logprobs.astype(np.float32),
        "old_logprobs": (logprobs + rng.normal(0, 0.4, (G, LENGTH))).astype(np.float32),
        "ref_logprobs": (logprobs + rng.normal(0, 0.5, (G, LENGTH))).astype(np.float32),
        "advantages": np.array([[1.5], [-0.7], [-1.1], [0.3]], np.float32),
        "mask": (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.float32),
    }


def _grpo(arrays, **settings):
    return grpo(**arrays, **{"clip_eps": EPS, "beta": BETA} | settings)


def _equation_3(arrays) -> float:
    """J_GRPO of one group, term by term as the paper writes it."""
    total = 0.0
    for i in range(G):
        tokens = 0.0
        for t in range(LENGTHS[i]):
            new, old, ref = (float(arrays[name][i, t]) for name in ("logprobs", "old_logprobs", "ref_logprobs"))
            advantage = float(arrays["advantages"][i, 0])
            ratio = np.exp(new) / np.exp(old)
            clipped = min(max(ratio, 1 - EPS), 1 + EPS)
            kl = np.exp(ref) / np.exp(new) - np.log(np.exp(ref) / np.exp(new)) - 1
            tokens += min(ratio * advantage, clipped * advantage) - BETA * kl
        total += tokens / LENGTHS[i]
    return total / G


def test_the_loss_is_minus_equation_3(arrays):
    loss, sums = _grpo(arrays)
    assert float(sums["denominator"]) == G
    np.testing.assert_allclose(loss / sums["denominator"], -_equation_3(arrays), rtol=1e-5)


def test_the_gradient_is_the_papers_coefficient(arrays):
    """GC_GRPO = A + beta (pi_ref / pi - 1), over |o| and G, where the policy that samples is the one that learns."""
    arrays["old_logprobs"] = None

    def objective(logprobs):
        loss, sums = _grpo(arrays | {"logprobs": logprobs})
        return -loss / sums["denominator"]

    gradient = jax.grad(objective)(arrays["logprobs"])
    ratio = np.exp(arrays["ref_logprobs"] - arrays["logprobs"])
    coefficient = arrays["advantages"] + BETA * (ratio - 1)
    np.testing.assert_allclose(gradient, coefficient / LENGTHS[:, None] / G * arrays["mask"], rtol=1e-4, atol=1e-7)


def test_no_old_policy_means_a_ratio_of_one(arrays):
    same, same_sums = _grpo(arrays | {"old_logprobs": arrays["logprobs"]})
    none, none_sums = _grpo(arrays | {"old_logprobs": None})
    np.testing.assert_allclose(none, same, rtol=1e-6)
    assert float(none_sums["clip_fraction"]) == float(same_sums["clip_fraction"]) == 0
    gradients = [
        jax.grad(lambda x, old=old: _grpo(arrays | {"logprobs": x, "old_logprobs": old})[0])(arrays["logprobs"])
        for old in (None, arrays["logprobs"])
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-5)


def test_k3_is_never_negative_and_zero_where_the_policies_agree(arrays):
    logprobs = np.linspace(-8, 0, 40, dtype=np.float32)
    kl = np.asarray(kl_k3(logprobs[:, None], logprobs[None, :]))
    assert (kl >= -1e-6).all()
    np.testing.assert_array_equal(np.diag(kl), 0)
    assert (kl[~np.eye(40, dtype=bool)] > 0.005).all()
    np.testing.assert_allclose(kl_k3(jnp.log(0.5), jnp.log(0.25)), 0.5 + np.log(2) - 1, rtol=1e-5)


def test_k3_estimates_the_divergence_without_bias():
    policy, reference = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    expected = (policy * np.log(policy / reference)).sum()
    np.testing.assert_allclose((policy * kl_k3(np.log(policy), np.log(reference))).sum(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [(1.3, 1, True), (1.3, -1, False), (0.7, 1, False), (0.7, -1, True), (1.1, 1, False), (0.9, -1, False)],
)
def test_clipping_acts_where_the_step_has_gone_too_far_its_own_way(ratio, advantage, clipped):
    old = np.full((1, 1), -1.0, np.float32)
    logprobs = old + np.float32(np.log(ratio))
    one = np.ones((1, 1), np.float32)

    def run(x):
        return grpo(x, old, x, advantage * one, one, clip_eps=EPS, beta=0.0)

    loss, sums = run(logprobs)
    bound = min(max(ratio, 0.8), 1.2) if clipped else ratio
    np.testing.assert_allclose(-loss, bound * advantage, rtol=1e-5)
    assert float(sums["clip_fraction"]) == clipped
    gradient = -jax.grad(lambda x: run(x)[0])(logprobs)[0, 0]
    np.testing.assert_allclose(gradient, 0 if clipped else ratio * advantage, rtol=1e-5)


def test_a_long_output_weighs_no_more_than_a_short_one():
    """Per output, then over outputs: not over all tokens at once."""
    mask = (np.arange(100) < np.array([[100], [1]])).astype(np.float32)
    zeros = np.zeros((2, 100), np.float32)
    loss, _ = grpo(zeros, None, zeros, np.array([[1.0], [-1.0]], np.float32), mask, clip_eps=EPS, beta=BETA)
    np.testing.assert_allclose(loss, 0, atol=1e-6)  # a token-level mean would give -99/101


def test_what_lies_after_the_end_of_an_output_counts_nothing(arrays):
    noise = np.random.default_rng(1).normal(0, 1, (G, LENGTH)).astype(np.float32)
    names = ("logprobs", "old_logprobs", "ref_logprobs")
    changed = arrays | {name: arrays[name] + noise * (1 - arrays["mask"]) for name in names}
    (loss, sums), (other, other_sums) = _grpo(arrays), _grpo(changed)
    np.testing.assert_allclose(loss, other, rtol=1e-6)
    for name in sums:
        np.testing.assert_allclose(sums[name], other_sums[name], rtol=1e-6)


def test_an_empty_output_is_not_counted(arrays):
    with_empty = {name: np.concatenate([array, array[:1]]) for name, array in arrays.items()}
    with_empty["mask"][-1] = 0
    (loss, sums), (other, other_sums) = _grpo(arrays), _grpo(with_empty)
    np.testing.assert_allclose([other, other_sums["denominator"]], [loss, sums["denominator"]], rtol=1e-6)


def test_beta_weighs_the_divergence(arrays):
    loss, sums = _grpo(arrays, beta=0.0)
    np.testing.assert_allclose(_grpo(arrays, beta=0.5)[0] - loss, 0.5 * sums["kl"], rtol=1e-4)
