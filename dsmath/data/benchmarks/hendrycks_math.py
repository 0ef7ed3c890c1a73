"""MATH: competition problems, as JSON lines, as a folder of one file a problem, and MATH-500.

Source: Hendrycks et al. 2021, https://github.com/hendrycks/math; Lightman et al. 2023 (MATH-500).
"""

import pathlib
import re
from collections.abc import Iterator, Sequence

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.item import Item

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_SPELLING = re.compile(r"\s|\\[,!;: ]|(?<=\\)[dt](?=frac)")  # what two boxes may differ in that say the same
_ALL = re.compile(r"separated by|\b(?:find|list|give|enter|determine|compute) all\b", re.IGNORECASE)


def read(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """Files of JSON lines, a list of records (MATH-500), or files of one record each.

    No format has names that the others have too, so that the question names a problem.
    """
    return [_read_problem(record) for path in paths for record in _read_file(path)]


def gold_answer(question: str, solution: str) -> str | None:
    """The content of a solution's last box, of all boxes where the question asks for several answers; None without one.

    90 of the 5,000 test solutions box several things. Most repeat the answer, box an intermediate result or give
    another answer that counts too; a few box one of several answers each: where the question asks for all of them and
    no box is a list, they are joined by commas.
    """
    boxes = list(find_boxes(solution))
    if not boxes:
        return None
    distinct = list({_SPELLING.sub("", box): box for box in boxes if box}.values())
    if len(distinct) > 1 and _ALL.search(question) and not any(map(_is_list, distinct)):
        return ", ".join(distinct)
    return boxes[-1]


def _read_file(path: pathlib.Path) -> list[records.Record]:
    if path.suffix == ".jsonl":
        return records.read_json_lines(path)
    return [records.read_json_object(path)] if path.stem.isdecimal() else records.read_json_list(path)


def _read_problem(record: records.Record) -> Item:
    question, solution = record.filled("problem"), record.text("solution")
    answer = record.text("answer").strip() if "answer" in record.fields else gold_answer(question, solution)
    if answer is None:  # but empty in one of train, whose box is
        raise record.error("solution", "has no answer within \\boxed{}")
    level = record.id("level").removeprefix("Level ")
    return Item(
        benchmark="math",
        id=records.name_by_text(question),
        question=question,
        answer=answer,
        solution=solution,
        subject=record.text("subject" if "subject" in record.fields else "type"),
        level=level if level.isdecimal() else "",  # two of train are of "Level ?"
    )


def find_boxes(solution: str) -> Iterator[str]:
    """The contents of all boxes of a solution, in order."""
    for mark in _BOX.finditer(solution):
        depth = 0
        for brace in _BRACE.finditer(solution, mark.end()):
            depth += {"{": 1, "}": -1}.get(brace.group(), 0)
            if depth == 0:
                yield solution[mark.end() + 1 : brace.start()].strip()
                break


def _is_list(answer: str) -> bool:
    """Whether there is a comma outside of brackets."""
    depth = 0
    for sign in answer:
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and sign == ",":
            return True
    return False
