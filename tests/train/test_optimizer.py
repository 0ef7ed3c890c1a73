"""The paper's schedules, and what weight decay pulls on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsmath.model.heads import ValueModel, headless
from dsmath.model.sharding import make_mesh
from dsmath.runs.errors import InputError
from dsmath.train.optimizer import make_optimizer, make_schedule
from dsmath.train.state import create_state

CONFIG = {
    "schedule": "constant",
    "peak_learning_rate": 0.1,
    "warmup_steps": 0,
    "b1": 0.9,
    "b2": 0.95,
    "moments": "float32",
    "weight_decay": 0.5,
    "clip_norm": 1.0,
}


def test_multi_step_has_the_papers_values():
    schedule = make_schedule("multi_step", peak=4.2e-4, warmup_steps=2000, num_steps=50_000)
    expected = {
        0: 4.2e-4 / 2000,  # the first step learns
        999: 4.2e-4 / 2,
        1999: 4.2e-4,
        2000: 4.2e-4,
        39_500: 4.2e-4,  # 79 %
        39_999: 4.2e-4,
        40_000: 0.316 * 4.2e-4,
        40_500: 0.316 * 4.2e-4,  # 81 %
        44_999: 0.316 * 4.2e-4,
        45_000: 0.1 * 4.2e-4,
        45_500: 0.1 * 4.2e-4,  # 91 %
        49_999: 0.1 * 4.2e-4,
    }
    for step, value in expected.items():
        np.testing.assert_allclose(float(schedule(step)), value, rtol=1e-4, err_msg=f"step {step}")


def test_multi_step_without_warm_up_starts_at_the_peak():
    schedule = make_schedule("multi_step", peak=1.0, warmup_steps=0, num_steps=100)
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 79, 81, 91)], [1, 1, 0.316, 0.1], rtol=1e-5)


@pytest.mark.parametrize("num_steps", [4, 6, 9])
def test_multi_step_of_a_very_short_run_still_ends_at_a_tenth(num_steps):
    schedule = make_schedule("multi_step", peak=1.0, warmup_steps=0, num_steps=num_steps)
    values = [float(schedule(step)) for step in range(num_steps + 1)]
    assert values[0] == 1
    np.testing.assert_allclose(values[-1], 0.1, rtol=1e-5)


def test_constant_stays_after_its_warm_up():
    schedule = make_schedule("constant", peak=5e-5, warmup_steps=10, num_steps=500)
    np.testing.assert_allclose(
        [float(schedule(step)) for step in (4, 9, 10, 499)], [2.5e-5, 5e-5, 5e-5, 5e-5], rtol=1e-5
    )


def test_cosine_goes_to_a_tenth():
    schedule = make_schedule("cosine", peak=1.0, warmup_steps=0, num_steps=100)
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 50, 100)], [1, 0.55, 0.1], rtol=1e-5)


def test_wrong_values_are_named():
    with pytest.raises(InputError, match=r"config\.optimizer\.schedule: 'linear' is none of 'multi_step'"):
        make_schedule("linear", peak=1.0, warmup_steps=0, num_steps=10)
    with pytest.raises(InputError, match=r"config\.optimizer\.warmup_steps: 11 is not between 0 and the 10 steps"):
        make_schedule("constant", peak=1.0, warmup_steps=11, num_steps=10)
    with pytest.raises(InputError, match=r"config\.optimizer\.peak_learning_rate: 0 must be positive"):
        make_optimizer(CONFIG | {"peak_learning_rate": 0}, 10)
    with pytest.raises(InputError, match=r"config\.optimizer\.clip_norm: -1 must be positive"):
        make_optimizer(CONFIG | {"clip_norm": -1}, 10)


def test_weight_decay_pulls_on_matrices_and_not_on_norms():
    params = {"params": {"mlp": {"up": jnp.ones((2, 2))}, "mlp_norm": {"scale": jnp.ones(2)}}}
    optimizer, _ = make_optimizer(CONFIG, 10)
    zeros = {"params": {"mlp": {"up": jnp.zeros((2, 2))}, "mlp_norm": {"scale": jnp.zeros(2)}}}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["params"]["mlp"]["up"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["params"]["mlp_norm"]["scale"], 0)


def test_gradients_are_clipped_by_their_global_norm():
    optimizer, _ = make_optimizer(CONFIG, 10)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    huge = {"a": jnp.array([300.0]), "b": jnp.array([400.0])}
    unit = {"a": jnp.array([0.6]), "b": jnp.array([0.8])}
    _, after_huge = optimizer.update(huge, optimizer.init(params), params)
    _, after_unit = optimizer.update(unit, optimizer.init(params), params)
    mu = after_huge[1].mu
    np.testing.assert_allclose([mu["a"][0], mu["b"][0]], [0.06, 0.08], rtol=1e-5)
    np.testing.assert_allclose(mu["a"], after_unit[1].mu["a"], rtol=1e-5)


def _descend(moments: str, steps: int = 60) -> tuple[float, int]:
    """(loss that is left of 1, bytes of the state a parameter) on a quadratic."""
    target = jax.random.normal(jax.random.key(0), (256, 256))
    optimizer, _ = make_optimizer(CONFIG | {"moments": moments, "weight_decay": 0.0, "peak_learning_rate": 0.05}, steps)
    params = {"w": jnp.zeros_like(target)}
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(lambda p: jnp.square(p["w"] - target).mean())(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    stored = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return float(jnp.square(params["w"] - target).mean()), stored / target.size


@pytest.mark.parametrize(("moments", "most_bytes"), [("float32", 8.1), ("bfloat16", 4.1), ("factored", 0.1)])
def test_moments_of_every_kind_learn_within_their_memory(moments, most_bytes):
    loss, stored = _descend(moments)
    assert loss < 0.2
    assert stored < most_bytes


@pytest.mark.parametrize("moments", ["float32", "factored"])
def test_moments_of_every_kind_are_spread_with_a_scalar_head(make_model_config, moments):
    optimizer, _ = make_optimizer(CONFIG | {"moments": moments}, 10)
    state = create_state(ValueModel(headless(make_model_config())), optimizer, make_mesh({"data": 2, "fsdp": 4}), 0)
    assert jax.tree.leaves(state.opt_state)


def test_bfloat16_moments_stay_close_to_float32_ones():
    assert abs(_descend("bfloat16")[0] - _descend("float32")[0]) < 0.02


def test_unknown_moments_are_named():
    with pytest.raises(InputError, match=r"config\.optimizer\.moments: 'int8' is none of"):
        make_optimizer(CONFIG | {"moments": "int8"}, 10)


def test_biases_do_not_decay():
    params = {"params": {"attention": {"q": jnp.ones((2, 2)), "q_bias": jnp.ones(2)}}}
    optimizer, _ = make_optimizer(CONFIG, 10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert float(updates["params"]["attention"]["q"].max()) < 0
    assert not updates["params"]["attention"]["q_bias"].any()
