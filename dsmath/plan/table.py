"""A plan as people read it."""

from collections.abc import Iterator

from dsmath.plan.devices import DEVICES, Device, find_device
from dsmath.plan.plan import Plan

_GIGA, _TERA = 1e9, 1e12
_SURE = 0.8  # of a device's memory: what other compilers' programs may need more of


def render(plan: Plan) -> str:
    """The plan's tables, as text: memory, work, exchanges, and the estimate of each device or of the named one."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    parts = [
        f"{plan.parameters / _GIGA:.2f} G parameters on {plan.num_devices} devices ({mesh}), "
        f"{plan.tokens:,} tokens a step",
        "\n".join(_memory(plan)),
        "\n".join(_work(plan)),
        "\n".join(_exchanges(plan)),
        "\n".join(_estimates(plan)),
    ]
    return "\n\n".join(parts)


def verdict(plan: Plan) -> str:
    """Whether the named device holds it, in one line."""
    device = find_device(plan.device)
    return f"{_word(plan, device)}: {device.title}, {plan.bytes / _GIGA:.1f} of {device.memory / _GIGA:.0f} GB"


def _memory(plan: Plan) -> Iterator[str]:
    whose = f", temporaries of {plan.topology}" if plan.topology else ""
    yield f"{f'memory of a device{whose}':<44}{'GB':>10}"
    for kind, size in plan.resident.items():
        yield f"  {kind:<42}{size / _GIGA:>10.2f}"
    for program in plan.programs:
        yield f"  {f'while it runs {program.name}:':<42}"
        for kind, size in program.memory.items():
            yield f"    {kind:<40}{size / _GIGA:>10.2f}"
    yield f"  {f'at most, in {plan.peak.name}':<42}{plan.bytes / _GIGA:>10.2f}"


def _work(plan: Plan) -> Iterator[str]:
    yield f"{'work of a device, T operations a run':<44}{'asked for':>10}{'executed':>10}{'XLA says':>10}{'runs':>6}"
    for program in plan.programs:
        yield (
            f"  {program.name:<42}{program.model_flops / plan.num_devices / _TERA:>10.2f}"
            f"{program.flops / _TERA:>10.2f}{program.cost_flops / _TERA:>10.2f}{program.times:>6}"
        )


def _exchanges(plan: Plan) -> Iterator[str]:
    yield f"{'exchanged in a step':<44}{'arrays GB':>10}{'sent GB':>10}"
    for (axes, kind), (held, sent) in plan.collective_bytes().items():
        yield f"  {f'{kind} over ' + ', '.join(axes):<42}{held / _GIGA:>10.2f}{sent / _GIGA:>10.2f}"


def _estimates(plan: Plan) -> Iterator[str]:
    yield (
        f"{'estimate of a step':<18}{'compute':>9}{'memory':>9}{'network':>9}{'step, s':>17}{'MFU, %':>12}"
        f"{'tokens/s':>20}  memory"
    )
    for name, device in DEVICES.items():
        if plan.device not in (None, name):
            continue
        estimate = plan.estimate(device)
        bounds = (estimate.slowest, estimate.fastest)
        share = "–".join(f"{100 * plan.mfu(device, seconds):.0f}" for seconds in bounds)
        speed = "–".join(f"{plan.tokens / seconds:,.0f}" for seconds in bounds)
        yield (
            f"  {device.title:<16}{estimate.compute:>9.2f}{estimate.memory:>9.2f}{estimate.interconnect:>9.2f}"
            f"{f'{estimate.fastest:.2f}–{estimate.slowest:.2f}':>17}{share:>12}{speed:>20}"
            f"  {_word(plan, device)}"
        )


def _word(plan: Plan, device: Device) -> str:
    if not plan.fits(device):
        return "does not fit"
    sure = 1.0 if plan.topology else _SURE
    return "fits" if plan.bytes <= sure * device.memory else "fits barely"
