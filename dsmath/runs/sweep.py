"""The plan of a sweep: from its config to commands that are named by what they compute.

A sweep's parents and runs are entries: a stage, a preset of its config, and overrides, nested as the config's fields
are. A value `{NAME}` stands for the folder of the parent or run of that name; among runs it is the one of the same
seed. The folder of a stage bears a hash of all that decides its result: its resolved config, where the hashes of
folders stand for their names. So a second sweep finds what the first one made.
"""

import dataclasses
import difflib
import graphlib
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from dsmath.runs.commands import differences, stage_command
from dsmath.runs.content import content_hash, existing, hash_json
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import require_finished

Load = Callable[[str, str], ml_collections.ConfigDict]  # (stage, preset) -> its config

RUN = "run"  # in an evaluation, {run} is what is evaluated
_KEYED = ("corpora", "weights")  # mappings whose keys are the user's: an override replaces all of them
_FIELDS = {"label", "stage", "preset", "overrides", "grid"}  # of a run


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


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What a sweep's config says of one stage; overrides by dotted name. A given workdir is not run."""

    source: str  # the place in the config
    stage: str
    preset: str
    overrides: Mapping[str, Any]
    workdir: str = ""

    @property
    def parents(self) -> set[str]:
        return set() if self.workdir else set(_references(self.overrides.values()))


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
    entries = _parents(config)
    runs = _runs(config, entries)
    entries |= {name: entry for name, (_, _, entry) in runs.items()}
    for entry in entries.values():
        _load(load, entry)  # what is unknown is named first
    evaluated = [point for name, run in runs.items() for point in _evaluations(config, name, *run)]
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
        resolved[name] = _resolve(config, entry, default)
        if entry.source == "config.evaluation":
            _check_kept(resolved[name].get("step", 0), entry, resolved)
        chosen = resolved[name].to_dict()
        hashes[name] = hash_json([entry.stage, _replace(chosen, lambda value: _addressed(value, hashes))])
        # A folder of this hash, whatever the entry or the sweep that made it calls it; else one with this name
        known = [folders[other] for other, key in hashes.items() if key == hashes[name] and other in folders]
        slug = re.sub(r"[^\w.+=]+", "-", name).strip("-.")
        folders[name] = next(iter(known or sorted(store.glob(f"*-{hashes[name]}"))), store / f"{slug}-{hashes[name]}")
        here = _replace(chosen, lambda value: str(folders[value[1:-1]]) if _is_reference(value) else value)
        command = stage_command(entry.stage, entry.preset, folders[name], differences(default.to_dict(), here))
        parents = tuple(sorted(folders[parent] for parent in entry.parents if not entries[parent].workdir))
        stages.setdefault(folders[name], Stage(name, folders[name], command, parents))
    return stages, [Point(label, seed, step, folders[name]) for name, label, seed, step, _ in evaluated]


def _parents(config: Any) -> dict[str, _Entry]:
    entries = {}
    for name, parent in config.parents.items():
        source = f"config.parents.{name}"
        _check_name(name, source)
        overrides = _common(config, parent.stage) | dict(_flatten(parent.overrides))
        entries[name] = _Entry(source, parent.stage, parent.preset, overrides, parent.workdir)
    return entries


def _runs(config: Any, parents: Mapping[str, _Entry]) -> dict[str, tuple[str, int, _Entry]]:
    """Each run with each seed by its name: label, seed and entry."""
    if not config.runs or not config.seeds:
        raise InputError(f"config.{'seeds' if config.runs else 'runs'}: empty; name one at least")
    if len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"config.seeds: {config.seeds} names one of them twice")
    expanded = [run for place, run in enumerate(config.runs) for run in _expand(dict(run), f"config.runs[{place}]")]
    labels: set[str] = set()
    for label, source, *_ in expanded:
        _check_name(label, source)
        if label in labels | parents.keys():
            raise InputError(f"{source}: {label!r} is the label of two; give each its own")
        labels.add(label)
    runs = {}
    for seed in config.seeds:
        for label, source, run, overrides in expanded:
            values = _common(config, run["stage"]) | overrides | {"seed": seed}
            values = _replace(values, lambda value, seed=seed: _of_seed(value, labels, seed))
            runs[_seeded(label, seed)] = (label, seed, _Entry(source, run["stage"], run["preset"], values))
    return runs


def _expand(run: dict[str, Any], source: str) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """A run for each point of its grid: label, place in the config, the run, overrides by dotted name."""
    for field in run.keys() - _FIELDS:
        raise InputError(f"{source}: unknown field {field!r}{_nearest(field, _FIELDS)}")
    for field in ("label", "stage", "preset"):
        if not isinstance(run.get(field, "" if field == "label" else None), str):
            raise InputError(f"{source}.{field}: give a text")
    overrides, grid = dict(_flatten(run.get("overrides", {}))), dict(_flatten(run.get("grid", {})))
    for field, values in grid.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise InputError(f"{source}.grid.{field}: {values!r} is no list of values")
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        label = ", ".join(filter(None, [run.get("label", ""), *(f"{name}={value}" for name, value in point.items())]))
        yield label, source, run, overrides | point


