"""Verdicts that another grading changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from dsmath.evaluation.table import align

_SHOWN = 20
_WIDEST = 40  # characters of an answer in the table
_OF = ("benchmark", "mode", "id", "sample_index", "gold")


def find_flips(old: pyarrow.Table, new: pyarrow.Table, kind: str) -> list[dict[str, Any]]:
    """The completions whose verdict is another now, with both answers.

    Args:
      old, new: verdicts on the same generations.
      kind: "greedy" or "samples".
    """
    columns = [*_OF, "answer", "correct"]
    return [
        {
            **{name: now[name] for name in _OF},
            "kind": kind,
            "old_answer": before["answer"],
            "new_answer": now["answer"],
            "old_correct": before["correct"],
            "new_correct": now["correct"],
        }
        for before, now in zip(old.select(columns).to_pylist(), new.select(columns).to_pylist(), strict=True)
        if before["correct"] != now["correct"]
    ]


def draw_flips(flips: Sequence[Mapping[str, Any]]) -> str:
    """The flips as a table of text, the first of them where they are many."""
    if not flips:
        return "no verdict flipped"
    gained = sum(flip["new_correct"] for flip in flips)
    rows = [("benchmark", "mode", "of", "problem", "sample", "was", "is", "old answer", "new answer", "gold")]
    for flip in flips[:_SHOWN]:
        answers = (_shorten(flip[name]) for name in ("old_answer", "new_answer", "gold"))
        marks = ("right" if flip[name] else "wrong" for name in ("old_correct", "new_correct"))
        where = (flip["benchmark"], flip["mode"], flip["kind"], flip["id"], str(flip["sample_index"]))
        rows.append((*where, *marks, *answers))
    more = "" if len(flips) <= _SHOWN else f"\n… and {len(flips) - _SHOWN} more"
    return f"{len(flips)} verdicts flipped: {gained} are right now, {len(flips) - gained} wrong\n{align(rows)}{more}"


def _shorten(answer: str | None) -> str:
    text = "–" if answer is None else " ".join(answer.split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
