"""The loop: when it logs, when it saves, and that a broken state is never saved."""

import jax
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.runs.errors import InputError
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.loop import fit
from dsmath.train.state import create_state, make_train_step
from dsmath.train.supervised import next_token_loss

NAN_FROM = 100


class _Batches:
    """Batches of random tokens by position; from position NAN_FROM on their loss is not a number."""

    def __init__(self, position: int = 0):
        self._position = position

    def __next__(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self._position)
        self._position += 1
        tokens = rng.integers(0, 64, (8, 9)).astype(np.int32)
        mask = np.full((8, 8), np.nan if self._position > NAN_FROM else 1.0, np.float32)
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


@pytest.fixture(scope="module")
def run(make_model_config):
    """(workdir, batches, steps…) -> logged steps and counted steps."""
    mesh = make_mesh({"data": 8})
    model, optimizer = Transformer(make_model_config()), optax.adam(1e-3)
    train_step = make_train_step(next_token_loss(model, logits_chunk=5), optimizer, mesh)

    def run(workdir, batches, **steps):
        logged, counted = [], []
        state = create_state(model, optimizer, mesh, seed=0)
        with Checkpointer(workdir, model.config, keep=100) as checkpointer:
            try:
                state = fit(
                    state,
                    train_step,
                    batches,
                    checkpointer,
                    on_log=lambda step, values: logged.append((step, values)),
                    on_step=counted.append,
                    **steps,
                )
            finally:
                run.logged, run.counted = logged, counted
        return state

    return run


def _saved(workdir) -> list[int]:
    return sorted(int(entry.name) for entry in (workdir / "checkpoints").iterdir())


def test_logs_and_saves_come_at_their_intervals_and_at_the_end(run, tmp_path):
    state = run(tmp_path, _Batches(), num_steps=7, save_every=3, log_every=2)
    assert int(state.step) == 7
    assert [step for step, _ in run.logged] == [2, 4, 6, 7]
    assert all(values.keys() == {"loss", "grad_norm", "update_norm"} for _, values in run.logged)
    assert run.counted == [1, 2, 3, 4, 5, 6, 7]
    assert _saved(tmp_path) == [3, 6, 7]


def test_a_checkpoint_holds_the_datas_position_after_its_step(run, tmp_path, make_model_config):
    state = run(tmp_path, _Batches(position=10), num_steps=4, save_every=4, log_every=4)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with Checkpointer(tmp_path, make_model_config(), keep=100) as checkpointer:
        _, data = checkpointer.restore(abstract)
    assert data == {"position": 14}


def test_a_non_finite_loss_is_never_saved_and_says_so(run, tmp_path):
    # The loss breaks at step 4, which is not logged: the saving at step 6 must notice it.
    with pytest.raises(InputError, match=r"step 6: the loss is nan; lower config\.optimizer\.peak_learning_rate"):
        run(tmp_path, _Batches(NAN_FROM - 3), num_steps=9, save_every=3, log_every=100)
    assert _saved(tmp_path) == [3]
    assert run.logged == []
