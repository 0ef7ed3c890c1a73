"""Checkpoints: what is saved comes back on any mesh, and what does not fit is refused by name."""

import shutil

import jax
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.runs.errors import InputError
from dsmath.train.checkpoint import Checkpointer, read_model, read_params
from dsmath.train.state import abstract_params, abstract_state, create_state

OPTIMIZER = optax.adam(1e-3)


@pytest.fixture(scope="module")
def parent(tmp_path_factory, make_model_config):
    """A workdir with checkpoints of steps 3, 5 and 8 of which two are kept, and the last state on the host."""
    workdir = tmp_path_factory.mktemp("parent")
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model = Transformer(make_model_config())
    state = create_state(model, OPTIMIZER, mesh, seed=0)
    with Checkpointer(workdir, model.config) as checkpointer:
        for step in (3, 5, 8):
            state = state.replace(
                step=jax.device_put(np.int32(step), state.step.sharding),
                params=jax.tree.map(lambda leaf, step=step: leaf + step, state.params),
            )
            checkpointer.save(state, {"step": step, "position": [step, {"epoch": 1}]})
            checkpointer.save(state, {"step": -1})  # a step that is there is not written again
    return workdir, jax.device_get(state)


def test_the_newest_checkpoint_comes_back_on_another_mesh(parent, make_model_config):
    workdir, saved = parent
    mesh = make_mesh({"fsdp": 8})
    model = Transformer(make_model_config())
    with Checkpointer(workdir, model.config) as checkpointer:
        assert checkpointer.latest_step == 8
        abstract = abstract_state(model, OPTIMIZER, mesh)
        state, data = checkpointer.restore(abstract)
    assert data == {"step": 8, "position": [8, {"epoch": 1}]}
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    for leaf, wanted, place in zip(*map(jax.tree.leaves, (state, saved, abstract)), strict=True):
        assert leaf.sharding.is_equivalent_to(place.sharding, leaf.ndim)
        assert leaf.dtype == wanted.dtype
        np.testing.assert_array_equal(leaf, wanted)


def test_only_the_newest_two_stay(parent):
    workdir, _ = parent
    assert sorted(entry.name for entry in (workdir / "checkpoints").iterdir()) == ["5", "8"]


def test_a_child_reads_model_and_parameters_without_its_parents_config(parent, make_model_config):
    workdir, saved = parent
    config = read_model(workdir)
    assert config == make_model_config()
    params = read_params(workdir, abstract_params(Transformer(config), make_mesh({"data": 4, "tensor": 2})))
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(saved.params), strict=True):
        np.testing.assert_array_equal(leaf, wanted)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mlp_width": 64}, r"parameter .*'blocks'.*'mlp'.*'down'.* is \(2, 48, 32\) there and \(2, 64, 32\)"),
        ({"tied": False}, r"parameter .*'output'.* is absent there and \(32, 64\)"),
        ({"vocab_size": 128}, r"parameter .*'embedding'.* is \(64, 32\) there and \(128, 32\)"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused_with_its_first_leaf(parent, make_model_config, changes, named):
    workdir, _ = parent
    abstract = abstract_params(Transformer(make_model_config(**changes)), make_mesh({"data": 8}))
    with pytest.raises(InputError, match=named) as caught:
        read_params(workdir, abstract, "config.reference")
    message = str(caught.value)
    assert message.startswith(f"config.reference: {workdir}")
    assert "\n" not in message


def test_a_missing_checkpoint_names_field_and_remedy(tmp_path, make_model_config):
    with pytest.raises(InputError, match=r"config\.init_from=.*no checkpoint in .*; give the workdir"):
        read_model(tmp_path / "absent")
    with Checkpointer(tmp_path / "begun", make_model_config()) as checkpointer:
        assert checkpointer.latest_step is None
    with pytest.raises(InputError, match=r"config\.reference=.*no finished checkpoint; run its stage again"):
        read_model(tmp_path / "begun", "config.reference")


def test_a_checkpoint_that_a_kill_cut_short_does_not_count(parent, tmp_path, make_model_config):
    workdir, _ = parent
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "checkpoints" / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    with Checkpointer(copy, make_model_config()) as checkpointer:
        assert checkpointer.latest_step == 8
