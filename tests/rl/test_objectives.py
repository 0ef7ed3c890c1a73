"""The objectives against the paper's equations by hand; their gradient coefficients: test_coefficients.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.rl.objectives import KL, dpo, grpo, importance_correction, kl_k3, likelihood, ppo, value_loss
from dsmath.runs.errors import InputError

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


def test_wild_numbers_after_the_end_of_an_output_neither_count_nor_overflow(arrays):
    wild = arrays | {"logprobs": np.where(arrays["mask"] > 0, arrays["logprobs"], -200.0).astype(np.float32)}
    for kl in KL:
        loss, gradient = jax.value_and_grad(lambda x, kl=kl: _grpo(wild | {"logprobs": x}, kl=kl)[0])(wild["logprobs"])
        np.testing.assert_allclose(loss, _grpo(arrays, kl=kl)[0], rtol=1e-6)
        assert np.isfinite(gradient).all()


def test_an_empty_output_is_not_counted(arrays):
    with_empty = {name: np.concatenate([array, array[:1]]) for name, array in arrays.items()}
    with_empty["mask"][-1] = 0
    (loss, sums), (other, other_sums) = _grpo(arrays), _grpo(with_empty)
    np.testing.assert_allclose([other, other_sums["denominator"]], [loss, sums["denominator"]], rtol=1e-6)


def test_beta_weighs_the_divergence(arrays):
    loss, sums = _grpo(arrays, beta=0.0)
    np.testing.assert_allclose(_grpo(arrays, beta=0.5)[0] - loss, 0.5 * sums["kl"], rtol=1e-4)


# ------------------------------------------------------------------------------------------------ the options of others


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_kl_estimators_by_name_with_their_gradients(arrays, name):
    new, ref = arrays["logprobs"], arrays["ref_logprobs"]
    values = {"k1": new - ref, "k2": (new - ref) ** 2 / 2, "k3": np.exp(ref - new) - (ref - new) - 1}
    slopes = {"k1": np.ones_like(new), "k2": new - ref, "k3": 1 - np.exp(ref - new)}
    np.testing.assert_allclose(KL[name](new, ref), values[name], rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: KL[name](x, ref).sum())(new)
    np.testing.assert_allclose(gradient, slopes[name], rtol=1e-4, atol=1e-6)
    loss, sums = _grpo(arrays, kl=name)
    np.testing.assert_allclose(loss - _grpo(arrays, beta=0.0)[0], BETA * sums["kl"], rtol=1e-4, atol=1e-6)


def _surrogate(arrays, high=EPS):
    ratio = np.exp(arrays["logprobs"] - arrays["old_logprobs"])
    a = arrays["advantages"]
    return np.minimum(ratio * a, np.clip(ratio, 1 - EPS, 1 + high) * a) * arrays["mask"]


def test_tokens_that_count_alike_are_averaged_over_all_outputs(arrays):
    loss, sums = _grpo(arrays, beta=0.0, aggregation="token")
    assert float(sums["denominator"]) == LENGTHS.sum()
    np.testing.assert_allclose(loss, -_surrogate(arrays).sum(), rtol=1e-5)


def test_a_constant_length_divides_every_output_alike(arrays):
    loss, sums = _grpo(arrays, beta=0.0, aggregation="constant", max_length=10)
    assert float(sums["denominator"]) == G
    np.testing.assert_allclose(loss, -_surrogate(arrays).sum() / 10, rtol=1e-5)
    with pytest.raises(InputError, match=r"config\.aggregation: 'mean' is none of"):
        _grpo(arrays, aggregation="mean")


def test_a_higher_upper_bound_clips_less(arrays):
    loss, sums = _grpo(arrays, beta=0.0, clip_eps_high=0.5)
    expected = (_surrogate(arrays, high=0.5).sum(axis=1) / LENGTHS).sum()
    np.testing.assert_allclose(loss, -expected, rtol=1e-5)
    assert float(sums["clip_fraction"]) < float(_grpo(arrays, beta=0.0)[1]["clip_fraction"])


def test_a_sequence_ratio_is_the_geometric_mean_of_its_tokens(arrays):
    loss, _ = _grpo(arrays, beta=0.0, sequence_ratio=True)
    total = 0.0
    for i, length in enumerate(LENGTHS):
        ratio = np.exp((arrays["logprobs"] - arrays["old_logprobs"])[i, :length].mean())
        advantage = float(arrays["advantages"][i, 0])
        total += min(ratio * advantage, np.clip(ratio, 1 - EPS, 1 + EPS) * advantage)
    np.testing.assert_allclose(loss, -total, rtol=1e-5)


def test_importance_correction_weighs_tokens_up_to_a_bound(arrays):
    weights = importance_correction(np.log([0.5, 0.2, 0.9]), np.log([0.25, 0.4, 0.1]), bound=2.0)
    np.testing.assert_allclose(weights, [2.0, 0.5, 2.0], rtol=1e-5)
    correction = np.random.default_rng(3).uniform(0.5, 2, (G, LENGTH)).astype(np.float32)
    loss, _ = _grpo(arrays, beta=0.0, correction=correction)
    np.testing.assert_allclose(loss, -((_surrogate(arrays) * correction).sum(axis=1) / LENGTHS).sum(), rtol=1e-5)


def test_a_bound_of_the_ratio_limits_what_a_negative_advantage_pushes():
    ones, far = np.ones((1, 1), np.float32), np.full((1, 1), np.log(5.0), np.float32)

    def run(x, advantage):
        return grpo(x, 0 * ones, x, advantage * ones, ones, clip_eps=EPS, beta=0.0, ratio_bound=3.0)[0]

    np.testing.assert_allclose([-run(far, -1.0), -run(far, 1.0)], [-3.0, 1 + EPS], rtol=1e-5)
    np.testing.assert_array_equal(jax.grad(run)(far, -1.0), 0)


def test_the_entropy_bonus_is_averaged_as_the_loss_is(arrays):
    entropies = np.random.default_rng(5).exponential(size=(G, LENGTH)).astype(np.float32)
    for aggregation, share in (("output", arrays["mask"] / LENGTHS[:, None]), ("token", arrays["mask"])):

        def run(x, bonus, aggregation=aggregation):
            return _grpo(arrays, aggregation=aggregation, entropies=x, entropy_bonus=bonus)[0]

        np.testing.assert_allclose(
            run(entropies, 0.0) - run(entropies, 0.1), 0.1 * (entropies * share).sum(), rtol=1e-3
        )
        np.testing.assert_allclose(jax.grad(run)(entropies, 0.1), -0.1 * share, atol=1e-6)


def test_weighed_by_the_ratio_k3_has_the_gradient_of_the_divergence():
    """Over all words of a policy, on policy: the plain one has the gradient of KL(reference || policy) instead."""
    logits, reference = np.array([0.3, -0.5, 1.0], np.float32), np.log(np.array([0.2, 0.2, 0.6], np.float32))
    policy = np.asarray(jax.nn.softmax(logits))

    def expected_loss(logits, unbiased):
        logprobs = jax.nn.log_softmax(logits)[:, None]
        one = np.ones((3, 1), np.float32)
        by_word = [
            grpo(logprobs[i], None, reference[i : i + 1], 0 * one[0], one[0], clip_eps=EPS, beta=1.0, **unbiased)[0]
            for i in range(3)
        ]
        return (policy * jnp.stack(by_word)).sum()  # the sampler stands still

    def divergence(logits):
        logprobs = jax.nn.log_softmax(logits)
        return (jnp.exp(logprobs) * (logprobs - reference)).sum()

    exact = jax.grad(divergence)(logits)
    np.testing.assert_allclose(jax.grad(expected_loss)(logits, {"unbiased_kl": True}), exact, atol=1e-6)
    assert np.abs(jax.grad(expected_loss)(logits, {}) - exact).max() > 0.01


# ------------------------------------------------------------------------------------------------ the other methods


def test_ppo_is_the_clipped_surrogate_without_a_reference(arrays):
    one = {name: array for name, array in arrays.items() if name != "ref_logprobs"}
    loss, sums = ppo(**one, clip_eps=EPS, aggregation="output")
    np.testing.assert_allclose(loss, _grpo(arrays, beta=0.0)[0], rtol=1e-6)
    assert sums.keys() == {"clip_fraction", "denominator"}


def test_a_value_that_moves_too_far_is_clipped():
    values, old, returns = (np.array([x], np.float32) for x in ([1.0, 0.1, -1.0], [0.0, 0.0, 0.0], [2.0, 1.0, 1.0]))
    loss, sums = value_loss(values, old, returns, np.ones((1, 3), np.float32), clip=0.2, aggregation="token")
    # 1.0 moved towards 2.0 but further than 0.2: the clipped error (1.8) counts; -1.0 moved away: its own error counts.
    np.testing.assert_allclose(loss, 0.5 * (1.8**2 + 0.9**2 + 2.0**2), rtol=1e-5)
    assert float(sums["value_clip_fraction"]) == 1


def _pairs():
    rng = np.random.default_rng(4)
    mask = (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.float32)
    sides = [rng.normal(-1, 0.5, (2, G, LENGTH)).astype(np.float32) for _ in range(2)]
    return [(*side, mask if index else mask[::-1].copy()) for index, side in enumerate(sides)]


@pytest.mark.parametrize("length_averaged", [True, False])
def test_dpo_is_the_likelihood_of_the_better_output(length_averaged):
    """Eq. 12 of §A.1.4, and the standard form, whose log-ratios are summed."""
    chosen, rejected = _pairs()
    beta = 0.3

    def total(logprobs, ref, mask):
        summed = ((logprobs - ref) * mask).sum(axis=1)
        return summed / mask.sum(axis=1) if length_averaged else summed

    margin = beta * (total(*chosen) - total(*rejected))
    loss, sums = dpo(chosen, rejected, beta=beta, length_averaged=length_averaged)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-margin)).sum(), rtol=1e-5)
    np.testing.assert_allclose(sums["pair_accuracy"], (margin > 0).sum())


def test_a_pair_with_an_empty_output_does_not_count():
    chosen, rejected = _pairs()
    whole, sums = dpo(chosen, rejected, beta=0.3, length_averaged=True)
    empty = (*chosen[:2], chosen[2] * np.array([0, 1, 1, 1], np.float32)[:, None])
    loss, rest = dpo(empty, rejected, beta=0.3, length_averaged=True)
    first, _ = dpo([x[:1] for x in chosen], [x[:1] for x in rejected], beta=0.3, length_averaged=True)
    np.testing.assert_allclose(loss, whole - first, rtol=1e-5)
    assert float(rest["denominator"]) == float(sums["denominator"]) - 1 == G - 1


def test_an_output_of_no_weight_may_be_left_out_and_still_count(arrays):
    weights = np.array([1, 0, 0, 1], np.float32)
    loss, sums = likelihood(arrays["logprobs"], weights, arrays["mask"])
    left_out = arrays["mask"] * weights[:, None]
    other, counts = likelihood(arrays["logprobs"], weights, left_out, np.ones(G, np.float32))
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    assert float(counts["denominator"]) == float(sums["denominator"]) == G
