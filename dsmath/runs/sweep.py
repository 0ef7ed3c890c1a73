"""The plan of a sweep: from its config to commands, each with a folder that is named after what it computes.

The name bears a hash of all that decides a stage's result: its resolved config, where the hashes of folders stand for
their names. So a second sweep finds what the first one made.
"""

import dataclasses
import graphlib
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from dsmath.runs.commands import differences, stage_command
from dsmath.runs.content import content_hash, existing, hash_json
from dsmath.runs.entries import (
    KEYED,
    Entry,
    flatten,
    is_reference,
    nearest,
    read_evaluations,
    read_parents,
    read_runs,
    replace,
)
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import require_finished

Load = Callable[[str, str], ml_collections.ConfigDict]  # (stage, preset) -> its config


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command of a sweep.

    Attributes:
      name: for people.
      workdir: its folder.
      command: the words of its command line.
      parents: folders that must have finished before.
    """

    name: str
    workdir: pathlib.Path
    command: list[str]
    parents: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Point:
    """Where a figure of one run comes from: `workdir` is that of the evaluation, or of the run itself without one."""

    label: str
    seed: int
    step: int | None  # of the evaluated checkpoint; None: the newest
    workdir: pathlib.Path


def plan(
    config: ml_collections.ConfigDict, store: pathlib.Path, load: Load
) -> tuple[dict[pathlib.Path, Stage], list[Point]]:
    """What a sweep runs, parents first, and where its figures come from.

    Args:
      config: of the sweep.
      store: folder of the stages' folders, absolute.
      load: reads a stage's config.
    Raises:
      InputError: an unknown stage, preset, field or name; a value of another type; two runs of one label; a circle;
        a given parent that has not finished; a checkpoint to evaluate that its run does not keep.
    """
    entries = read_parents(config)
    runs = read_runs(config, entries)
    entries |= {name: entry for name, (_, _, entry) in runs.items() if entry.stage}
    for entry in entries.values():
        _load(load, entry)  # what is unknown is named first
    evaluated = [point for name, run in runs.items() for point in read_evaluations(config, name, *run)]
    entries |= {name: entry for name, _, _, _, entry in evaluated if entry}

    stages: dict[pathlib.Path, Stage] = {}
    folders: dict[str, pathlib.Path] = {}
    hashes: dict[str, str] = {}
    resolved: dict[str, ml_collections.ConfigDict] = {}
    for name in _order(entries, [name for name, *_ in evaluated]):
        entry = entries[name]
        if entry.workdir:
            folders[name] = _given(entry)
            hashes[name] = content_hash(folders[name])
            continue
        default = _load(load, entry)
        resolved[name] = _resolve(entry, default)
        if entry.source == "config.evaluation":
            _check_kept(resolved[name].get("step", 0), entry, resolved)
        chosen = resolved[name].to_dict()
        hashes[name] = hash_json([entry.stage, replace(chosen, lambda value: _addressed(value, hashes))])
        # A folder of this hash, whatever the entry or the sweep that made it calls it; else one with this name
        known = [folders[other] for other, key in hashes.items() if key == hashes[name] and other in folders]
        slug = re.sub(r"[^\w.+=]+", "-", name).strip("-.")
        folders[name] = next(iter(known or sorted(store.glob(f"*-{hashes[name]}"))), store / f"{slug}-{hashes[name]}")
        here = replace(chosen, lambda value: str(folders[value[1:-1]]) if is_reference(value) else value)
        command = stage_command(entry.stage, entry.preset, folders[name], differences(default.to_dict(), here))
        parents = tuple(sorted(folders[parent] for parent in entry.parents if not entries[parent].workdir))
        stages.setdefault(folders[name], Stage(name, folders[name], command, parents))
    return stages, [Point(label, seed, step, folders[name]) for name, label, seed, step, _ in evaluated]


def _order(entries: Mapping[str, Entry], wanted: Iterable[str]) -> list[str]:
    """The entries that are wanted, in this order, each after those of its ancestors that were not named before."""
    graph: dict[str, set[str]] = {}
    pending = list(wanted)
    for name in pending:  # it grows
        if name not in graph:
            for parent in sorted(entries[name].parents - entries.keys()):
                raise InputError(f"{entries[name].source}: there is no {{{parent}}}{nearest(parent, entries)}")
            graph[name] = entries[name].parents
            pending += sorted(graph[name])
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = " needs ".join(f"{{{name}}}" for name in reversed(error.args[1]))
        raise InputError(f"config.parents, config.runs: {circle}; a stage cannot be its own ancestor") from error
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        for parent in sorted(graph[name]):
            visit(parent)
        order[name] = None

    for name in wanted:
        visit(name)
    return list(order)


def _resolve(entry: Entry, default: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The stage's config with the entry's overrides."""
    chosen = default.copy_and_resolve_references()
    fields = [field for field, _ in flatten(chosen.to_dict())]
    for field, value in entry.overrides.items():
        *path, last = field.split(".")
        node = chosen
        for part in path:
            node = node[part] if isinstance(node, ml_collections.ConfigDict) and part in node else None
        if not isinstance(node, ml_collections.ConfigDict) or last not in node:
            hint = nearest(field, fields)
            raise InputError(f"{entry.source}: the config of {entry.stage} has no field {field!r}{hint}")
        try:
            node[last] = ml_collections.ConfigDict(value) if last in KEYED else value
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{entry.source}: {field} is {node[last]!r} by default, not of the kind {value!r}"
            ) from error
    return chosen


def _check_kept(step: int, entry: Entry, resolved: Mapping[str, Any]) -> None:
    """Refuses to evaluate a checkpoint that its run will not keep."""
    for parent in entry.parents:
        run = resolved.get(parent, {})
        if not step or not all(field in run for field in ("num_steps", "save_every", "keep_last")):
            continue
        updates = run.get("updates_per_rollout", 1)  # a checkpoint's number counts them all
        last, every = run.num_steps * updates, run.save_every * updates
        kept = {*range(every, last + 1, every)[-run.keep_last :], last}
        if step not in kept:
            raise InputError(
                f"config.evaluation.steps: {step} is none of the checkpoints that {parent} keeps, "
                f"{', '.join(map(str, sorted(kept)))}; see its save_every and keep_last"
            )


def _given(entry: Entry) -> pathlib.Path:
    field = f"{entry.source}.workdir"
    require_finished(entry.workdir, field)
    folder = pathlib.Path(entry.workdir).absolute()
    if not folder.is_dir():
        raise InputError(f"{field}={entry.workdir!r}: there is no such folder; leave it empty to have the stage run")
    return folder


def _load(load: Load, entry: Entry) -> ml_collections.ConfigDict:
    try:
        return load(entry.stage, entry.preset)
    except ImportError as error:
        raise InputError(f"{entry.source}.stage: there is no configs/{entry.stage}.py") from error
    except ValueError as error:
        raise InputError(f"{entry.source}.preset: {error}") from error


def _addressed(value: Any, hashes: Mapping[str, str]) -> Any:
    """A value as the hash sees it: a folder or file is its content."""
    if is_reference(value):
        return {"content": hashes[value[1:-1]]}
    path = existing(value) if isinstance(value, str) else None
    return {"content": content_hash(path)} if path else value
