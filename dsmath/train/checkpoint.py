"""Checkpoints: asynchronous Orbax, one step holds the state, the data's position and what the model is."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from dsmath.model.transformer import ModelConfig
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import LINEAGE, read_json
from dsmath.train.state import TrainState

# Parameters are stored in pieces, so that conversion reads one without holding the layers of all that it belongs to.
_CHUNKS = ocp.SaveArgs(chunk_byte_size=2**26)


class Checkpointer:
    """The checkpoints of one workdir.

    Args:
      workdir: checkpoints lie in its `checkpoints/`; its lineage is written into each.
      model: written into every checkpoint, so that a child needs no config of its parent.
      keep: number of newest checkpoints that stay.
    """

    def __init__(self, workdir: str | os.PathLike, model: ModelConfig, keep: int = 2):
        self._model = model
        lineage = pathlib.Path(workdir) / LINEAGE
        self._lineage = read_json(lineage) if lineage.exists() else {}
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = _manager(workdir, options)

    @property
    def latest_step(self) -> int | None:
        """The newest whole checkpoint; one that a kill cut short does not count."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: Mapping[str, Any]) -> None:
        """Starts to save; training goes on meanwhile.

        Args:
          state: the training state.
          data: position of the data, as JSON.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = {
            "params": ocp.args.StandardSave(state.params, save_args=jax.tree.map(lambda _: _CHUNKS, state.params)),
            "rest": ocp.args.StandardSave(_rest(state)),
            "data": ocp.args.JsonSave(dict(data)),
            "model": ocp.args.JsonSave(self._model.to_dict()),
            "lineage": ocp.args.JsonSave(self._lineage),
        }
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, abstract: TrainState) -> tuple[TrainState, Any]:
        """The newest checkpoint, laid onto the shardings of `abstract`: the state, and the data's position."""
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "rest": ocp.args.StandardRestore(_rest(abstract)),
            "data": ocp.args.JsonRestore(),
        }
        found = self._manager.restore(self.latest_step, args=ocp.args.Composite(**items))
        return TrainState(params=found["params"], **found["rest"]), found["data"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.wait_until_finished()
        self._manager.close()


def read_model(workdir: str | os.PathLike, field: str = "config.init_from") -> ModelConfig:
    """What model the newest checkpoint of a workdir holds.

    Raises:
      InputError: no checkpoint there; `field` is the config's field that names the workdir.
    """
    with _open(workdir, field) as manager:
        found = manager.restore(manager.latest_step(), args=ocp.args.Composite(model=ocp.args.JsonRestore()))
    return ModelConfig.create(found["model"])


def read_params(workdir: str | os.PathLike, abstract_params: Any, field: str = "config.init_from") -> Any:
    """The parameters of the newest checkpoint of a workdir, laid onto the shardings of `abstract_params`.

    Raises:
      InputError: no checkpoint, or one of another shape; the message names the first leaf that differs.
    """
    with _open(workdir, field) as manager:
        step = manager.latest_step()
        _check_shapes(manager.item_metadata(step)["params"], abstract_params, f"{_folder(workdir)}/{step}", field)
        args = ocp.args.Composite(params=ocp.args.StandardRestore(abstract_params))
        return manager.restore(step, args=args)["params"]


def _folder(workdir: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(workdir) / "checkpoints"


def _manager(workdir: str | os.PathLike, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    handlers = {
        "params": ocp.StandardCheckpointHandler(),
        "rest": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler(),
        "model": ocp.JsonCheckpointHandler(),
        "lineage": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(_folder(workdir).absolute(), options=options, item_handlers=handlers)


def _rest(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "rng": state.rng}


def _open(workdir: str | os.PathLike, field: str) -> ocp.CheckpointManager:
    folder = _folder(workdir)
    if not folder.is_dir():
        raise InputError(f"{field}={str(workdir)!r}: no checkpoint in {folder}; give the workdir of a trained stage")
    manager = _manager(workdir, ocp.CheckpointManagerOptions(create=False))
    if manager.latest_step() is None:
        raise InputError(f"{field}={str(workdir)!r}: {folder} holds no finished checkpoint; run its stage again")
    return manager


def _check_shapes(there: Any, here: Any, source: str, field: str) -> None:
    found = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(there)}
    wanted = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(here)}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{field}: {source}: parameter {name} is {found.get(name, 'absent')} there and "
                f"{wanted.get(name, 'absent')} in config.model; make config.model fit, or take another checkpoint"
            )
