"""Each method's gradient coefficients: those of the paper's table, and what the model's gradient is made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dsmath.model.transformer import Transformer
from dsmath.rl import advantages
from dsmath.rl.coefficients import EDGES, gradient_coefficients, histogram
from dsmath.rl.objectives import dpo, grpo, likelihood, ppo
from dsmath.train.losses import token_logprobs

G, LENGTH, EPS, BETA, DPO_BETA = 4, 6, 0.2, 0.04, 0.3
LENGTHS = np.array([6, 1, 3, 4])
MASK = (np.arange(LENGTH) < LENGTHS[:, None]).astype(np.float32)
RIGHT = np.array([1, 0, 0, 1], np.float32)
RNG = np.random.default_rng(0)
OLD_GAP = RNG.normal(0, 0.4, (G, LENGTH)).astype(np.float32)  # about half of the ratios lie outside the clip range
REF_GAP = RNG.normal(0, 0.5, (G, LENGTH)).astype(np.float32)
VALUES = RNG.normal(0, 1, (G, LENGTH)).astype(np.float32)
GROUP_ADVANTAGES = np.asarray(advantages.outcome(RIGHT[None]))[0][:, None] * np.ones((1, LENGTH), np.float32)
PPO_ADVANTAGES = np.asarray(advantages.gae(MASK * RIGHT[:, None], VALUES, MASK, discount=1.0, decay=0.95)[0])
CHOSEN, REJECTED = np.array([0, 3]), np.array([2, 1])  # pairs of outputs, the right one first


def _ratio_coefficients(logprobs, old, advantage):
    """Of the clipped surrogate: rho A where the smaller of its two sides moves with the policy."""
    ratio = np.exp(logprobs - old)
    moves = np.where(advantage >= 0, ratio <= 1 + EPS, ratio >= 1 - EPS)
    return ratio * advantage * moves


def _dpo_loss(logprobs, old, ref, length_averaged):
    sides = [(logprobs[side], ref[side], MASK[side]) for side in (CHOSEN, REJECTED)]
    return dpo(*sides, beta=DPO_BETA, length_averaged=length_averaged)[0]


def _dpo_coefficients(logprobs, old, ref, length_averaged):
    """beta sigma(-margin), + on the better output and - on the worse one; times |o| in the standard form."""
    totals = ((logprobs - ref) * MASK).sum(axis=1) / (LENGTHS if length_averaged else 1)
    weights = DPO_BETA / (1 + np.exp(DPO_BETA * (totals[CHOSEN] - totals[REJECTED])))
    found = np.zeros(G, np.float32)
    found[CHOSEN], found[REJECTED] = weights, -weights
    return found[:, None] * (1 if length_averaged else LENGTHS[:, None]) * np.ones((1, LENGTH))


# Each method: (log-probabilities, old, ref) -> the loss's sum, and the table's coefficients. Source: DeepSeekMath §A.1.
METHODS = {
    "sft": (lambda x, old, ref: likelihood(x, np.ones(G), MASK)[0], lambda x, old, ref: np.ones((G, LENGTH))),
    # RFT and online RFT differ in who sampled, not in the coefficient.
    "rft": (lambda x, old, ref: likelihood(x, RIGHT, MASK)[0], lambda x, old, ref: RIGHT[:, None] + 0 * MASK),
    "dpo": (
        functools.partial(_dpo_loss, length_averaged=True),
        functools.partial(_dpo_coefficients, length_averaged=True),
    ),
    "dpo_standard": (
        functools.partial(_dpo_loss, length_averaged=False),
        functools.partial(_dpo_coefficients, length_averaged=False),
    ),
    "ppo": (
        lambda x, old, ref: ppo(x, None, PPO_ADVANTAGES, MASK, clip_eps=EPS, aggregation="output")[0],
        lambda x, old, ref: PPO_ADVANTAGES,
    ),
    "ppo_later_update": (
        lambda x, old, ref: ppo(x, old, PPO_ADVANTAGES, MASK, clip_eps=EPS, aggregation="output")[0],
        lambda x, old, ref: _ratio_coefficients(x, old, PPO_ADVANTAGES),
    ),
    "grpo": (
        lambda x, old, ref: grpo(x, None, ref, GROUP_ADVANTAGES, MASK, clip_eps=EPS, beta=BETA)[0],
        lambda x, old, ref: GROUP_ADVANTAGES + BETA * (np.exp(ref - x) - 1),
    ),
    "grpo_later_update": (
        lambda x, old, ref: grpo(x, old, ref, GROUP_ADVANTAGES, MASK, clip_eps=EPS, beta=BETA)[0],
        lambda x, old, ref: _ratio_coefficients(x, old, GROUP_ADVANTAGES) + BETA * (np.exp(ref - x) - 1),
    ),
}
every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_the_coefficients_are_those_of_the_papers_table(method):
    loss, closed_form = METHODS[method]
    logprobs = -np.random.default_rng(1).exponential(1.0, (G, LENGTH)).astype(np.float32)
    old, ref = logprobs + OLD_GAP, logprobs + REF_GAP
    found = jax.jit(lambda x: gradient_coefficients(lambda y: loss(y, old, ref), x, MASK))(logprobs)
    np.testing.assert_allclose(found, closed_form(logprobs, old, ref) * MASK, atol=1e-5)


@pytest.fixture(scope="module")
def tiny(make_model_config):
    """A model's log-probabilities of four outputs, grad log pi of each token by itself, and each method's gradient."""
    model = Transformer(make_model_config(width=16, mlp_width=16, num_heads=2, num_kv_heads=1))
    prompt, outputs = np.array([5, 6, 7]), np.random.default_rng(2).integers(1, 64, (G, LENGTH))
    tokens = np.concatenate([np.tile(prompt, (G, 1)), outputs], axis=1)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    params = nn.meta.unbox(model.init(jax.random.key(0), tokens, positions, np.ones_like(tokens), method="init_all"))

    def logprobs(params):
        hidden, _ = model.apply(params, tokens, positions, np.ones_like(tokens))
        logits = model.apply(params, hidden[:, len(prompt) - 1 : -1], method="logits")
        return token_logprobs(logits, jnp.asarray(outputs))

    now = np.asarray(logprobs(params))

    def objectives(params):
        x = logprobs(params)
        return {method: -loss(x, now + OLD_GAP, now + REF_GAP) for method, (loss, _) in METHODS.items()}

    return now, *(jax.jit(jax.jacrev(function))(params) for function in (logprobs, objectives))


@every_method
def test_the_models_gradient_is_the_sum_of_coefficient_times_grad_log_pi(tiny, method):
    now, grad_log_pi, gradients = tiny
    weights = METHODS[method][1](now, now + OLD_GAP, now + REF_GAP) * MASK / LENGTHS[:, None]
    by_table = jax.tree.map(lambda leaf: np.tensordot(weights, leaf, axes=2), grad_log_pi)  # leaf [G, LENGTH, …]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients[method], by_table)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(by_table)) > 0.01


def test_coefficients_let_no_gradient_through():
    logprobs, ref = -np.ones((G, LENGTH), np.float32), np.zeros((G, LENGTH), np.float32)

    def loss(x):
        return METHODS["grpo"][0](x, None, ref)

    def with_coefficients(x):
        return loss(x) + (gradient_coefficients(loss, x, MASK) ** 2).sum()

    np.testing.assert_array_equal(jax.grad(with_coefficients)(logprobs), jax.grad(loss)(logprobs))


def test_a_histogram_counts_every_token_of_the_policy_once():
    values = np.array([[-50.0, -0.2, 0.0, 0.3], [0.3, 99.0, 7.0, 7.0]], np.float32)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32)
    counts = np.asarray(histogram(values, mask, np.array([-1.0, -0.1, 0.1, 1.0])))
    assert counts.tolist() == [2, 1, 3]  # what lies beyond the edges is in the outermost bins
    assert np.asarray(histogram(values, mask)).sum() == mask.sum()
    assert (np.diff(EDGES) > 0).all()
