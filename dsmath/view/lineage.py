"""Who was made from whom: the runs as a graph, laid out in columns from the corpus to the evaluations."""

import pathlib
from collections.abc import Mapping
from typing import Any

import networkx as nx

from dsmath.view.runs import Run

_STAGES = (  # columns, where parents do not push a run further to the right
    ("mine",), ("export", "tokenizer"), ("pretrain", "convert"), ("sft",), ("reward",), ("rl",),
    ("evaluate", "generate"),
)  # fmt: skip
_COLUMN = {stage: column for column, stages in enumerate(_STAGES) for stage in stages}
_FEW = 2  # leaves that are drawn one by one
_ROLES = 40  # parents of one run that are looked at


def draw(runs: Mapping[str, Run]) -> dict[str, Any]:
    """The graph.

    A parent is found by its lineage's fingerprint, so that a folder may have been moved, and by the end of its path
    where several runs have the same record (those of two seeds do).

    Args:
      runs: by name.
    Returns:
      nodes (id, label, runs, stage, column, row; `runs` is empty for a parent that lies elsewhere, and holds several
      where three or more runs of one stage have the same parents and no children), edges (from, to, roles, step).
    """
    graph, index = nx.DiGraph(), _Index(runs)
    graph.add_nodes_from(runs)
    for name, run in runs.items():
        for role, parent in _parents(run).items():
            found = index.find(parent) or f"elsewhere: {parent.get('workdir')}"[:500]
            if found == name:
                continue
            graph.add_edge(found, name)
            edge = graph.edges[found, name]
            edge.setdefault("roles", []).append(str(role)[:60])
            edge["step"] = parent.get("step") if isinstance(parent.get("step"), int) else edge.get("step")
    linked = {name for name in graph if graph.degree(name)}
    # A pipeline or a sweep is no stage: the stages that it ran have folders of their own.
    graph.remove_nodes_from([name for name in runs if name not in linked and runs[name].stage not in _COLUMN])
    _cut_circles(graph)
    groups = _fold(graph, runs)
    places = _place(graph, runs)
    nodes = [
        {
            "id": name,
            "label": name.rpartition("/")[2],
            "runs": groups.get(name, [name] if name in runs else []),
            "stage": runs[name].stage if name in runs else "",
            "column": places[name][0],
            "row": places[name][1],
        }
        for name in graph
    ]
    edges = [
        {"from": parent, "to": child, "roles": edge["roles"], "step": edge["step"]}
        for parent, child, edge in graph.edges(data=True)
    ]
    return {"nodes": nodes, "edges": edges}


def _parents(run: Run) -> dict[str, dict[str, Any]]:
    parents = run.lineage.get("parents")
    parents = list(parents.items())[:_ROLES] if isinstance(parents, dict) else []
    return {role: parent for role, parent in parents if isinstance(parent, dict)}


class _Index:
    """Finds runs by what their children say of them."""

    def __init__(self, runs: Mapping[str, Run]):
        self._made: dict[str, list[str]] = {}  # names by fingerprint
        self._named: dict[str, list[str]] = {}  # names by the last part of the name
        for name, run in runs.items():
            if run.fingerprint:
                self._made.setdefault(run.fingerprint, []).append(name)
            self._named.setdefault(name.rpartition("/")[2], []).append(name)

    def find(self, parent: Mapping[str, Any]) -> str:
        """The name of the run, "" where it is not among them."""
        path, fingerprint = pathlib.PurePath(str(parent.get("workdir", ""))).parts, parent.get("lineage")
        candidates = self._made.get(fingerprint, []) if isinstance(fingerprint, str) else []
        if not candidates and path:  # its record has changed, or it had none: the path alone
            named = self._named.get(path[-1], [])
            candidates = [name for name in named if path[-len(_parts(name)) :] == _parts(name)]
        return max(candidates, key=lambda name: _common_end(path, _parts(name)), default="")


def _parts(name: str) -> tuple[str, ...]:
    return pathlib.PurePath(name).parts


def _common_end(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    common = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        common += 1
    return common


def _cut_circles(graph: nx.DiGraph) -> None:
    """Honest records have none."""
    for part in [part for part in nx.strongly_connected_components(graph) if len(part) > 1]:
        graph.remove_edges_from([edge for edge in graph.edges(part) if edge[1] in part])


def _fold(graph: nx.DiGraph, runs: Mapping[str, Run]) -> dict[str, list[str]]:
    """Makes one node of many leaves that differ in nothing that the graph shows; returns the runs by node."""
    alike: dict[tuple, list[str]] = {}
    for name in graph:
        if name in runs and not graph.out_degree(name) and graph.in_degree(name):
            alike.setdefault((runs[name].stage, frozenset(graph.predecessors(name))), []).append(name)
    groups = {names[0]: names for names in alike.values() if len(names) > _FEW}
    graph.remove_nodes_from([name for names in groups.values() for name in names[1:]])
    return groups


def _place(graph: nx.DiGraph, runs: Mapping[str, Run]) -> dict[str, tuple[int, int]]:
    """Column and row of each node: right of its parents, and in their order."""
    column: dict[str, int] = {}
    for name in nx.lexicographical_topological_sort(graph):
        least = _COLUMN.get(runs[name].stage, 0) if name in runs else 0
        column[name] = max([least, *(column[parent] + 1 for parent in graph.predecessors(name))])
    used = sorted(set(column.values()))
    places: dict[str, tuple[int, int]] = {}
    for place, number in enumerate(used):
        here = [name for name in graph if column[name] == number]

        def wanted(name: str) -> tuple[float, str]:
            rows = [places[parent][1] for parent in graph.predecessors(name)]
            return (sum(rows) / len(rows) if rows else 0.0, name)

        for row, name in enumerate(sorted(here, key=wanted)):
            places[name] = (place, row)
    return places
