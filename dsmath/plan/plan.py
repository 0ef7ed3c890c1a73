"""The plan of a training step: bytes, operations and exchanges on each device, and the time that they take at least."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from dsmath.model.config import ModelConfig
from dsmath.model.sharding import make_mesh
from dsmath.plan import flash, stages
from dsmath.plan.collectives import Collective
from dsmath.plan.compiled import CompiledProgram, compile_program
from dsmath.plan.devices import DEVICES, Device, find_device
from dsmath.plan.topology import find_temporaries
from dsmath.plan.work import Work, device_bytes
from dsmath.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """One program of a step, on one device.

    Attributes:
      name: what it is for: "update", and in reinforcement learning "gather" (of the parameters for the rollout),
        "sample" (a block of decode steps), "score" and "reference" (their log-probabilities of the samples) too.
      times: how often a step runs it.
      memory: bytes by kind beside the state's, while it runs.
      model_flops: operations that one run asks for, by formula, over all devices.
      flops: operations of one run on one device: the compiled matrix products, rematerialisation included, and of an
        attention that was compiled away the formula's.
      cost_flops: XLA's own count, which takes every loop's body once.
      traffic: bytes of one run between memory and compute: the products' operands and results, the state once each way.
      collectives: what one run exchanges.
      compile_seconds: that its compile took here.
    """

    name: str
    times: int
    memory: dict[str, int]
    model_flops: float
    flops: float
    cost_flops: float
    traffic: float
    collectives: tuple[Collective, ...]
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A step on a device by its data sheet.

    Attributes:
      compute, memory, interconnect: seconds that each would need alone.
      fastest: seconds where they overlap wholly, the roofline.
      slowest: seconds where nothing overlaps; a real step is slower still where its kernels miss the data sheet.
    """

    compute: float
    memory: float
    interconnect: float
    fastest: float
    slowest: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a step needs.

    Attributes:
      mesh: devices along each axis.
      parameters: of the model.
      tokens: that a step learns from, or draws.
      resident: bytes on a device that stay from step to step, by kind.
      programs: of a step.
      device: the name that was asked for, if any.
      topology: the slice whose own compiler said the temporaries, if any; else they are those of the CPU's.
    """

    mesh: dict[str, int]
    parameters: int
    tokens: int
    resident: dict[str, int]
    programs: tuple[ProgramPlan, ...]
    device: str | None
    topology: str | None = None

    @property
    def num_devices(self) -> int:
        return math.prod(self.mesh.values())

    @property
    def peak(self) -> ProgramPlan:
        """The program that needs most memory."""
        return max(self.programs, key=lambda program: sum(program.memory.values()))

    @property
    def bytes(self) -> int:
        """Bytes on a device at the peak."""
        return sum(self.resident.values()) + sum(self.peak.memory.values())

    @property
    def model_flops(self) -> float:
        """Operations that a step asks for, over all devices."""
        return sum(program.times * program.model_flops for program in self.programs)

    def fits(self, device: Device) -> bool:
        """Whether a device holds it; a TPU's own compiler may need more temporaries than the CPU's."""
        return self.bytes <= device.memory

    def collective_bytes(self) -> dict[tuple[tuple[str, ...], str], tuple[float, float]]:
        """By mesh axes and kind: bytes of the arrays that a step exchanges, and bytes that each device sends."""
        found: dict[tuple[tuple[str, ...], str], tuple[float, float]] = {}
        for program in self.programs:
            for one in program.collectives:
                held, sent = found.get((one.axes, one.kind), (0.0, 0.0))
                found[one.axes, one.kind] = (
                    held + program.times * one.times * one.bytes,
                    sent + program.times * one.sent,
                )
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    def estimate(self, device: Device) -> Estimate:
        """The time of a step; programs follow each other."""
        parts = []
        for program in self.programs:
            exchanged = sum(one.sent / _bandwidth(one, device) for one in program.collectives)
            seconds = (program.flops / device.flops, program.traffic / device.bandwidth, exchanged)
            parts.append([program.times * x for x in (*seconds, max(seconds), sum(seconds))])
        return Estimate(*(sum(column) for column in zip(*parts, strict=True)))

    def mfu(self, device: Device, seconds: float) -> float:
        """The share of the devices' peak that the model's operations are, in a step of so many seconds."""
        return self.model_flops / (seconds * device.flops * self.num_devices)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: all figures, and every device's estimate."""
        return {
            "mesh": self.mesh,
            "devices": self.num_devices,
            "parameters": self.parameters,
            "tokens": self.tokens,
            "model_flops": self.model_flops,
            "bytes": self.bytes,
            "peak": self.peak.name,
            "resident": self.resident,
            "programs": [_without_groups(program) for program in self.programs],
            "collective_bytes": [
                {"axes": list(axes), "kind": kind, "bytes": held, "sent": sent}
                for (axes, kind), (held, sent) in self.collective_bytes().items()
            ],
            "device": self.device,
            "topology": self.topology,
            "estimates": {name: self._describe(device) for name, device in DEVICES.items()},
        }

    def _describe(self, device: Device) -> dict[str, Any]:
        estimate = self.estimate(device)
        return dataclasses.asdict(estimate) | {
            "fits": self.fits(device),
            "mfu": [self.mfu(device, seconds) for seconds in (estimate.slowest, estimate.fastest)],
            "tokens_per_second": [self.tokens / seconds for seconds in (estimate.slowest, estimate.fastest)],
        }


