"""A program of a step, before it is compiled."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from dsmath.plan import flops


@dataclasses.dataclass(frozen=True)
class Work:
    """One program of a step.

    Attributes:
      lower: gives it, lowered.
      batch: shapes and shardings of what it takes besides parameters, state and what is held.
      forward: operations of the forward passes that one run asks for, over all devices.
      passes: forward passes' worth of operations: 1, 3 with gradients, 2 with those of adapters alone.
      times: how often a step runs it.
      updates: whether it is the one that changes the state.
      kernels: of the forward pass's operations those of attention that a kernel does, which is compiled away.
      held: bytes on a device by kind that are there while it runs, beside the state's.
    """

    lower: Callable[[], jax.stages.Lowered]
    batch: Any
    forward: flops.Forward
    passes: int
    times: int = 1
    updates: bool = False
    kernels: float = 0.0
    held: Mapping[str, int] = dataclasses.field(default_factory=dict)


def device_bytes(tree: Any) -> int:
    """Bytes of a tree of shapes on one device; one without a sharding is there whole."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
