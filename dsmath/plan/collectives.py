"""What a partitioned program sends between devices, by mesh axis."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from dsmath.plan.hlo import Computation, Instruction, Program

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange of a step.

    Attributes:
      kind: one of `KINDS`.
      axes: the mesh axes over whose devices it goes.
      group: the devices of one group, by their places in the mesh; the other groups are like it.
      bytes: of the whole array: what is gathered, reduced or exchanged, on each device and at one time.
      dtype: of the array.
      times: how often a step does it.
      source: where in the model it comes from.
    """

    kind: str
    axes: tuple[str, ...]
    group: tuple[int, ...]
    bytes: int
    dtype: str
    times: int
    source: str

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step, around a ring."""
        share = (len(self.group) - 1) / len(self.group)
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.bytes * factor * self.times


def find_collectives(program: Program, mesh_shape: Mapping[str, int]) -> list[Collective]:
    """The collectives of a partitioned program, loops multiplied out.

    A sum over a group of which each device keeps its own part counts as the reduce-scatter that the compilers of
    accelerators make of it.

    Args:
      program: as the partitioner left it.
      mesh_shape: devices along each axis, in the mesh's order.
    """
    found = []
    for instruction, computation, times in program.run():
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        group = _first_group(instruction, math.prod(mesh_shape.values()))
        if len(group) == 1:
            continue
        if kind == "reduce-scatter":
            size = sum(operand.bytes for operand in computation.operands(instruction))
        else:
            size = instruction.bytes
        if kind == "all-reduce" and _is_scattered(instruction, computation, len(group)):
            kind = "reduce-scatter"
        found.append(
            Collective(
                kind=kind,
                axes=_axes(group, mesh_shape),
                group=tuple(group.tolist()),
                bytes=size,
                dtype=instruction.shapes[0].dtype,
                times=times,
                source=instruction.source,
            )
        )
    return found


def _is_scattered(instruction: Instruction, computation: Computation, size: int) -> bool:
    users = computation.users.get(instruction.name, [])
    return bool(users) and all(
        user.opcode == "dynamic-slice" and user.bytes * size == instruction.bytes for user in users
    )


def _axes(group: np.ndarray, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
    places = np.unravel_index(group, tuple(mesh_shape.values()))
    return tuple(axis for axis, place in zip(mesh_shape, places, strict=True) if len(set(place.tolist())) > 1)


def _first_group(instruction: Instruction, num_devices: int) -> np.ndarray:
    """Device numbers of one group; the other groups are like it.

    The text has four forms: every group written out, an iota that is reshaped and perhaps transposed, axes of a mesh
    of the compiler's own, and pairs of a permutation.
    """
    if instruction.opcode.startswith("collective-permute"):
        pairs = re.findall(r"\{(\d+),(\d+)\}", instruction.attribute("source_target_pairs"))
        pair = next((pair for pair in pairs if pair[0] != pair[1]), ("0",))
        return np.array([int(number) for number in pair])
    text = instruction.attribute("replica_groups")
    if text.startswith("mesh["):
        return _mesh_group(instruction.attributes, num_devices)
    if text.startswith("["):
        sizes, order = text.split("<=")
        return _iota(order).reshape(_numbers(sizes))[0]
    written = re.search(r"\{([\d,]+)\}", text)
    return np.array(_numbers(written[1])) if written else np.arange(num_devices)


def _mesh_group(attributes: str, num_devices: int) -> np.ndarray:
    """Of `replica_groups=mesh['a'=16,'b'=4], device_ids=([16,4]T(1,0)) {'a'}`."""
    text = attributes[attributes.index("mesh[") :]
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", text[: text.index("]")])}
    order = re.search(r"device_ids=\(([^{]*)\) *\{", text)
    devices = _iota(order[1]) if order else np.arange(num_devices)
    # An axis may be part of one: 'a':(4)2 are 2 places of the axis a, which 4 larger parts come before.
    named = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", text[text.index("{") : text.index("}")])
    shape, chosen = [], []
    for name, size in sizes.items():
        part = next(((int(before), int(count)) for axis, before, count in named if axis == name and count), None)
        if part:
            shape += [part[0], part[1], size // math.prod(part)]
            chosen.append(len(shape) - 2)
        else:
            shape.append(size)
            chosen += [len(shape) - 1] if name in [axis for axis, *_ in named] else []
    devices = devices.reshape(shape)
    place = tuple(slice(None) if axis in chosen else 0 for axis in range(devices.ndim))
    return devices[place].reshape(-1)


def _iota(text: str) -> np.ndarray:
    """Of `[16,4]T(1,0)`: 0, 1, … laid out so and transposed, flat."""
    dims, _, order = text.partition("T")
    dims = _numbers(dims)
    numbers = np.arange(math.prod(dims)).reshape(dims)
    return (numbers.transpose(_numbers(order)) if order else numbers).reshape(-1)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
