"""Checkpoints: what is saved comes back on any mesh, and what does not fit is refused by name."""

import functools
import shutil

import jax
import numpy as np
import optax
import pytest
from etils.epath import backend
from fsspec.implementations import dirfs, local

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import fingerprint, read_json, require_finished, write_json, write_lineage
from dsmath.train import lora
from dsmath.train.checkpoint import Checkpointer, read_model, read_params
from dsmath.train.state import abstract_params, abstract_state, create_state

OPTIMIZER = optax.adam(1e-3)
KEEP = {"save_every": 1, "keep_last": 2}


@pytest.fixture(scope="module")
def parent(tmp_path_factory, make_model_config):
    """A workdir with checkpoints of steps 3, 5 and 8 of which two are kept, and the last state on the host."""
    workdir = tmp_path_factory.mktemp("parent")
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model = Transformer(make_model_config())
    state = create_state(model, OPTIMIZER, mesh, seed=0)
    with Checkpointer(workdir, model.config, **KEEP) as checkpointer:
        for step in (3, 5, 8):
            state = state.replace(
                step=jax.device_put(np.int32(step), state.step.sharding),
                params=jax.tree.map(lambda leaf, step=step: leaf + step, state.params),
            )
            checkpointer.save(state, {"step": step, "position": [step, {"epoch": 1}]}, loss=1.0)
            checkpointer.save(state, {"step": -1}, loss=0.0)  # a step that is there is not written again
    return workdir, jax.device_get(state)


def test_the_newest_checkpoint_comes_back_on_another_mesh(parent, make_model_config):
    workdir, saved = parent
    mesh = make_mesh({"fsdp": 8})
    model = Transformer(make_model_config())
    with Checkpointer(workdir, model.config, **KEEP) as checkpointer:
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


ANOTHER_SHAPE = [
    ({"mlp_width": 64}, r"params/blocks/mlp/down is \(2, 48, 32\) there and \(2, 64, 32\) by config\.model; make"),
    ({"tied": False}, r"params/output is absent there and \(32, 64\) by config\.model"),
    ({"vocab_size": 128}, r"params/embedding is \(64, 32\) there and \(128, 32\) by config\.model"),
]


def test_any_checkpoint_that_was_kept_can_be_read_and_others_are_named(parent):
    workdir, saved = parent
    abstract = abstract_params(Transformer(read_model(workdir, step=5)), make_mesh({"data": 1}, jax.devices()[:1]))
    params = read_params(workdir, abstract, step=5)
    for leaf, newest in zip(jax.tree.leaves(params), jax.tree.leaves(saved.params), strict=True):
        np.testing.assert_allclose(leaf, newest - 8, rtol=1e-6, atol=1e-6)  # what step 8 had added
    with pytest.raises(InputError, match=r"config\.step: 3 is no checkpoint of config\.init_from=.*, which has 5, 8"):
        read_params(workdir, abstract, step=3)


@pytest.mark.parametrize(("changes", "named"), ANOTHER_SHAPE)
def test_a_checkpoint_of_another_shape_is_refused_with_its_first_leaf(parent, make_model_config, changes, named):
    workdir, _ = parent
    abstract = abstract_params(Transformer(make_model_config(**changes)), make_mesh({"data": 8}))
    with pytest.raises(InputError, match=named) as caught:
        read_params(workdir, abstract, "config.reference")
    message = str(caught.value)
    assert message.startswith(f"config.reference: {workdir}")
    assert "\n" not in message


@pytest.mark.parametrize(("changes", "named"), ANOTHER_SHAPE)
def test_a_run_does_not_resume_from_another_shape(parent, make_model_config, changes, named):
    workdir, _ = parent
    model = Transformer(make_model_config(**changes))
    with Checkpointer(workdir, model.config, **KEEP) as checkpointer, pytest.raises(InputError, match=named):
        checkpointer.restore(abstract_state(model, OPTIMIZER, make_mesh({"data": 8})))


def test_a_run_does_not_resume_with_another_optimizer(parent, make_model_config):
    workdir, _ = parent
    model = Transformer(make_model_config())
    with Checkpointer(workdir, model.config, **KEEP) as checkpointer:
        named = r"opt_state/0/count is \(\) there and absent by config\.optimizer"
        with pytest.raises(InputError, match=named):
            checkpointer.restore(abstract_state(model, optax.sgd(1e-3), make_mesh({"data": 8})))


