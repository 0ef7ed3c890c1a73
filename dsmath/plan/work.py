"""A step of a stage and its programs, before they are compiled."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from dsmath.model.sharding import batch_sharding
from dsmath.plan import flops
from dsmath.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Work:
    """One program of a step.

    Attributes:
      lower: gives it, lowered.
      batch: shapes and shardings of what it takes besides parameters, state and what is held.
      forward: operations of the forward passes that one run asks for, over all devices.
      passes: forward passes' worth of operations: 1, 3 with gradients, 2 with those of adapters alone.
      times: how often a step runs it.
      changes: shapes and shardings of the state that it updates, if any; its gradients are temporaries, or `held`.
      kernels: of the forward pass's operations those of attention that a kernel does, which is compiled away.
      held: bytes on a device by kind that are there while it runs, beside the state's.
    """

    lower: Callable[[], jax.stages.Lowered]
    batch: Any
    forward: flops.Forward
    passes: int
    times: int = 1
    changes: TrainState | None = None
    kernels: float = 0.0
    held: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a step of a stage is.

    Attributes:
      state: shapes and shardings of what it changes.
      works: its programs by what they are for.
      tokens: that a step learns from, or draws.
      frozen: of the parameters that stay: the reference's, the adapters' base, or nothing.
      beside: of what else stays on the devices, by kind.
    """

    state: TrainState
    works: dict[str, Work]
    tokens: int
    frozen: Any = None
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def rows_of(mesh: Mesh, *shape: int) -> Callable[[Any], jax.ShapeDtypeStruct]:
    """dtype -> an array of this shape, its rows spread over the devices."""
    return lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))


def device_bytes(tree: Any) -> int:
    """Bytes of a tree of shapes on one device; one without a sharding is there whole."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
