"""The loop of supervised training: batches in, steps, metrics and checkpoints out."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax

from dsmath.runs import processes
from dsmath.runs.errors import Preempted
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.guards import Guard
from dsmath.train.state import TrainState, abstract_like
from dsmath.train.watch import Watch


class BatchIterator(Protocol):
    """An endless iterator of batches, of the rows that this process makes, whose position can be saved."""

    def __next__(self) -> Mapping[str, Any]: ...

    def get_state(self) -> Any:
        """The position of this process's rows, as JSON."""

    def set_state(self, state: Any) -> None:
        """Goes on from the position of all processes."""

    def merge_states(self, states: Iterable[Any]) -> Any:
        """The position of all processes, from that of each."""

    def counts(self) -> Mapping[str, int]:
        """Tokens that this process's rows have held so far, by corpus."""


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict[str, jax.Array]]],
    batches: BatchIterator,
    checkpointer: Checkpointer,
    guard: Guard,
    watch: Watch,
    *,
    num_steps: int,
    save_every: int,
    log_every: int,
    rollbacks: int,
    on_log: Callable[[int, dict[str, float]], None],
    on_step: Callable[[int], None],
    on_rollback: Callable[[int, int], None],
) -> TrainState:
    """Trains from `state.step` to `num_steps`; the last step is always saved.

    Args:
      rollbacks: how often the run has gone back before.
      on_log: called every `log_every` steps with the step and its metrics, before the step is saved.
      on_step: called after each step with its number.
      on_rollback: called with the step and the earlier one that the run goes back to; the data go on where they are.
    Raises:
      InputError: the guard stops the run; the checkpoint before it stays.
      Preempted: the machine is taken away; the last step is saved.
    """
    guard.begin(state)
    step = int(state.step)
    while step < num_steps:
        step += 1
        watch.begin(step)
        state, metrics = train_step(state, next(batches))
        watch.end(step, metrics)

        last, pauses = step == num_steps, watch.preempted(step)
        logs, saves = step % log_every == 0 or last, step % save_every == 0 or last or pauses
        if logs or saves:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            values |= {"skipped": guard.skipped(state), "rollbacks": rollbacks}
            if guard.must_go_back(step, state, values["loss"], rollbacks):  # such a state is never saved
                if pauses:  # the resumed run comes here again
                    raise Preempted(f"paused before step {step}, which goes back; the same line resumes")
                abstract, state = abstract_like(state), None  # there may be no room for two states
                state = checkpointer.go_back(abstract)
                guard.begin(state)
                on_rollback(step, int(state.step))
                step, rollbacks = int(state.step), rollbacks + 1
                continue
        if logs:
            watch.log(step)
            on_log(step, values)
        if saves:
            position = batches.merge_states(processes.gather(batches.get_state()))
            checkpointer.save(state, {"batches": position, "rollbacks": rollbacks}, values["loss"])
        on_step(step)
        if pauses and not last:
            raise Preempted(f"paused at step {step}; the same line resumes")
    return state
