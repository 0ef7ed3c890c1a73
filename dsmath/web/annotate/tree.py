"""One domain's addresses as a tree of paths, and what marks do to its pages."""

import bisect
import functools
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dsmath.web.paths import Pattern, normalise_address

# Addresses are sorted with these in place of the marks that part them: they come before all characters of an
# address, so the pages under a path stand in a row. In a query, a field's name is a part of its own.
_PART, _QUERY, _FIELD, _VALUE, _AFTER_PARTS, _AFTER_ALL = "\x01", "\x02", "\x03", "\x04", "\x05", "\x7f"
_TO_ADDRESS = str.maketrans({_PART: "/", _QUERY: "?", _FIELD: "&", _VALUE: "="})
_PARTS = re.compile(f"[{_PART}{_QUERY}{_FIELD}{_VALUE}]")
_MAIN_PATH = 8  # levels at most
_MOST_MASKS = 100  # of patterns with a `*`, a byte a page each
_ESCAPES = re.compile("(?:%[0-9A-F]{2})+")


class Node(NamedTuple):
    """A path of the tree and the pages below it.

    Attributes:
      key: its address as addresses are sorted.
      start: where its last part begins in the key.
      first, last: its pages are those from `first` until before `last`.
      has_children: whether there are paths below it.
    """

    key: str
    start: int
    first: int
    last: int
    has_children: bool

    @property
    def address(self) -> str:
        """The pattern of the path; that of a query's field ends in `=*`."""
        return self.key.translate(_TO_ADDRESS) + ("*" if self.key.endswith(_VALUE) else "")

    @property
    def label(self) -> str:
        """Its last part, for people: escapes are undone where they spell letters."""
        mark = self.key[self.start - 1] if self.start else ""
        part = self.key[self.start :] if mark in ("", _PART) else mark + self.key[self.start :]
        return readable(part.translate(_TO_ADDRESS))


