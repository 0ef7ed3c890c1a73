"""Programs to write: HumanEval and MBPP.

Source: Chen et al. 2021, https://github.com/openai/human-eval; Austin et al. 2021 (MBPP).
"""

import pathlib
from collections.abc import Sequence

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.item import Item

# By task_id. Source: https://github.com/google-research/google-research/tree/master/mbpp.
MBPP_SPLITS = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}


def read_humaneval(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """HumanEval: `tests` defines `check(candidate)`; the solution goes on where the question ends."""
    return [_read_humaneval(record) for path in paths for record in records.read_json_lines(path)]


def read_mbpp(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """The problems of a split; `tests` are assertions, a line each, and `setup` runs before them."""
    return [
        _read_mbpp(record)
        for path in paths
        for record in records.read_json_lines(path)
        if record.number("task_id") in MBPP_SPLITS[split]
    ]


def _read_humaneval(record: records.Record) -> Item:
    return Item(
        benchmark="humaneval",
        id=record.filled("task_id"),
        question=record.text("prompt"),  # its last line end counts
        answer="",
        solution=record.text("canonical_solution"),
        extra={"tests": record.text("test"), "setup": "", "entry_point": record.filled("entry_point")},
    )


def _read_mbpp(record: records.Record) -> Item:
    tests = record.texts("test_list")
    if not tests:
        raise record.error("test_list", "is empty")
    return Item(
        benchmark="mbpp",
        id=record.id("task_id"),
        question=_unix(record.filled("text")),
        answer="",
        solution=_unix(record.text("code")),
        extra={"tests": _unix("\n".join(tests)), "setup": _unix(record.text("test_setup_code")), "entry_point": ""},
    )


def _unix(text: str) -> str:
    """Upstream has line ends of Windows, some cut in the middle."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
