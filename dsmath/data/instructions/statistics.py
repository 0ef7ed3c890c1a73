"""What became of the records of instruction sets: kept or dropped and why, by source, kind and language."""

import collections
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsmath.data.solutions import Solution

KEPT = "kept"
Outcome = tuple[str, str, str, str]  # source, kind, language ("" where unknown), KEPT or the reason

_PERCENTILES = 100


def count_outcomes(outcomes: Mapping[Outcome, int]) -> dict[str, Any]:
    """Totals of outcomes, and the same by source, kind and language."""
    groups = {"by_source": 0, "by_kind": 1, "by_language": 2}
    return _totals(outcomes.items()) | {
        name: {
            value: _totals((outcome, count) for outcome, count in outcomes.items() if outcome[place] == value)
            for value in sorted({outcome[place] for outcome in outcomes if outcome[place]})
        }
        for name, place in groups.items()
    }


def describe_lengths(records: Sequence[Solution]) -> dict[str, dict[str, float]]:
    """Characters of questions and solutions: mean, median, the 95th percentile, the most."""
    return {field: _describe([len(getattr(record, field)) for record in records]) for field in ("question", "solution")}


def write_table(counts: Mapping[str, Any]) -> str:
    """The outcomes as lines of text: a row a source, kind and language, a column an outcome."""
    reasons = sorted(counts["dropped"], key=lambda reason: -counts["dropped"][reason])
    rows = [("", "records", KEPT, *reasons)]
    for label, group in [("all", counts), *(pair for name in _groups(counts) for pair in counts[name].items())]:
        cells = (group["records"], group[KEPT], *(group["dropped"].get(reason, 0) for reason in reasons))
        rows.append((label, *(f"{cell:,}" for cell in cells)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _groups(counts: Mapping[str, Any]) -> list[str]:
    return [name for name in counts if name.startswith("by_")]


def _totals(outcomes: Iterable[tuple[Outcome, int]]) -> dict[str, Any]:
    found: collections.Counter[str] = collections.Counter()
    for outcome, count in outcomes:
        found[outcome[3]] += count
    kept = found.pop(KEPT, 0)
    return {"records": kept + sum(found.values()), KEPT: kept, "dropped": dict(sorted(found.items()))}


def _describe(lengths: Sequence[int]) -> dict[str, float]:
    if not lengths:
        return {}
    steps = statistics.quantiles(lengths, n=_PERCENTILES, method="inclusive") if len(lengths) > 1 else lengths * 99
    return {
        "mean": round(statistics.mean(lengths), 1),
        "median": statistics.median(lengths),
        "p95": round(steps[94], 1),
        "most": max(lengths),
    }
