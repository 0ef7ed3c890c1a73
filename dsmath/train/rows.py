"""The rows of a batch: which of them a process makes, and the global batch that they add up to."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from dsmath.model.sharding import batch_sharding
from dsmath.runs import processes
from dsmath.runs.errors import InputError


def local_rows(mesh: Mesh, batch_size: int) -> range:
    """The rows of a global batch that lie on this process's devices; processes that split a row both make it.

    Raises:
      InputError: they are not side by side in the order of the mesh.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = {row for (place,) in places for row in range(*place.indices(batch_size))}
    if max(rows) - min(rows) + 1 != len(rows):
        raise InputError(
            f"config.mesh: the rows of process {processes.index()} do not lie side by side in a batch; give the axes "
            "data and fsdp, the first ones, the sizes by which the processes divide the devices"
        )
    return range(min(rows), max(rows) + 1)


def to_global(batch: Mapping[str, Any], sharding: NamedSharding) -> dict[str, Array]:
    """A batch on the mesh: of NumPy arrays with the rows of this process (all of them, of one process), or JAX's."""
    if processes.count() == 1:
        return jax.device_put(dict(batch), sharding)
    return {
        name: jax.device_put(array, sharding)
        if isinstance(array, Array)
        else jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def to_host(array: Array) -> np.ndarray:
    """A global array, whole, in every process."""
    if processes.count() == 1:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)
