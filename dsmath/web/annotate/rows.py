"""The rows of a domain's tree that are to be seen, under the marks that stand."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dsmath.web.annotate.marks import Event, Mark
from dsmath.web.annotate.tree import DomainTree, Node, cumsum
from dsmath.web.paths import MarkedPaths

CHILDREN = 50  # that are shown at first


@dataclasses.dataclass(frozen=True)
class State:
    """A domain's tree under the marks that stand on it.

    Attributes:
      tree: the pages.
      marks: those that stand.
      mark_N: int32 [N], the mark that decides on each page, or -1.
      verdict_N: int8 [N], its verdict's index into `VERDICTS`, or -1.
      suggested: paths that look like mathematics, whatever is marked.
      event: the last event that counts here.
    """

    tree: DomainTree
    marks: list[Mark]
    mark_N: np.ndarray
    verdict_N: np.ndarray
    suggested: list[Node]
    event: int


class Rows:
    """Lists the rows of a tree that are to be seen, from the top."""

    def __init__(self, state: State, suggestions: Sequence[Node], opened: Mapping[str, int]):
        self._tree, self._opened = state.tree, opened
        self._added = cumsum(state.tree.uncollected_N & (state.verdict_N == 0))
        self._marks = {mark.event.pattern: mark for mark in state.marks}
        self._find_mark = mark_finder(state.marks)
        self._suggested = {node.address for node in suggestions}

    def read(self) -> list[dict[str, Any]]:
        """The rows as the page takes them; where children are left out, a row says how many."""
        return self._below(self._tree.hosts(), "", 1)

    def _below(self, nodes: Sequence[Node], parent: str, level: int) -> list[dict[str, Any]]:
        rows, shown = [], self._opened.get(parent, CHILDREN)
        for node in nodes[:shown]:
            is_open = node.has_children and node.address in self._opened
            rows.append(self._row(node, level) | {"open": is_open})
            if is_open:
                rows += self._below(self._tree.children(node.address), node.address, level + 1)
        if len(nodes) > shown:
            rows.append({"more": len(nodes) - shown, "parent": parent, "level": level, "shown": shown})
        return rows

    def _row(self, node: Node, level: int) -> dict[str, Any]:
        uncollected, gain, added = (
            float(sums[node.last] - sums[node.first])
            for sums in (self._tree.uncollected_cumsum, self._tree.gain_cumsum, self._added)
        )
        mark = self._marks.get(node.address)
        above = None if mark else self._find_mark(node.address)
        return {
            "address": node.address,
            "label": node.label,
            "level": level,
            "leaf": not node.has_children,
            "pages": node.last - node.first,
            "uncollected": int(uncollected),
            "score": gain / uncollected if uncollected else None,
            "gain": gain,
            "added": int(added),
            "verdict": mark and mark.event.verdict,
            "user": mark and mark.event.user,
            "others": names(mark.others) if mark else [],
            "inherited": above and above.event.verdict,
            "suggested": node.address in self._suggested,
        }


def mark_finder(marks: Sequence[Mark]) -> Callable[[str], Mark | None]:
    """A function from an address to the mark that decides on it."""
    by_pattern = {mark.pattern: mark for mark in marks}
    marked = MarkedPaths(map(str, by_pattern))
    return lambda address: by_pattern.get(marked.find(f"http://{address}"))


def names(events: Sequence[Event]) -> list[dict[str, str]]:
    """Who said what."""
    return [{"user": event.user, "verdict": event.verdict} for event in events]
