"""Checkpoints: asynchronous Orbax, one step holds the state, the data's position and what the model is."""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from dsmath.model.transformer import ModelConfig
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import LINEAGE, read_json, to_path
from dsmath.train.state import TrainState

# Parameters are stored in pieces, so that conversion reads one without holding the layers of all that it belongs to.
_CHUNKS = ocp.SaveArgs(chunk_byte_size=2**26)


class Checkpointer:
    """The checkpoints of one workdir; all processes of a run call it alike.

    What a kill in the middle of a save has left is cleaned away at the start.

    Args:
      workdir: checkpoints lie in its `checkpoints/`; its lineage is written into each.
      model: written into every checkpoint, so that a child needs no config of its parent.
      save_every: steps between two regular checkpoints; others, of a run that was asked to pause, take no regular
        one's place.
      keep_last: number of newest regular checkpoints that stay; the newest of all always does.
      keep_best: number of checkpoints that stay besides because their losses are the lowest.
      merge: of a run whose state holds adapters: makes the plain parameters that children of the checkpoint read.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        model: ModelConfig,
        *,
        save_every: int,
        keep_last: int,
        keep_best: int = 0,
        merge: Callable[[Any], Any] | None = None,
    ):
        self._model, self._save_every, self._merge = model, save_every, merge
        lineage = pathlib.Path(workdir) / LINEAGE
        self._lineage = read_json(lineage) if lineage.exists() else {}
        policies = [
            ocp.checkpoint_managers.LatestN(1),
            ocp.checkpoint_managers.EveryNSteps(save_every, max_to_keep=keep_last),
            ocp.checkpoint_managers.BestN(
                get_metric_fn=_loss, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False
            ),
        ]
        options = ocp.CheckpointManagerOptions(
            best_fn=_loss,  # without it no metrics are written
            best_mode="min",
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        self._manager = _manager(workdir, options)

    @property
    def latest_step(self) -> int | None:
        """The newest whole checkpoint; one that a kill cut short does not count."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """The checkpoints that stand."""
        return list(self._manager.all_steps())

    def save(
        self, state: TrainState, data: Mapping[str, Any], loss: float, beside: Mapping[str, Any] | None = None
    ) -> None:
        """Starts to save; training goes on meanwhile.

        Args:
          state: the training state.
          data: position of the data, as JSON.
          loss: by which the best checkpoints are kept.
          beside: what else the run needs to go on, trees of arrays by name; see `restore_beside`.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        params = self._merge(state.params) if self._merge else state.params
        items = {
            "params": ocp.args.StandardSave(params, save_args=jax.tree.map(lambda _: _CHUNKS, params)),
            "rest": ocp.args.StandardSave(self._rest(state)),
            "data": ocp.args.JsonSave(dict(data)),
            "model": ocp.args.JsonSave(self._model.to_dict()),
            "lineage": ocp.args.JsonSave(self._lineage),
        }
        if beside:
            items["beside"] = ocp.args.StandardSave(dict(beside))
        self._manager.save(step, args=ocp.args.Composite(**items), metrics={"loss": loss})

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, Any]:
        """A checkpoint, laid onto the shardings of `abstract`: the state, and the data's position.

        Args:
          abstract: shapes, dtypes and shardings of the state.
          step: of the checkpoint; the newest where not given.
        Raises:
          InputError: it is of another shape; the message names the first leaf that differs.
        """
        step = self.latest_step if step is None else step
        found, source = self._manager.item_metadata(step), f"{self._manager.directory}/{step}"
        rest = self._rest(abstract)
        items = {"rest": ocp.args.StandardRestore(rest), "data": ocp.args.JsonRestore()}
        if not self._merge:
            _check_shapes(found["params"], abstract.params, f"--workdir: {source}", "config.model")
            items["params"] = ocp.args.StandardRestore(abstract.params)
        _check_shapes(found["rest"], rest, f"--workdir: {source}", "config.optimizer or config.guards")
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        rest = restored["rest"]
        params = rest.pop("adapters") if self._merge else restored["params"]
        return TrainState(params=params, **rest), restored["data"]

    def restore_beside(self, abstract: Mapping[str, Any]) -> dict[str, Any]:
        """What `save` got as `beside` in the newest checkpoint, laid onto the shardings of `abstract`."""
        step = self.latest_step
        source = f"--workdir: {self._manager.directory}/{step}"
        _check_shapes(self._manager.item_metadata(step)["beside"], dict(abstract), source, "config")
        args = ocp.args.Composite(beside=ocp.args.StandardRestore(dict(abstract)))
        return self._manager.restore(step, args=args)["beside"]

    def go_back(self, abstract: TrainState) -> TrainState:
        """The state of the last regular checkpoint, to which a run goes back in the same way each time it is resumed.

        Raises:
          InputError: there is none yet.
        """
        self._manager.wait_until_finished()
        regular = [step for step in self._manager.all_steps() if step % self._save_every == 0]
        if not regular:
            raise InputError("config.guards: the run must go back before its first checkpoint; lower config.save_every")
        return self.restore(abstract, max(regular))[0]

    def _rest(self, state: TrainState) -> dict[str, Any]:
        rest = {"step": state.step, "opt_state": state.opt_state, "rng": state.rng}
        return rest | {"adapters": state.params} if self._merge else rest

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.wait_until_finished()
        self._manager.close()


