"""The loop: when it logs, saves, goes back and pauses, and that a broken state is never saved."""

import os
import signal

import jax
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.runs.errors import InputError, Preempted
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.guards import Guard
from dsmath.train.loop import fit
from dsmath.train.state import abstract_like, create_state, make_train_step
from dsmath.train.supervised import next_token_loss
from dsmath.train.watch import Watch

GUARDS = {
    "on_nonfinite": "stop",
    "on_spike": "none",
    "spike_sigmas": 6.0,
    "spike_window": 8,
    "max_skips": 2,
    "max_rollbacks": 2,
    "hang_seconds": 600.0,
}
METRICS = {"loss", "grad_norm", "param_norm", "update_norm", "update_ratio", "skipped", "rollbacks"}


class _Batches:
    """Batches of random tokens by position; those at the positions `bad` make a loss that is not a number."""

    def __init__(self, position: int = 0, bad: tuple[int, ...] = ()):
        self._position, self._bad = position, bad

    def __next__(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self._position)
        mask = np.full((8, 8), np.nan if self._position in self._bad else 1.0, np.float32)
        self._position += 1
        tokens = rng.integers(0, 64, (8, 9)).astype(np.int32)
        positions = np.broadcast_to(np.arange(8, dtype=np.int32), (8, 8))
        return {
            "tokens": tokens[:, :-1],
            "targets": tokens[:, 1:],
            "positions": positions,
            "segment_ids": np.ones_like(positions),
            "loss_mask": mask,
        }

    def get_state(self) -> dict[str, int]:
        return {"position": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        self._position = state["position"]

    @staticmethod
    def merge_states(states: list[dict[str, int]]) -> dict[str, int]:
        return states[0]


class _Run:
    """Runs of the loop in workdirs, with one compiled step for each guard."""

    def __init__(self, model: Transformer):
        self._model, self._mesh, self._parts = model, make_mesh({"data": 8}), {}
        self.logged, self.counted, self.gone_back = [], [], []

    def __call__(self, workdir, batches, *, guards=None, on_step=lambda step: None, **steps):
        """From the newest checkpoint or from scratch to the end; the last state, with the run's notes in `self`."""
        guard = Guard(GUARDS | (guards or {}))
        name = str(guards)
        if name not in self._parts:
            optimizer = guard.wrap(optax.adam(1e-3))
            train_step = make_train_step(next_token_loss(self._model, 5), optimizer, self._mesh)
            first = create_state(self._model, optimizer, self._mesh, seed=0)
            self._parts[name] = (train_step, jax.device_get(first), abstract_like(first))
        train_step, first, abstract = self._parts[name]
        self.logged, self.counted, self.gone_back = [], [], []
        keep = {"save_every": steps["save_every"], "keep_last": 100}
        with (
            Checkpointer(workdir, self._model.config, **keep) as checkpointer,
            Watch(workdir, 60.0, {"first_step": 0, "num_steps": 1}) as watch,
        ):
            rollbacks = 0
            if checkpointer.latest_step is None:
                state = jax.device_put(first, jax.tree.map(lambda leaf: leaf.sharding, abstract))
            else:
                state, data = checkpointer.restore(abstract)
                batches.set_state(data["batches"])
                rollbacks = data["rollbacks"]
            return fit(
                state,
                train_step,
                batches,
                checkpointer,
                guard,
                watch,
                rollbacks=rollbacks,
                on_log=lambda step, values: self.logged.append((step, values)),
                on_step=lambda step: (self.counted.append(step), on_step(step)),
                on_rollback=lambda step, earlier: self.gone_back.append((step, earlier)),
                **steps,
            )


@pytest.fixture(scope="module")
def run(make_model_config):
    return _Run(Transformer(make_model_config()))


def _saved(workdir) -> list[int]:
    return sorted(int(entry.name) for entry in (workdir / "checkpoints").iterdir())


def _assert_same(one, other) -> None:
    for leaf, wanted in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(leaf, wanted)


def test_logs_and_saves_come_at_their_intervals_and_at_the_end(run, tmp_path):
    state = run(tmp_path, _Batches(), num_steps=7, save_every=3, log_every=2)
    assert int(state.step) == 7
    assert [step for step, _ in run.logged] == [2, 4, 6, 7]
    assert all(values.keys() == METRICS for _, values in run.logged)
    for _, values in run.logged:
        assert values["update_ratio"] == pytest.approx(values["update_norm"] / values["param_norm"])
    assert run.counted == [1, 2, 3, 4, 5, 6, 7]
    assert _saved(tmp_path) == [3, 6, 7]


def test_a_checkpoint_holds_the_datas_position_after_its_step(run, tmp_path, make_model_config):
    state = run(tmp_path, _Batches(position=10), num_steps=4, save_every=4, log_every=4)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with Checkpointer(tmp_path, make_model_config(), save_every=4, keep_last=1) as checkpointer:
        _, data = checkpointer.restore(abstract)
    assert data == {"batches": {"position": 14}, "rollbacks": 0}


def test_a_non_finite_loss_is_never_saved_and_says_so(run, tmp_path):
    # The loss breaks at step 4, which is not logged: the saving at step 6 must notice it.
    with pytest.raises(InputError, match=r"step 6: the loss is nan .*; lower config\.optimizer\.peak_learning_rate"):
        run(tmp_path, _Batches(bad=range(3, 100)), num_steps=9, save_every=3, log_every=100)
    assert _saved(tmp_path) == [3]
    assert run.logged == []


def test_a_bad_batch_is_skipped_as_if_it_had_not_been_there(run, tmp_path):
    skip = {"on_nonfinite": "skip"}
    state = run(tmp_path / "bad", _Batches(bad=(3,)), guards=skip, num_steps=7, save_every=7, log_every=1)
    assert [values["skipped"] for _, values in run.logged] == [0, 0, 0, 1, 1, 1, 1]
    assert run.logged[3][1]["update_norm"] == 0

    class Without(_Batches):
        def __next__(self):
            self._position += self._position == 3
            return super().__next__()

    good = run(tmp_path / "good", Without(), guards=skip, num_steps=6, save_every=6, log_every=1)
    _assert_same(state.params, good.params)
    _assert_same(state.opt_state.inner, good.opt_state.inner)


def test_too_many_skips_in_a_row_stop_the_run(run, tmp_path):
    with pytest.raises(InputError, match=r"step 6: .* more in a row than config\.guards\.max_skips=2"):
        run(
            tmp_path,
            _Batches(bad=(1, 3, 4, 5)),
            guards={"on_nonfinite": "skip"},
            num_steps=9,
            save_every=3,
            log_every=3,
        )
    assert _saved(tmp_path) == [3]


def test_a_run_goes_back_to_its_last_checkpoint_and_on_with_the_data_that_follow(run, tmp_path):
    back = {"on_nonfinite": "rollback"}
    steps = {"num_steps": 8, "save_every": 3, "log_every": 2}
    state = run(tmp_path / "bad", _Batches(bad=(4,)), guards=back, **steps)
    assert run.gone_back == [(6, 3)]  # the look at step 6 sees what step 5 met
    assert run.logged[-1][1]["rollbacks"] == 1

    class Without(_Batches):  # what steps 4, 5 and 6 had met first
        def __next__(self):
            self._position = {3: 6}.get(self._position, self._position)
            return super().__next__()

    good = run(tmp_path / "good", Without(), guards=back, **steps)
    _assert_same(state.params, good.params)


def test_a_run_goes_back_so_often_and_no_more(run, tmp_path):
    with pytest.raises(InputError, match=r"step 4: .* after as many rollbacks as config\.guards\.max_rollbacks=2"):
        run(
            tmp_path,
            _Batches(bad=range(2, 100)),
            guards={"on_nonfinite": "rollback"},
            num_steps=8,
            save_every=2,
            log_every=2,
        )
    assert run.gone_back == [(4, 2), (4, 2)]
    assert _saved(tmp_path) == [2]


def test_a_run_cannot_go_back_before_its_first_checkpoint(run, tmp_path):
    with pytest.raises(InputError, match=r"before its first checkpoint; lower config\.save_every"):
        run(tmp_path, _Batches(bad=(1,)), guards={"on_nonfinite": "rollback"}, num_steps=8, save_every=4, log_every=2)


def test_a_run_that_is_terminated_saves_the_step_and_ends_as_the_unbroken_one(run, tmp_path):
    back = {"on_nonfinite": "rollback"}
    steps = {"num_steps": 9, "save_every": 3, "log_every": 3}
    whole = run(tmp_path / "whole", _Batches(bad=(4,)), guards=back, **steps)
    before = signal.getsignal(signal.SIGTERM)
    paused = []
    while True:  # the signal comes after the first step of three runs
        try:
            left = run(
                tmp_path / "paused",
                _Batches(bad=(4,)),
                guards=back,
                on_step=lambda step: len(run.counted) == 1 and len(paused) < 3 and os.kill(os.getpid(), signal.SIGTERM),
                **steps,
            )
            break
        except Preempted as pause:
            paused.append(str(pause))
    assert paused == [
        "paused at step 2; the same line resumes",
        "paused at step 4; the same line resumes",
        "paused before step 6, which goes back; the same line resumes",
    ]
    assert signal.getsignal(signal.SIGTERM) == before
    _assert_same(left, whole)
