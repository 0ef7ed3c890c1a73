"""The device mesh and the table from logical axes to mesh axes."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dsmath.runs.errors import InputError

MESH_AXES = ("data", "fsdp", "sequence", "tensor")

# Logical axis -> mesh axes. Every axis that a parameter or an activation names must have a row.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "length": "sequence",
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "norm": None,
    "rank": None,
}


def use_cpu_devices(count: int) -> None:
    """Splits the host into this many CPU devices; accelerators are not touched.

    Raises:
      InputError: count is not positive, or JAX has started already with another count.
    """
    if count < 1:
        raise InputError(f"config.num_cpu_devices: {count} must be at least 1")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:  # devices exist already, as in a notebook
        if jax.device_count("cpu") != count:
            raise InputError(
                f"config.num_cpu_devices: {count}, but JAX runs with {jax.device_count('cpu')}; start a new process"
            ) from error


def make_mesh(shape: Mapping[str, int], devices: list[jax.Device] | None = None) -> Mesh:
    """Builds the mesh with all of `MESH_AXES`.

    Devices that are neighbours on a TPU's torus are neighbours on the mesh, so a process's need not lie side by side.
    Several TPU slices share the axes data and fsdp among them: the network between them is the slowest.

    Args:
      shape: devices along each axis; an axis that is left out has 1, one axis may be -1 for "the rest".
      devices: defaults to all devices of all processes.
    Raises:
      InputError: an unknown axis, a product that is not the number of devices, or a shape that their torus or their
        slices cannot take.
    """
    devices = jax.devices() if devices is None else devices
    unknown = set(shape) - set(MESH_AXES)
    if unknown:
        raise InputError(f"config.mesh: unknown axis {sorted(unknown)[0]!r}; the axes are {', '.join(MESH_AXES)}")
    sizes = [int(shape.get(axis, 1)) for axis in MESH_AXES]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise InputError(f"config.mesh: sizes {sizes} must be positive, with at most one -1")
    if -1 in sizes:
        rest = int(np.prod([size for size in sizes if size != -1]))
        sizes[sizes.index(-1)] = max(1, len(devices) // rest)
    if int(np.prod(sizes)) != len(devices):
        raise InputError(
            f"config.mesh: {dict(zip(MESH_AXES, sizes, strict=True))} needs {int(np.prod(sizes))} devices, "
            f"{len(devices)} are here; change config.mesh, or set one axis to -1"
        )
    # Auto axes: the compiler places the collectives. Explicit axes would refuse x @ x.T of sharded operands.
    return Mesh(_arrange(sizes, devices), MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(MESH_AXES))


def _arrange(sizes: list[int], devices: list[jax.Device]) -> np.ndarray:
    """The devices in the shape of the mesh."""
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    try:
        if devices[0].platform != "tpu" or num_slices == 1:
            return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        data = math.gcd(sizes[0], num_slices)
        fsdp = num_slices // data
        if sizes[1] % fsdp:
            raise InputError(
                f"config.mesh: data={sizes[0]} and fsdp={sizes[1]} cannot be shared by {num_slices} slices; make one "
                f"of them a multiple of {num_slices}"
            )
        within = [sizes[0] // data, sizes[1] // fsdp, *sizes[2:]]
        return mesh_utils.create_hybrid_device_mesh(within, [data, fsdp, 1, 1], devices, allow_split_physical_axes=True)
    except NotImplementedError as error:
        raise InputError(
            f"config.mesh: {dict(zip(MESH_AXES, sizes, strict=True))} does not fit these devices ({error}); "
            "take powers of two"
        ) from error


def partition_spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """The partition spec of an array whose dimensions carry these logical names.

    Raises:
      KeyError: an axis without a row in `RULES`.
    """
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def fitting_spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """As `partition_spec`, but whole on each device along a dimension that the mesh's axes do not divide."""
    rules = zip(partition_spec(axes), axes, shape[: len(axes)], strict=True)
    return PartitionSpec(*(None if size % _count_devices(axis, mesh) else rule for rule, axis, size in rules))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Fixes the sharding of an activation under the ambient mesh; without a mesh it does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes))


def tree_shardings(boxed: Any, mesh: Mesh) -> Any:
    """The `NamedSharding` of every leaf of a tree with Flax's partitioning boxes (abstract or real).

    Leaves without a box (step counters, keys) are replicated, and so are those that an optimizer made from a boxed
    parameter in another shape (factored moments, which of a vector are single numbers).

    Raises:
      ValueError: a logical axis that has no rule, with the name of the parameter.
    """

    def sharding(path, leaf) -> NamedSharding:
        is_whole = isinstance(leaf, nn.Partitioned) and len(leaf.names) == leaf.value.ndim and leaf.value.size > 1
        axes = leaf.names if is_whole else ()
        try:
            found = NamedSharding(mesh, partition_spec(axes))
        except KeyError as error:
            raise ValueError(f"{jax.tree_util.keystr(path)}: no sharding rule for the axis {error}") from error
        for axis, size in zip(axes, leaf.value.shape if axes else (), strict=True):
            devices = _count_devices(axis, mesh)
            if size % devices:
                raise InputError(
                    f"config.mesh: {jax.tree_util.keystr(path)} has {size} along {axis!r}, which {devices} devices "
                    f"({', '.join(_mesh_axes(axis))}) do not divide; change config.mesh or the model's shape"
                )
        return found

    return jax.tree_util.tree_map_with_path(sharding, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))


def _mesh_axes(axis: str | None) -> tuple[str, ...]:
    rule = None if axis is None else RULES[axis]
    return () if rule is None else (rule,) if isinstance(rule, str) else rule


def _count_devices(axis: str | None, mesh: Mesh | AbstractMesh) -> int:
    return math.prod(mesh.shape[name] for name in _mesh_axes(axis))


def check_batch(rows: int, num_microbatches: int, mesh: Mesh, field: str) -> None:
    """Refuses a batch that the devices or the micro-batches do not divide.

    Args:
      rows: of the whole batch, the value of `field`.
      num_microbatches: `config.num_microbatches`.
      mesh: rows are spread over its data and fsdp axes.
      field: the config's field, such as "config.batch_size".
    """
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if num_microbatches < 1:
        raise InputError(f"config.num_microbatches: {num_microbatches} must be at least 1")
    if rows < 1 or rows % (shards * num_microbatches):
        raise InputError(
            f"{field}: {rows} is no multiple of {shards * num_microbatches}, the {shards} devices that share a batch "
            f"times {num_microbatches} micro-batches; change {field}, config.mesh or config.num_microbatches"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of `[batch, …]` inputs: rows over data and fsdp."""
    return NamedSharding(mesh, partition_spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of values that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())
