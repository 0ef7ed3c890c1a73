"""Compiles a program for CPU devices and reads from it what an accelerator's would need."""

import dataclasses
import pathlib
import re
import tempfile
import time
from collections.abc import Mapping

import jax
from jax.experimental.compilation_cache import compilation_cache

from dsmath.plan import hlo
from dsmath.plan.collectives import Collective, find_collectives

_PARTITIONED, _WHOLE = "*.after_spmd-partitioning*.txt", "*.before_optimizations.txt"


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """Figures of one program on one device.

    Attributes:
      arguments: bytes that go in.
      temporaries: bytes that the program needs besides, results that overwrite no argument counted.
      flops: operations of its matrix products, loops multiplied out.
      cost_flops: what XLA's own cost analysis says, which takes every loop's body once.
      traffic: bytes of the matrix products' operands and results, each read or written once.
      collectives: what it exchanges.
      seconds: that the compile took.
    """

    arguments: int
    temporaries: int
    flops: int
    cost_flops: float
    traffic: int
    collectives: tuple[Collective, ...]
    seconds: float


def compile_program(lowered: jax.stages.Lowered, mesh_shape: Mapping[str, int]) -> CompiledProgram:
    """Compiles it; its products and collectives are read from the program as the partitioner left it.

    What comes after it is the CPU's own: it widens what it exchanges to float32, for example. The compilers of
    accelerators exchange the same or less: they hoist and merge.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd-partitioning", "xla_dump_hlo_as_text": True}
        # The pass that copies a float16 product's operands to float32: CPUs alone have it.
        options["xla_disable_hlo_passes"] = "change-op-data-type"
        compiled = _compile_anew(lowered, options)
        # On one device nothing is partitioned.
        (dump,) = [*pathlib.Path(folder).glob(_PARTITIONED)] or pathlib.Path(folder).glob(_WHOLE)
        text = dump.read_text(encoding="utf-8")
    program = hlo.Program(re.sub(r"(?<!b)f16\[", "bf16[", text))  # see `stages.for_cpu`
    flops = traffic = 0
    for instruction, computation, times in program.run():
        if instruction.opcode == "dot":
            operands = computation.operands(instruction)
            flops += times * hlo.flops(instruction, computation)
            traffic += times * (instruction.bytes + sum(operand.bytes for operand in operands))
    return CompiledProgram(
        arguments=compiled.memory_analysis().argument_size_in_bytes,
        temporaries=count_temporaries(compiled),
        flops=flops,
        cost_flops=(compiled.cost_analysis() or {}).get("flops", 0.0),
        traffic=traffic,
        collectives=tuple(find_collectives(program, mesh_shape)),
        seconds=time.monotonic() - began,
    )


def count_temporaries(compiled: jax.stages.Compiled) -> int:
    """Bytes that a program needs on a device besides its arguments, results that overwrite none counted."""
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def _compile_anew(lowered: jax.stages.Lowered, options: dict[str, str | bool]) -> jax.stages.Compiled:
    """Past the cache of compiled programs: one that comes from it was never partitioned here."""
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        return lowered.compile(compiler_options=options)
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()
