"""The rows of a batch: which of them a process makes, and the global batch that they add up to."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from dsmath.model.sharding import batch_sharding
from dsmath.runs import processes


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of a global batch that lie on this process's devices, in order; not side by side on a TPU's torus.

    Processes that split a row both make it.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return sorted({row for (place,) in places for row in range(*place.indices(batch_size))})


def to_global(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Array]:
    """A batch on the mesh: of NumPy arrays with the rows of this process (all of them, of one process), or JAX's."""
    sharding = batch_sharding(mesh)
    if processes.count() == 1:
        return jax.device_put(dict(batch), sharding)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    place = {shard: place for place, shard in enumerate(local_rows(mesh, shards))}

    def spread(array: np.ndarray) -> Array:
        size = len(array) // len(place)  # rows of a shard

        def cut(index: tuple[slice, ...]) -> np.ndarray:
            start = place[(index[0].start or 0) // size] * size
            return array[start : start + size]

        return jax.make_array_from_callback((size * shards, *array.shape[1:]), sharding, cut)

    return {
        name: jax.device_put(array, sharding) if isinstance(array, Array) else spread(array)
        for name, array in batch.items()
    }


def to_host(array: Array) -> np.ndarray:
    """A global array, whole, in every process."""
    if processes.count() == 1:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)