def _evaluations(
    config: Any, run: str, label: str, seed: int, entry: _Entry
) -> Iterator[tuple[str, str, int, int | None, _Entry | None]]:
    """What is evaluated of a run: name, label, seed, step and entry; none where the run's own result is the figure.

    At step 0 it is what the run started from.
    """
    evaluation = config.evaluation
    if not evaluation.stage:
        yield run, label, seed, None, None
        return
    common = _common(config, evaluation.stage) | dict(_flatten(evaluation.overrides))
    for step in evaluation.steps or (None,):
        if step == 0 and "init_from" not in entry.overrides:
            raise InputError(f"config.evaluation.steps: 0 is what a run starts from, and {label!r} sets no init_from")
        subject = entry.overrides["init_from"] if step == 0 else f"{{{run}}}"
        values = {field: subject if value == f"{{{RUN}}}" else value for field, value in common.items()}
        values |= {"step": step} if step else {}
        name = f"{run} evaluated" + (f" at {step}" if step is not None else "")
        yield name, label, seed, step, _Entry("config.evaluation", evaluation.stage, evaluation.preset, values)


def _order(entries: Mapping[str, _Entry], wanted: Iterable[str]) -> list[str]:
    """The entries that are wanted, in this order, each after those of its ancestors that were not named before."""
    graph: dict[str, set[str]] = {}
    pending = list(wanted)
    for name in pending:  # it grows
        if name not in graph:
            for parent in sorted(entries[name].parents - entries.keys()):
                raise InputError(f"{entries[name].source}: there is no {{{parent}}}{_nearest(parent, entries)}")
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


def _resolve(config: Any, entry: _Entry, default: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The stage's config with the entry's overrides."""
    chosen = default.copy_and_resolve_references()
    fields = [field for field, _ in _flatten(chosen.to_dict())]
    for field, value in entry.overrides.items():
        *path, last = field.split(".")
        node = chosen
        for part in path:
            node = node[part] if isinstance(node, ml_collections.ConfigDict) and part in node else None
        if not isinstance(node, ml_collections.ConfigDict) or last not in node:
            hint = _nearest(field, fields)
            raise InputError(f"{entry.source}: the config of {entry.stage} has no field {field!r}{hint}")
        try:
            node[last] = ml_collections.ConfigDict(value) if last in _KEYED else value
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{entry.source}: {field} is {node[last]!r} by default, not of the kind {value!r}"
            ) from error
    return chosen


def _check_kept(step: int, entry: _Entry, resolved: Mapping[str, Any]) -> None:
    """Refuses to evaluate a checkpoint that its run will not keep."""
    for parent in entry.parents:
        run = resolved.get(parent, {})
        if not step or not all(field in run for field in ("num_steps", "save_every", "keep_last")):
            continue
        kept = list(range(run.save_every, run.num_steps + 1, run.save_every))[-run.keep_last :]
        if step not in (*kept, run.num_steps):
            raise InputError(
                f"config.evaluation.steps: {step} is none of the checkpoints that {parent} keeps, "
                f"{', '.join(map(str, sorted({*kept, run.num_steps})))}; see its save_every and keep_last"
            )


def _given(entry: _Entry) -> pathlib.Path:
    field = f"{entry.source}.workdir"
    require_finished(entry.workdir, field)
    folder = pathlib.Path(entry.workdir).absolute()
    if not folder.is_dir():
        raise InputError(f"{field}={entry.workdir!r}: there is no such folder; leave it empty to have the stage run")
    return folder


def _load(load: Load, entry: _Entry) -> ml_collections.ConfigDict:
    try:
        return load(entry.stage, entry.preset)
    except ImportError as error:
        raise InputError(f"{entry.source}.stage: there is no configs/{entry.stage}.py") from error
    except ValueError as error:
        raise InputError(f"{entry.source}.preset: {error}") from error


def _common(config: Any, stage: str) -> dict[str, Any]:
    """The overrides of every command of a stage."""
    return dict(_flatten(config.common.get(stage, {})))


def _flatten(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested overrides by dotted name."""
    for name, value in overrides.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict) and name not in _KEYED:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value


def _check_name(name: str, source: str) -> None:
    if not name or re.search(r"[{}]", name) or name == RUN:
        raise InputError(f"{source}: {name!r} is no name; it is a text without braces, and not {RUN!r}")


def _seeded(label: str, seed: int) -> str:
    return f"{label}, seed {seed}"


def _of_seed(value: Any, labels: set[str], seed: int) -> Any:
    """A reference to a run, made one to the run of this seed."""
    return f"{{{_seeded(value[1:-1], seed)}}}" if _is_reference(value) and value[1:-1] in labels else value


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\{[^{}]+\}", value) is not None


def _references(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping):
            yield from _references(value.values())
        elif _is_reference(value):
            yield value[1:-1]


def _replace(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of mappings with its leaves changed."""
    if isinstance(value, Mapping):
        return {name: _replace(below, change) for name, below in value.items()}
    return change(value)


def _addressed(value: Any, hashes: Mapping[str, str]) -> Any:
    """A value as the hash sees it: a folder or file is its content."""
    if _is_reference(value):
        return {"content": hashes[value[1:-1]]}
    path = existing(value) if isinstance(value, str) else None
    return {"content": content_hash(path)} if path else value


def _nearest(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
