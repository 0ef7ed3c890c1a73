"""The guard inside the step: what is a spike, what is skipped, and that good steps are as without it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsmath.runs.errors import InputError
from dsmath.train.guards import Guard, GuardState
from dsmath.train.state import TrainState

CONFIG = {
    "on_nonfinite": "skip",
    "on_spike": "skip",
    "spike_sigmas": 6.0,
    "spike_window": 8,
    "max_skips": 3,
    "max_rollbacks": 1,
    "hang_seconds": 600.0,
}
PARAMS = {"w": jnp.array([1.0, -2.0])}


def _run(config, losses, norms=None) -> tuple[dict, GuardState]:
    """Updates with these losses and gradient norms, each with a gradient of its own."""
    optimizer = Guard(config).wrap(optax.adam(0.1))
    update = jax.jit(optimizer.update)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step, (loss, norm) in enumerate(zip(losses, norms or [1.0] * len(losses), strict=True)):
        grads = {"w": jnp.array([1.0, 0.5]) * (step + 1) * (1.0 if np.isfinite(norm) else norm)}
        updates, state = update(grads, state, params, loss=jnp.float32(loss), grad_norm=jnp.float32(norm))
        params = optax.apply_updates(params, updates)
    return params, state


def _counts(state: GuardState) -> tuple[int, int, int, int]:
    return tuple(int(count) for count in (state.good, state.nonfinite, state.spikes, state.in_a_row))


WAVES = [3.0, 3.2, 2.9, 3.1, 3.0, 2.8, 3.1, 2.9, 3.0, 3.05]


def test_good_steps_are_those_of_the_bare_optimizer():
    optimizer = optax.adam(0.1)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(len(WAVES)):
        updates, state = optimizer.update({"w": jnp.array([1.0, 0.5]) * (step + 1)}, state, params)
        params = optax.apply_updates(params, updates)
    guarded, guard_state = _run(CONFIG, WAVES)
    np.testing.assert_allclose(guarded["w"], params["w"], rtol=2e-6)  # compiled as one, it may round otherwise
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-6), guard_state.inner, state)
    assert _counts(guard_state) == (10, 0, 0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["loss", "grad_norm"])
def test_a_step_that_is_not_finite_changes_nothing(value, which):
    losses, norms = [*WAVES, 3.0], [1.0] * 11
    (losses if which == "loss" else norms)[-1] = value
    before, state_before = _run(CONFIG, WAVES)
    after, state = _run(CONFIG, losses, norms)
    np.testing.assert_array_equal(before["w"], after["w"])
    jax.tree.map(np.testing.assert_array_equal, state_before.inner, state.inner)
    np.testing.assert_array_equal(state_before.history, state.history)  # one such value would spoil it
    assert _counts(state) == (10, 1, 0, 1)


@pytest.mark.parametrize(
    ("losses", "norms", "spikes"),
    [
        ([*WAVES, 3.4], None, 0),
        ([*WAVES, 4.0], None, 1),  # the last eight have a standard deviation of 0.1
        ([*WAVES, 2.0], None, 0),  # downwards is good news
        (WAVES, [*([1.0, 1.1] * 4), 1.05, 9.0], 1),
        ([3.0, 3.1, 2.9, 50.0], None, 0),  # too few to judge by
        ([3.0, 3.1, 2.9, 3.0, 50.0], None, 1),
        ([*WAVES, 9.0, 9.0, 3.0, 9.0], None, 3),  # a spike is not taken for the new level
    ],
)
def test_a_spike_stands_out_of_the_last_good_steps(losses, norms, spikes):
    _, state = _run(CONFIG, losses, norms)
    assert int(state.spikes) == spikes
    assert int(state.good) == len(losses) - spikes


def test_the_measure_is_the_mean_and_the_deviation_of_the_window():
    rng = np.random.default_rng(0)
    losses = rng.normal(3.0, 0.2, 40).tolist()
    last = np.array(losses[-8:])
    edge = last.mean() + 6 * last.std(ddof=1)
    assert int(_run(CONFIG, [*losses, edge - 0.01])[1].spikes) == 0
    assert int(_run(CONFIG, [*losses, edge + 0.01])[1].spikes) == 1


def test_without_a_policy_for_spikes_there_are_none():
    params, state = _run(CONFIG | {"on_spike": "none"}, [*WAVES, 100.0])
    assert _counts(state) == (11, 0, 0, 0)
    assert not np.array_equal(params["w"], _run(CONFIG, WAVES)[0]["w"])


def _look(config, losses, *, before=WAVES, rollbacks=0) -> tuple[bool, Guard, TrainState]:
    guard = Guard(config)
    guard.begin(TrainState(step=0, params={}, opt_state=_run(config, before)[1], rng=0))
    state = TrainState(step=0, params={}, opt_state=_run(config, [*before, *losses])[1], rng=0)
    return guard.must_go_back(20, state, losses[-1], rollbacks), guard, state


def test_what_follows_at_a_look_is_what_the_config_says():
    assert _look(CONFIG, [3.0, np.nan, 9.0])[0] is False
    _, guard, state = _look(CONFIG, [3.0, np.nan, 9.0])
    assert guard.skipped(state) == 2
    assert guard.must_go_back(21, state, 3.0) is False  # what was seen once is not seen again
    with pytest.raises(InputError, match=r"step 20: .* more in a row than config\.guards\.max_skips=3"):
        _look(CONFIG, [np.nan, np.nan, 9.0, np.nan])
    mixed = CONFIG | {"on_nonfinite": "stop", "on_spike": "rollback"}
    assert _look(mixed, [9.0])[0] is True
    assert _look(mixed, [3.0])[0] is False
    with pytest.raises(InputError, match=r"1 with .* not finite, 1 with a spike\), config\.guards says to stop; lower"):
        _look(mixed, [9.0, np.nan])
    with pytest.raises(InputError, match=r"1 with a spike\), after as many rollbacks as config\.guards\.max_roll"):
        _look(mixed, [9.0], rollbacks=1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"on_nonfinite": "none"}, r"config\.guards\.on_nonfinite: 'none' is none of stop, skip, rollback"),
        ({"on_spike": "panic"}, r"config\.guards\.on_spike: 'panic' is none of none, stop, skip, rollback"),
        ({"spike_sigmas": 0}, r"config\.guards\.spike_sigmas: 0 must be positive"),
        ({"spike_window": 0}, r"config\.guards\.spike_window: 0 must be positive"),
        ({"hang_seconds": 0.0}, r"config\.guards\.hang_seconds: 0\.0 must be positive"),
    ],
)
def test_wrong_values_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        Guard(CONFIG | changes)
    with pytest.raises(InputError, match=r"'rollback' is none of stop, skip"):
        Guard(CONFIG | {"on_nonfinite": "rollback"}, rollback=False)
