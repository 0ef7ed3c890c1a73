"""An evaluation's figures as a table of text: ours beside the paper's."""

from collections.abc import Mapping, Sequence
from typing import Any

_MISSING = "–"


def draw_table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each benchmark and mode: accuracy and what stands beside it, in per cent."""
    rows = [
        (
            *("benchmark", "mode", "shots", "problems", "ours", "95 %", "paper's grader"),
            *("published", "difference", "no answer", "truncated", "time-outs", "errors", "maj@n"),
        )
    ]
    for result in results:
        maj = result.get("maj_at") or {}
        n = max(maj, key=int, default=None)
        rows.append(
            (
                result["title"],
                result["mode"],
                str(result["shots"]),
                result["coverage"],
                percent(result["accuracy"]),
                f"{percent(result['low'])} to {percent(result['high'])}",
                percent(result["paper_accuracy"]),
                percent(result["published"]),
                percent(result["difference"], "+"),
                percent(result["no_answer"]),
                percent(result["truncated"]),
                percent(result["timeouts"]),
                percent(result["errors"]),
                _MISSING if n is None else f"{percent(maj[n])} (n = {n})",
            )
        )
    return align(rows)


def percent(share: float | None, sign: str = "") -> str:
    """A share in per cent with one decimal; a dash where there is none."""
    return _MISSING if share is None else f"{100 * share:{sign}.1f}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows with a rule below the first, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])
