"""The loop of supervised training: batches in, steps, metrics and checkpoints out."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from dsmath.runs.errors import InputError
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import TrainState


class BatchIterator(Protocol):
    """An endless iterator of batches whose position can be saved."""

    def __next__(self) -> Mapping[str, Any]: ...

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...

    def counts(self) -> Mapping[str, int]:
        """Tokens given so far, by corpus."""


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]],
    batches: BatchIterator,
    checkpointer: Checkpointer,
    *,
    num_steps: int,
    save_every: int,
    log_every: int,
    on_log: Callable[[int, dict[str, float]], None],
    on_step: Callable[[int], None],
) -> TrainState:
    """Trains from `state.step` to `num_steps`; the last step is always saved.

    Args:
      on_log: called every `log_every` steps with the step and its metrics, before the step is saved.
      on_step: called after each step with its number.
    Raises:
      InputError: the loss is not finite; the checkpoint before it stays.
    """
    for step in range(int(state.step) + 1, num_steps + 1):
        state, metrics = train_step(state, next(batches))
        last = step == num_steps
        logs, saves = step % log_every == 0 or last, step % save_every == 0 or last
        if logs or saves:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not math.isfinite(values["loss"]):  # such a state is never saved
                raise InputError(
                    f"step {step}: the loss is {values['loss']}; lower config.optimizer.peak_learning_rate "
                    "or config.optimizer.clip_norm; the last checkpoint before it stays"
                )
        if logs:
            on_log(step, values)
        if saves:
            checkpointer.save(state, batches.get_state())
        on_step(step)
    return state
