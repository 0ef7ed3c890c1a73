"""Guards of a run: what becomes of a step whose loss or gradient is not finite or far above the ones before it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from dsmath.runs.errors import InputError
from dsmath.train.state import TrainState

NONE, STOP, SKIP, ROLLBACK = "none", "stop", "skip", "rollback"


class GuardState(NamedTuple):
    """The optimizer's state behind a guard.

    Attributes:
      inner: the optimizer's own.
      history: float32 [2, spike_window], losses and gradient norms of the last good steps, in a ring.
      good: int32, good steps so far.
      nonfinite, spikes: int32, bad steps so far.
      in_a_row: int32, bad steps since the last good one.
    """

    inner: Any
    history: Array
    good: Array
    nonfinite: Array
    spikes: Array
    in_a_row: Array


class Guard:
    """Judges every step inside the jitted step, and at every look says on the host what follows.

    All that it goes by lies in the training state, so a resumed run decides as the unbroken one.

    Args:
      config: `config.guards`: on_nonfinite, on_spike, spike_sigmas, spike_window, max_skips, max_rollbacks; and
        hang_seconds, of `dsmath.train.watch`, which is looked at here, at the start.
      rollback: whether the loop can go back.
    Source: the measure of a spike and its numbers are those of OLMo 2's SkipStepOptimizer (arXiv 2501.00656).
    """

    def __init__(self, config: Mapping[str, Any], rollback: bool = True):
        known = (STOP, SKIP, ROLLBACK) if rollback else (STOP, SKIP)
        for field, words in (("on_nonfinite", known), ("on_spike", (NONE, *known))):
            if config[field] not in words:
                raise InputError(f"config.guards.{field}: {config[field]!r} is none of {', '.join(words)}")
        for field in ("spike_sigmas", "spike_window", "hang_seconds"):
            if config[field] <= 0:
                raise InputError(f"config.guards.{field}: {config[field]} must be positive")
        self._config = config
        self._policies = {"nonfinite": config["on_nonfinite"], "spikes": config["on_spike"]}
        self._seen: Mapping[str, int] = {}

    def wrap(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        """The optimizer, whose update takes `loss` and `grad_norm` too and, under "skip", passes bad steps by."""
        inner, config, policies = optax.with_extra_args_support(optimizer), self._config, self._policies

        def init(params: Any) -> GuardState:
            zero, history = jnp.zeros((), jnp.int32), jnp.zeros((2, config["spike_window"]), jnp.float32)
            return GuardState(inner.init(params), history, zero, zero, zero, zero)

        def update(grads: Any, state: GuardState, params: Any = None, *, loss: Array, grad_norm: Array):
            values = jnp.stack([loss, grad_norm]).astype(jnp.float32)
            finite = jnp.isfinite(values).all()
            spike = (policies["spikes"] != NONE) & finite & _is_spike(values, state, config["spike_sigmas"])
            updates, inner_state = inner.update(grads, state.inner, params)
            if SKIP in policies.values():
                skipped = ((policies["nonfinite"] == SKIP) & ~finite) | ((policies["spikes"] == SKIP) & spike)
                kept = (optax.tree.zeros_like(updates), state.inner)
                choose = lambda new, old: jnp.where(skipped, old, new)  # noqa: E731
                updates, inner_state = jax.tree.map(choose, (updates, inner_state), kept)
            good, place = finite & ~spike, state.good % config["spike_window"]
            return updates, GuardState(
                inner=inner_state,
                history=jnp.where(good, state.history.at[:, place].set(values), state.history),
                good=state.good + good,
                nonfinite=state.nonfinite + ~finite,
                spikes=state.spikes + spike,
                in_a_row=jnp.where(good, 0, state.in_a_row + 1),
            )

        return optax.GradientTransformationExtraArgs(init, update)

    def begin(self, state: TrainState) -> None:
        """Takes a state that a run starts from, or has gone back to: its bad steps are dealt with."""
        self._seen = _counts(state)

    def skipped(self, state: TrainState) -> int:
        """How many steps' updates were skipped since the training began."""
        counts = _counts(state)
        return sum(counts[kind] for kind, policy in self._policies.items() if policy == SKIP)

    def must_go_back(self, step: int, state: TrainState, loss: float, rollbacks: int = 0) -> bool:
        """Whether the run must go back to its last checkpoint, for the steps since the last look.

        Args:
          step: the last one.
          state: after it.
          loss: of it.
          rollbacks: how often the run has gone back already.
        Raises:
          InputError: the run must stop.
        """
        counts, before = _counts(state), self._seen
        self._seen = counts
        found = {kind: counts[kind] - before[kind] for kind in self._policies if counts[kind] > before[kind]}
        policies, config = {self._policies[kind] for kind in found}, self._config
        why = ""
        if STOP in policies:
            why = "config.guards says to stop"
        elif SKIP in policies and counts["in_a_row"] > config["max_skips"]:
            why = f"more in a row than config.guards.max_skips={config['max_skips']}"
        elif ROLLBACK in policies and rollbacks >= config["max_rollbacks"]:
            why = f"after as many rollbacks as config.guards.max_rollbacks={config['max_rollbacks']} allows"
        if why:
            told = ", ".join(f"{number} with {_WORDS[kind]}" for kind, number in found.items())
            raise InputError(
                f"step {step}: the loss is {loss} (of the steps since the last look {told}), {why}; lower "
                "config.optimizer.peak_learning_rate or config.optimizer.clip_norm; the last checkpoint before it stays"
            )
        return ROLLBACK in policies


_WORDS = {"nonfinite": "a loss or gradient that is not finite", "spikes": "a spike"}


def _is_spike(values: Array, state: GuardState, sigmas: float) -> Array:
    """Whether the loss or the gradient norm lies so many standard deviations above those of the last good steps."""
    window = state.history.shape[1]
    number = jnp.minimum(state.good, window)
    filled = jnp.arange(window) < number
    mean = jnp.where(filled, state.history, 0.0).sum(axis=1) / jnp.maximum(number, 1)
    squares = jnp.where(filled, (state.history - mean[:, None]) ** 2, 0.0).sum(axis=1)
    deviation = jnp.sqrt(squares / jnp.maximum(number - 1, 1))
    return (number >= max(2, window // 2)) & (values > mean + sigmas * deviation).any()


def _counts(state: TrainState) -> dict[str, int]:
    names = ("nonfinite", "spikes", "in_a_row")
    return {name: int(value) for name, value in jax.device_get({n: getattr(state.opt_state, n) for n in names}).items()}