def plan(
    config: ml_collections.ConfigDict,
    mesh_shape: Mapping[str, int],
    device: str | None = None,
    *,
    model: ModelConfig,
    prompt_length: int,
    topology: str | None = None,
) -> Plan:
    """Plans a step of pretraining, fine-tuning or reinforcement learning; no array is made.

    Args:
      config: of `configs/{pretrain,sft,rl}.py`.
      mesh_shape: devices along each axis; this process needs as many CPU devices (`sharding.use_cpu_devices`).
      device: a key of `devices.DEVICES`, or None.
      model: what the config's parent or tokenizer leaves open.
      prompt_length: tokens of the longest question, in reinforcement learning.
      topology: of a TPU slice, such as v5p:4x4x4; its own compiler says how many temporaries there are.
    Raises:
      InputError: an unknown device, a mesh that does not divide the model or the batch, too few CPU devices.
    """
    if device is not None:
        find_device(device)
    mesh = _cpu_mesh(mesh_shape)
    narrow = stages.for_cpu(model)
    stage = stages.make_stage(config, narrow, mesh, prompt_length)
    resident = {"parameters": device_bytes(stage.state.params), "optimizer": device_bytes(stage.state.opt_state)}
    if stage.frozen is not None:
        resident["frozen parameters"] = device_bytes(stage.frozen)
    resident |= {kind: device_bytes(tree) for kind, tree in stage.beside.items()}
    programs, own = [], {}
    if topology:
        own = find_temporaries(config, mesh_shape, topology, model=model, prompt_length=prompt_length)
    with flash.without_kernels():
        for name, work in stage.works.items():
            compiled = compile_program(work.lower(), mesh.shape)
            compiled = dataclasses.replace(compiled, temporaries=own.get(name, compiled.temporaries))
            programs.append(_program(name, work, compiled, model, mesh.size))
    return Plan(
        mesh=dict(mesh.shape),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(stage.frozen or stage.state.params)),
        tokens=stage.tokens,
        resident=resident,
        programs=tuple(programs),
        device=device,
        topology=topology,
    )


def _program(name: str, work: Work, compiled: CompiledProgram, model: ModelConfig, num_devices: int) -> ProgramPlan:
    learned = device_bytes(work.changes.params) if work.changes else 0
    memory = {"batch": device_bytes(work.batch), **work.held}
    gradients = min(learned, compiled.temporaries) if "gradients" not in work.held else 0
    if gradients:
        memory["gradients"] = gradients
    memory["activations and temporaries"] = compiled.temporaries - gradients
    traffic = compiled.traffic
    if work.changes:  # the optimizer reads and writes its state and the parameters, and reads the gradients
        traffic += 2 * device_bytes(work.changes) + learned
    again = work.passes > 1 and model.remat != "none"  # rematerialisation runs the kernels again
    return ProgramPlan(
        name=name,
        times=work.times,
        memory=memory,
        model_flops=work.passes * work.forward.total,
        flops=compiled.flops + (work.passes + again) * work.kernels / num_devices,
        cost_flops=compiled.cost_flops,
        traffic=traffic,
        collectives=compiled.collectives,
        compile_seconds=round(compiled.seconds, 1),
    )


def _cpu_mesh(shape: Mapping[str, int]) -> jax.sharding.Mesh:
    wanted = math.prod(shape.values())
    devices = jax.devices("cpu")
    if wanted > len(devices):
        raise InputError(
            f"--mesh: it has {wanted} devices, and this process has {len(devices)} CPU devices to compile for; "
            "call use_cpu_devices before JAX starts"
        )
    return make_mesh(shape, devices[: max(wanted, 1)])


def _bandwidth(one: Collective, device: Device) -> float:
    """Bytes a second that a device of the group can send to the next one of its ring."""
    if device.island is None or len({place // device.island for place in one.group}) == 1:
        return device.interconnect
    # Every member on a host sends a part of the traffic between hosts by its own port.
    beside = sum(place // device.island == one.group[0] // device.island for place in one.group)
    return min(device.interconnect, device.network * beside)


def _without_groups(program: ProgramPlan) -> dict[str, Any]:
    fields = dataclasses.asdict(program)
    for one in fields["collectives"]:
        one["group"] = len(one["group"])
    return fields