def read_model(workdir: str | os.PathLike, field: str = "config.init_from", step: int = 0) -> ModelConfig:
    """What model a checkpoint of a workdir holds.

    Args:
      workdir: of the run that made it.
      field: the config's field that names the workdir.
      step: of the checkpoint; 0: the newest.
    Raises:
      InputError: no checkpoint there, or none of this step.
    """
    with _open(workdir, field, step) as (manager, at):
        found = manager.restore(at, args=ocp.args.Composite(model=ocp.args.JsonRestore()))
    return ModelConfig.create(found["model"])


def read_params(
    workdir: str | os.PathLike, abstract_params: Any, field: str = "config.init_from", step: int = 0
) -> Any:
    """The parameters of a checkpoint of a workdir, laid onto the shardings of `abstract_params`.

    Args:
      workdir: of the run that made it.
      abstract_params: shapes, dtypes and shardings.
      field: the config's field that names the workdir.
      step: of the checkpoint; 0: the newest.
    Raises:
      InputError: no checkpoint, none of this step, or one of another shape; the message names the first leaf that
        differs.
    """
    with _open(workdir, field, step) as (manager, at):
        source = f"{field}: {manager.directory}/{at}"
        _check_shapes(manager.item_metadata(at)["params"], abstract_params, source, "config.model")
        args = ocp.args.Composite(params=ocp.args.StandardRestore(abstract_params))
        return manager.restore(at, args=args)["params"]


def _folder(workdir: str | os.PathLike) -> os.PathLike:
    folder = to_path(workdir) / "checkpoints"
    return folder if "://" in os.fspath(folder) else folder.absolute()


def _loss(metrics: Mapping[str, float]) -> float:
    """By which the best are kept; that of a step which was skipped may be no number."""
    return metrics["loss"] if math.isfinite(metrics["loss"]) else math.inf


def _manager(workdir: str | os.PathLike, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    handlers = {
        "params": ocp.StandardCheckpointHandler(),
        "rest": ocp.StandardCheckpointHandler(),
        "beside": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler(),
        "model": ocp.JsonCheckpointHandler(),
        "lineage": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(_folder(workdir), options=options, item_handlers=handlers)


@contextlib.contextmanager
def _open(workdir: str | os.PathLike, field: str, step: int) -> Iterator[tuple[ocp.CheckpointManager, int]]:
    """A workdir's checkpoints and the step that is asked for."""
    folder = _folder(workdir)
    if not folder.is_dir():
        raise InputError(f"{field}={str(workdir)!r}: no checkpoint in {folder}; give the workdir of a trained stage")
    copied = ocp.options.AtomicityOptions(allow_legacy_atomic_rename=True)  # to a bucket, from where it was written
    with _manager(workdir, ocp.CheckpointManagerOptions(create=False, atomicity_options=copied)) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise InputError(f"{field}={str(workdir)!r}: {folder} holds no finished checkpoint; run its stage again")
        if step and step not in steps:
            there = ", ".join(map(str, steps))
            raise InputError(f"config.step: {step} is no checkpoint of {field}={str(workdir)!r}, which has {there}")
        yield manager, step or steps[-1]


def _check_shapes(there: Any, here: Any, source: str, whole: str) -> None:
    found, wanted = _shapes(there), _shapes(here)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{source}: {name} is {found.get(name, 'absent')} there and {wanted.get(name, 'absent')} by {whole}; "
                f"make {whole} fit, or take another checkpoint"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf by its path, whether a tree holds tuples or, as Orbax tells it, lists."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
