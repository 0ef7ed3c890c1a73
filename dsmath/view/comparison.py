"""Configs beside each other: only what differs."""

import json
from collections.abc import Mapping
from typing import Any

from dsmath.view.runs import Run

MOST_ROWS, MOST_CHARACTERS, _MOST_DEPTH = 1_000, 600, 30


def compare(runs: Mapping[str, Run]) -> dict[str, Any]:
    """The fields in which the configs differ; of one run, all fields.

    Args:
      runs: by name.
    Returns:
      rows (field, values: a text for each run, None where it lacks the field), same: how many fields do not differ,
      left_out: how many rows are not shown.
    """
    configs = {name: _flatten(run.config) for name, run in runs.items()}
    fields = sorted(set().union(*configs.values()))
    rows = [{"field": field, "values": [config.get(field) for config in configs.values()]} for field in fields]
    differ = [row for row in rows if len(configs) == 1 or len(set(row["values"])) > 1]
    for row in differ[:MOST_ROWS]:
        row["values"] = [value and _cut(value) for value in row["values"]]
    return {
        "rows": differ[:MOST_ROWS],
        "same": len(rows) - len(differ),
        "left_out": max(len(differ) - MOST_ROWS, 0),
    }


def _flatten(value: Any, name: str = "", depth: int = 0) -> dict[str, str]:
    if isinstance(value, dict) and value and depth < _MOST_DEPTH:
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= _flatten(inner, f"{name}.{key}" if name else str(key), depth + 1)
        return found
    return {name: value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)}


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"
