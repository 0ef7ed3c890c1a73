"""miniF2F in Isabelle: formal statements with informal ones beside them.

Source: Zheng et al. 2021; Jiang et al. 2022 (Draft, Sketch and Prove), as DeepSeek-Math has it.
"""

import pathlib
import re
from collections.abc import Sequence

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.item import Item

_FAMILY = re.compile(r"mathd_[a-z]+|[a-z]+")  # amc12a and amc12 are both amc


def read(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """The problems; the subject is the family of their names: "mathd_algebra", "imo", …"""
    return [_read_problem(record) for path in paths for record in records.read_json_lines(path)]


def _read_problem(record: records.Record) -> Item:
    name = record.filled("problem_name")
    family = _FAMILY.match(name)
    return Item(
        benchmark="minif2f",
        id=record.id(),
        question=record.filled("informal_statement"),
        answer="",
        solution=record.text("informal_proof"),
        subject=family.group() if family else "",
        extra={
            "problem_name": name,
            "formal_statement": record.filled("formal_statement"),
            "header": record.filled("header"),
        },
    )
