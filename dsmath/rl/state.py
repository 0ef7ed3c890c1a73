"""Everything that an RL run changes, and its checkpoint."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from dsmath.model.config import ModelConfig
from dsmath.model.precision import cast_matrices
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import TrainState


@struct.dataclass
class RunState:
    """The policy, and who changes beside it.

    Attributes:
      policy: the training state.
      reference: parameters, as `freeze` gives them; None while it is the parent, which no checkpoint needs to hold.
      critic: PPO's; None elsewhere.
      reward_model: its parameters, since it first went on learning; None before, and elsewhere.
    """

    policy: TrainState
    reference: Any = None
    critic: TrainState | None = None
    reward_model: Any = None


def save(checkpointer: Checkpointer, state: RunState, data: dict[str, Any], loss: float) -> None:
    """Starts to save; see `Checkpointer.save`."""
    checkpointer.save(state.policy, data, loss, _beside(state))


def restore(checkpointer: Checkpointer, abstract: RunState) -> tuple[RunState, Any]:
    """The newest checkpoint, laid onto the shardings of `abstract`: the state, and the data's position."""
    policy, data = checkpointer.restore(abstract.policy)
    wanted = _beside(abstract)
    found = checkpointer.restore_beside(wanted) if wanted else {}
    states = {
        name: TrainState(**found[name]) if isinstance(getattr(abstract, name), TrainState) else found[name]
        for name in found
    }
    return RunState(policy, **states), data


def freeze(params: Any, config: ModelConfig) -> Any:
    """Parameters as they are now, in memory of their own, which no update gives away; see `cast_matrices`."""
    cast = cast_matrices(params, config)
    return jax.tree.map(lambda new, old: jnp.copy(new) if new.dtype == old.dtype else new, cast, params)


def _beside(state: RunState) -> dict[str, Any]:
    """What stands beside the policy, as plain trees."""
    parts = {name: getattr(state, name) for name in ("reference", "critic", "reward_model")}
    return {
        name: {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        if isinstance(part, TrainState)
        else part
        for name, part in parts.items()
        if part is not None
    }
