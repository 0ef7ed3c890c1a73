"""BIG-Bench Hard: 27 tasks, a file each.

Source: Suzgun et al. 2022, https://github.com/suzgunmirac/BIG-Bench-Hard.
"""

import pathlib
import re
from collections.abc import Sequence

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.item import Item

_OPTIONS = re.compile(r"\nOptions:\n(?=\(A\))")
_OPTION = re.compile(r"\(([A-Z])\) ?(.*)")
_LETTER = re.compile(r"\(([A-Z])\)")


def read(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """The examples of all tasks; the subject is the task.

    Where a question ends with lettered options and its target is one of their letters, the item is a choice: options
    apart, the answer "A" for upstream's "(A)". Else the question is the whole input and the answer its target.
    """
    return [
        _read_example(path.stem, record) for path in paths for record in records.read_json_list(path, field="examples")
    ]


def _read_example(task: str, record: records.Record) -> Item:
    question, target = record.filled("input"), record.filled("target")
    item = Item("bbh", f"{task}/{records.name_by_text(question)}", question, target, subject=task)
    marks = list(_OPTIONS.finditer(question))
    letter = _LETTER.fullmatch(target)
    if not marks or not letter:
        return item
    lines = question[marks[-1].end() :].split("\n")
    options = [_OPTION.fullmatch(line) for line in lines]
    letters = "".join(option.group(1) if option else "?" for option in options)
    if letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)] or letter.group(1) not in letters:
        raise record.error("input", "has damaged options: a line each, '(A) text'")
    return Item(
        item.benchmark,
        item.id,
        question[: marks[-1].start()],
        letter.group(1),
        choices=tuple(option.group(2).strip() for option in options),
        subject=task,
    )
