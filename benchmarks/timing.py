"""What the benchmarks share: turns, the table of rates, the machine's description, the verdict."""

import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

_BUSY = 0.25  # load, as a share of the cores, that makes a figure doubtful


def take_turns(ours: Callable[[], float], peer: Callable[[], float], repetitions: int) -> tuple[list[float], ...]:
    """Runs both in turns, so that whatever else the machine does falls on both.

    Args:
      ours, peer: do the work once and return the seconds that it took; the first call of each is not counted.
      repetitions: counted calls of each.
    Returns:
      the seconds of ours and of the peer.
    """
    ours()
    peer()
    turns = [(ours(), peer()) for _ in range(repetitions)]
    return [seconds for seconds, _ in turns], [seconds for _, seconds in turns]


def summarize_rates(seconds: Sequence[float], amount: int) -> dict[str, Any]:
    """The median, slowest and fastest rate.

    Args:
      seconds: of each turn.
      amount: what a turn works through, such as tokens.
    """
    rates = [amount / turn for turn in seconds]
    return {"median": statistics.median(rates), "slowest": min(rates), "fastest": max(rates), "seconds": list(seconds)}


def print_rates(title: str, unit: str, rows: Mapping[str, Mapping[str, Any]], machine: Mapping[str, Any]) -> None:
    """Prints what `summarize_rates` made, a row a contestant; says so where the machine was busy with other work."""
    print(title)
    print(f"{unit:<18}{'median':>10}{'slowest':>10}{'fastest':>10}")
    for name, row in rows.items():
        print(f"{name:<18}{row['median']:>10,.0f}{row['slowest']:>10,.0f}{row['fastest']:>10,.0f}")
    warn_if_busy(machine)


def warn_if_busy(machine: Mapping[str, Any]) -> None:
    """Says so where the machine was busy with other work when it was described."""
    if machine["threads"] > 1 and machine["load"] > _BUSY * machine["cores"]:
        print(
            f"note: the machine was busy before the start (load {machine['load']:.1f} on {machine['cores']} cores), "
            "and that slows\nPyTorch's threads more than ours; measure on a quiet machine, or under taskset -c 0"
        )


def describe_machine(*packages: str) -> dict[str, Any]:
    """The machine, its load before the work starts, and the versions of Python and of these packages."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "platform": platform.platform(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": count_threads(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
    }


def count_threads() -> int:
    """The cores that this process may use; `taskset` lowers it for both contestants."""
    return len(os.sched_getaffinity(0))


def conclude(figure: str, ratio: float, goal: float) -> None:
    """Prints the verdict, and ends with status 1 where the goal is missed."""
    print(f"ratio {figure}: {ratio:.2f} (goal {goal:.2f})")
    if ratio < goal:
        sys.exit(1)


def conclude_all(figures: Mapping[str, tuple[float, float]]) -> None:
    """As `conclude` for several figures, name to ratio and goal: all are printed before the status is set."""
    for figure, (ratio, goal) in figures.items():
        print(f"ratio {figure}: {ratio:.2f} (goal {goal:.2f})")
    if any(ratio < goal for ratio, goal in figures.values()):
        sys.exit(1)
