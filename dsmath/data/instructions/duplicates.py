"""Solutions that say what another says: equal but for white space and letter case, or nearly equal."""

import re
from collections.abc import Callable, Sequence

from dsmath.data.instructions.checking import question_key
from dsmath.data.solutions import Solution

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def find_duplicates(records: Sequence[Solution], cluster: Callable[[Sequence[str]], Sequence[int]]) -> dict[int, str]:
    """The records that go: for each its place, and "duplicate" or "near_duplicate".

    Of near ones those alone count whose questions hold the same numbers: a problem with others is another problem,
    however alike its words. The first of its like stays.

    Args:
      records: in the order in which the first of its like is looked for.
      cluster: gives near texts the same number.
    """
    found: dict[int, str] = {}
    seen: set[tuple[str, str]] = set()
    for place, record in enumerate(records):
        key = (question_key(record.question), question_key(record.solution))
        if key in seen:
            found[place] = "duplicate"
        seen.add(key)
    places = [place for place in range(len(records)) if place not in found]
    labels = cluster([f"{records[place].question}\n{records[place].solution}" for place in places])
    kept: set[tuple[int, str, tuple[str, ...]]] = set()
    for place, label in zip(places, labels, strict=True):
        record = records[place]
        key = (int(label), record.kind, tuple(_NUMBER.findall(record.question)))
        if key in kept:
            found[place] = "near_duplicate"
        kept.add(key)
    return found