class DomainTree:
    """The pages of a domain, sorted by address.

    Attributes:
      pages: table with url, score, collected, file and row; pages whose address has no host are left out.
      score_N: float64 [N].
      uncollected_N: bool [N], the pages that were not collected.
    """

    def __init__(self, pages: pa.Table):
        keys = [_key(address) if (address := normalise_address(url)) else "" for url in pages["url"].to_pylist()]
        order = sorted((number for number, key in enumerate(keys) if key), key=keys.__getitem__)
        self._keys = [keys[number] for number in order]
        self.pages = pages.take(pa.array(order, pa.int64())).combine_chunks()
        self.score_N = self.pages["score"].to_numpy().astype(np.float64)
        self.uncollected_N = ~self.pages["collected"].to_numpy(zero_copy_only=False)
        self._masks: dict[str, np.ndarray] = {}
        self._children: dict[str, list[Node]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, pattern: Pattern) -> slice | np.ndarray:
        """The pages under a pattern, whether it excludes or not: a slice, or a bool [N] where it has a `*` inside."""
        address = pattern.address
        if "*" not in address:
            key = _key(address)
            return self._slice(key, key + _VALUE)
        host, mark, _ = address.partition("/")
        if mark and "*" not in host and address.index("*") == len(address) - 1:
            key = _key(address[:-1])
            return self._slice(key, key + _AFTER_ALL)
        if address not in self._masks:
            if len(self._masks) >= _MOST_MASKS:
                self._masks.clear()
            matches = pattern.compile().fullmatch
            found = (matches(key.translate(_TO_ADDRESS)) is not None for key in self._keys)
            self._masks[address] = np.fromiter(found, bool, count=len(self))
        return self._masks[address]

    def decide(self, patterns: Sequence[Pattern]) -> np.ndarray:
        """Which pattern decides on each page, as `dsmath.web.paths.MarkedPaths` has it.

        Returns:
          int32 [N]: index into `patterns`, -1 where none matches.
        """
        decided_N = np.full(len(self), -1, dtype=np.int32)
        order = sorted(range(len(patterns)), key=lambda i: (patterns[i].specificity, patterns[i].excludes, patterns[i]))
        for index in order:
            decided_N[self.find(patterns[index])] = index
        return decided_N

    def hosts(self) -> list[Node]:
        """The hosts, those with the most gain first."""
        return self._children_of("")

    def children(self, address: str) -> list[Node]:
        """The paths right below a node, those with the most gain first."""
        return self._children_of(_node_key(address) if address else "")

    def path_to(self, address: str) -> list[tuple[Node, int]]:
        """The nodes from a host down to an address, as far as there are, each with its place among its siblings."""
        target, nodes, found = _node_key(address), self.hosts(), []
        while nodes:
            for place, node in enumerate(nodes):
                key = node.key
                if (
                    target == key
                    or target.startswith((f"{key}{_PART}", f"{key}{_QUERY}", f"{key}{_FIELD}"))
                    or (key.endswith(_VALUE) and target.startswith(key))
                ):
                    found.append((node, place))
                    break
            else:
                break
            nodes = self._children_of(key) if target != key else []
        return found

    def main_path(self, address: str) -> list[Node]:
        """From a node ("" is the domain) down: children that hold nine tenths of the gain and have children."""
        found: list[Node] = []
        while len(found) < _MAIN_PATH:
            nodes = self.children(address)
            gain = sum(self._sum(self.gain_cumsum, node) for node in nodes)
            if not nodes or not nodes[0].has_children or self._sum(self.gain_cumsum, nodes[0]) < 0.9 * gain:
                break
            found.append(nodes[0])
            address = nodes[0].address
        return found

    @functools.cached_property
    def gain_cumsum(self) -> np.ndarray:
        """float64 [N + 1]: the scores of the uncollected pages before each place, summed."""
        return cumsum(np.where(self.uncollected_N, self.score_N, 0.0))

    @functools.cached_property
    def uncollected_cumsum(self) -> np.ndarray:
        """float64 [N + 1]: the number of uncollected pages before each place."""
        return cumsum(self.uncollected_N)

    def suggest(self, *, min_score: float, min_pages: int) -> list[Node]:
        """Paths that look like mathematics throughout: the broadest ones that pass, best first.

        Args:
          min_score: a path passes if its uncollected pages' mean score reaches it, and that of none of its larger parts
            falls below half of it.
          min_pages: uncollected pages that a path, or a larger part of one, has at least.
        """

        def mean(node: Node) -> float:
            return self._sum(self.gain_cumsum, node) / max(self._sum(self.uncollected_cumsum, node), 1)

        def large_parts(key: str) -> list[Node]:  # most parts are single pages
            nodes = (node for node in self._read_children(key) if node.last - node.first >= min_pages)
            return [node for node in nodes if self._sum(self.uncollected_cumsum, node) >= min_pages]

        def search(nodes: list[Node]) -> None:
            for node in nodes:
                large = large_parts(node.key) if node.has_children else []
                if mean(node) >= min_score and all(mean(part) >= min_score / 2 for part in large):
                    found.append(node)
                else:
                    search(large)

        found: list[Node] = []
        search(large_parts(""))
        return sorted(found, key=lambda node: -self._sum(self.gain_cumsum, node))

    @staticmethod
    def _sum(cumsum_N: np.ndarray, node: Node) -> float:
        return float(cumsum_N[node.last] - cumsum_N[node.first])

    def _slice(self, start: str, end: str) -> slice:
        first = bisect.bisect_left(self._keys, start)
        return slice(first, bisect.bisect_left(self._keys, end, lo=first))

    def _children_of(self, key: str) -> list[Node]:
        if key not in self._children:
            nodes = list(self._read_children(key))
            self._children[key] = sorted(nodes, key=lambda node: (-self._sum(self.gain_cumsum, node), node.first))
        return self._children[key]

    def _read_children(self, key: str) -> Iterator[Node]:
        place, end = (0, len(self)) if not key else self._children_range(key)
        start = len(key) if not key or key.endswith(_VALUE) else len(key) + 1
        while place < end:
            here = self._keys[place]
            part = start
            while here.startswith(_PART, part):  # empty parts of a path belong to the next one
                part += 1
            cut = _PARTS.search(here, part)
            child = here if cut is None else here[: cut.end() if cut[0] == _VALUE else cut.start()]
            last = self._end(child, place, end)
            deeper = child + (_AFTER_PARTS if child.endswith(_VALUE) else _PART)
            yield Node(child, start, place, last, self._keys[last - 1] >= deeper)
            place = last

    def _children_range(self, key: str) -> tuple[int, int]:
        """The pages below a node, without those at its very address; of a field, those with a value."""
        if key.endswith(_VALUE):
            found = self._slice(key + _AFTER_PARTS, key + _AFTER_ALL)
        else:
            found = self._slice(key + _PART, key + _VALUE)
        return found.start, found.stop

    def _end(self, child: str, place: int, end: int) -> int:
        """The place after a child's pages; most children of large nodes are single pages."""
        after = child + (_AFTER_ALL if child.endswith(_VALUE) else _VALUE)
        if place + 1 == end or self._keys[place + 1] >= after:
            return place + 1
        return bisect.bisect_left(self._keys, after, lo=place, hi=end)


def cumsum(value_N: np.ndarray) -> np.ndarray:
    """float64 [N + 1]: sums of the values before each place."""
    return np.concatenate([[0.0], np.cumsum(value_N, dtype=np.float64)])


def readable(address: str) -> str:
    """An address with its escapes undone where they spell printable characters: no blanks, no marks of direction."""

    def read(match: re.Match) -> str:
        try:
            text = urllib.parse.unquote(match[0], errors="strict")
        except UnicodeDecodeError:
            return match[0]
        return text if text.isprintable() and not text.isascii() and " " not in text else match[0]

    return _ESCAPES.sub(read, address)


def _key(address: str) -> str:
    path, mark, query = address.partition("?")
    key = path.replace("/", _PART)
    if mark:
        key += _QUERY + _FIELD.join(field.replace("=", _VALUE, 1) for field in query.split("&"))
    return key


def _node_key(address: str) -> str:
    """The key of a node; a field's address ends in `=*`."""
    return _key(address[:-1]) if address.endswith("=*") else _key(address)