def test_what_is_kept_are_the_newest_regular_ones_the_best_and_the_newest_of_all(tmp_path, make_model_config):
    model = Transformer(make_model_config())
    state = create_state(model, OPTIMIZER, make_mesh({"data": 8}), seed=0)
    losses = {10: 2.0, 20: 0.5, 30: np.nan, 40: 0.9, 43: 5.0, 50: 1.0, 57: 0.6}  # at 43 and 57 the run paused
    kept = {30: {20, 30}, 40: {20, 30, 40}, 43: {20, 30, 40, 43}, 50: {20, 40, 50}, 57: {20, 40, 50, 57}}
    for step, loss in losses.items():  # each in a run of its own: what is known of the losses lies on disk
        with Checkpointer(tmp_path, model.config, save_every=10, keep_last=2, keep_best=1) as checkpointer:
            place = state.step.sharding
            checkpointer.save(state.replace(step=jax.device_put(np.int32(step), place)), {}, loss)
        found = {int(entry.name) for entry in (tmp_path / "checkpoints").iterdir()}
        assert found == kept.get(step, found)


def test_a_missing_checkpoint_names_field_and_remedy(tmp_path, make_model_config):
    with pytest.raises(InputError, match=r"config\.init_from=.*no checkpoint in .*; give the workdir"):
        read_model(tmp_path / "absent")
    with Checkpointer(tmp_path / "begun", make_model_config(), **KEEP) as checkpointer:
        assert checkpointer.latest_step is None
    with pytest.raises(InputError, match=r"config\.reference=.*no finished checkpoint; run its stage again"):
        read_model(tmp_path / "begun", "config.reference")


def test_a_checkpoint_that_a_kill_cut_short_does_not_count_and_is_cleaned_away(parent, tmp_path, make_model_config):
    workdir, _ = parent
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "checkpoints" / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    model, mesh = Transformer(make_model_config()), make_mesh({"data": 8})
    with Checkpointer(copy, model.config, **KEEP) as checkpointer:
        assert checkpointer.latest_step == 8
        state, _ = checkpointer.restore(abstract_state(model, OPTIMIZER, mesh))
        checkpointer.save(state.replace(step=jax.device_put(np.int32(9), state.step.sharding)), {}, loss=1.0)
    assert sorted(entry.name for entry in (copy / "checkpoints").iterdir()) == ["8", "9"]  # what was left is gone


def test_a_parent_in_a_bucket_is_read_where_it_lies(parent, tmp_path, make_model_config, monkeypatch):
    """A folder stands in for the bucket; arrays, which TensorStore reads by itself, are left out."""
    workdir, _ = parent
    shutil.copytree(workdir, tmp_path / "runs" / "parent")
    write_json(tmp_path / "runs" / "parent" / "lineage.json", {})

    class Bucket(dirfs.DirFileSystem):
        def __init__(self, **_):
            super().__init__(path=str(tmp_path), fs=local.LocalFileSystem())

        def _join(self, path):
            return super()._join(path.removeprefix("s3://"))

    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda *_: Bucket())
    require_finished("s3://runs/parent", "config.init_from")
    assert read_model("s3://runs/parent") == make_model_config()
    write_lineage(tmp_path, parents={"init_from": "s3://runs/parent"})
    lineage = fingerprint(tmp_path / "runs" / "parent" / "lineage.json")
    record = read_json(tmp_path / "lineage.json")["parents"]["init_from"]
    assert record == {"workdir": "s3://runs/parent", "lineage": lineage, "step": 8}


def test_a_bucket_that_nothing_installed_can_read_is_refused(monkeypatch):
    def filesystem(*_):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", filesystem)
    named = r"config\.init_from='s3://runs/parent': Install s3fs to access S3 \(pip install s3fs\)"
    with pytest.raises(InputError, match=named):
        require_finished("s3://runs/parent", "config.init_from")


def test_a_run_of_adapters_resumes_with_them_and_gives_its_children_plain_parameters(
    parent, make_model_config, tmp_path
):
    model, mesh = Transformer(make_model_config()), make_mesh({"fsdp": 4, "tensor": 2})
    base = create_state(model, optax.identity(), mesh, seed=0).params
    state = create_state(model, OPTIMIZER, mesh, seed=1, lora_rank=2)
    state = state.replace(params=jax.tree.map(lambda leaf: leaf + 0.1, state.params))
    merge = jax.jit(functools.partial(lora.merge, base))
    with Checkpointer(tmp_path, model.config, merge=merge, **KEEP) as checkpointer:
        checkpointer.save(state, {"step": 0}, loss=1.0)
    with Checkpointer(tmp_path, model.config, merge=merge, **KEEP) as checkpointer:
        restored, _ = checkpointer.restore(abstract_state(model, OPTIMIZER, mesh, lora_rank=2))
    child = read_params(tmp_path, abstract_params(model, mesh))
    for got, wanted in ((restored, state), (child, merge(state.params))):
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        for leaf, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_array_equal(leaf, other)
