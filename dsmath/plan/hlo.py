"""Reads a compiled program's text: its instructions, and how often each runs."""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16} | {
    f"{kind}{bits}": bits for kind in "sufc" for bits in (4, 8, 16, 32, 64, 128)
}
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's type, on one device."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return self.size * _BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: as the text has them.
      shapes: of the result; several where it is a tuple.
      operands: names of the instructions that it takes.
      argument: the text between the parentheses, which holds a constant's value.
      attributes: what stands behind the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    argument: str
    attributes: str

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, name: str) -> str:
        """The value of an attribute up to the next comma outside brackets; empty where it is absent."""
        found = re.search(rf"\b{name}=", self.attributes)
        return _until(self.attributes[found.end() :], ",") if found else ""

    @property
    def source(self) -> str:
        """Where in the model it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


class Computation:
    """Instructions by name, in order."""

    def __init__(self, instructions: list[Instruction]):
        self.instructions = {instruction.name: instruction for instruction in instructions}
        self.users: dict[str, list[Instruction]] = {}
        for instruction in instructions:
            for operand in instruction.operands:
                self.users.setdefault(operand, []).append(instruction)

    def operands(self, instruction: Instruction) -> list[Instruction]:
        return [self.instructions[name] for name in instruction.operands]


class Program:
    """A module's text, parsed."""

    def __init__(self, text: str):
        self.computations, self._entry = {}, ""
        name, lines = "", []
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header:
                name, lines = header[2], []
                self._entry = name if header[1] else self._entry
            elif line.startswith("}"):
                self.computations[name] = Computation(lines)
            elif " = " in line and line.startswith("  "):
                lines.append(_parse(line))
        if not self._entry:
            raise ValueError("the program's text has no entry computation")

    def run(self) -> Iterator[tuple[Instruction, Computation, int]]:
        """Every instruction with its computation and the number of times that it runs, loops multiplied out."""
        yield from self._run(self._entry, 1)

    def _run(self, name: str, times: int) -> Iterator[tuple[Instruction, Computation, int]]:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            yield instruction, computation, times
            if instruction.opcode == "while":
                turns = self._turns(_name(instruction.attribute("condition")))
                yield from self._run(_name(instruction.attribute("body")), times * turns)
            elif instruction.opcode in ("call", "fusion"):
                called = instruction.attribute("to_apply") or instruction.attribute("calls")
                yield from self._run(_name(called), times)
            elif instruction.opcode == "conditional":  # of the branches one runs: the sum is an upper bound
                branches = instruction.attribute("branch_computations").strip("{}").split(",")
                branches += [instruction.attribute(f"{side}_computation") for side in ("true", "false")]
                for branch in filter(None, map(_name, branches)):
                    yield from self._run(branch, times)

    def _turns(self, condition: str) -> int:
        """How often a loop turns: JAX's count up from 0 to a constant; one that may end early turns to its end."""
        computation = self.computations[condition]
        limits = [
            int(operand.argument)
            for instruction in computation.instructions.values()
            if instruction.opcode == "compare" and instruction.attribute("direction") == "LT"
            for operand in computation.operands(instruction)
            if operand.opcode == "constant"
        ]
        return max(limits, default=1)


def flops(instruction: Instruction, computation: Computation) -> int:
    """Operations of a matrix product; 0 of everything else."""
    if instruction.opcode != "dot":
        return 0
    left = computation.operands(instruction)[0].shapes[0]
    contracted = [int(axis) for axis in re.findall(r"\d+", instruction.attribute("lhs_contracting_dims"))]
    return 2 * instruction.shapes[0].size * math.prod(left.dims[axis] for axis in contracted)


def _parse(line: str) -> Instruction:
    name, rest = line.strip().removeprefix("ROOT ").split(" = ", 1)
    kind = _until(rest, " ")
    opcode, rest = rest[len(kind) + 1 :].split("(", 1)
    argument = _until(rest, ")")
    return Instruction(
        name=name.lstrip("%"),
        opcode=opcode,
        shapes=tuple(Shape(dtype, _numbers(dims)) for dtype, dims in _SHAPE.findall(kind)),
        operands=tuple(re.findall(r"%([\w.\-]+)", argument)),
        argument=argument,
        attributes=rest[len(argument) + 1 :],
    )


def _until(text: str, end: str) -> str:
    """The text before the first `end` that no bracket encloses."""
    depth = 0
    for place, character in enumerate(text):
        if depth == 0 and character == end:
            return text[:place]
        depth += (character in "([{") - (character in ")]}")
    return text


def _name(text: str) -> str:
    return text.strip().lstrip("%")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
