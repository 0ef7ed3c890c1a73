"""What a sweep's config says: its parents, its runs with every seed, their evaluations.

Each is an entry: a stage, a preset of its config, and overrides by dotted name. A value `{NAME}` stands for the folder
of the parent or run of that name; among runs it is the one of the same seed.
"""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections

from dsmath.runs.commands import differences
from dsmath.runs.errors import InputError

RUN = "run"  # in an evaluation, {run} is what is evaluated
# Mappings whose keys are the user's: an override replaces all of them.
KEYED = ("corpora", "weights", "solutions", "repeats")
_FIELDS = {"label", "stage", "preset", "overrides", "grid", "judged"}  # of a run


@dataclasses.dataclass(frozen=True)
class Entry:
    """One stage: where the config names it, what it is, its overrides. A given workdir is not run.

    Attributes:
      source: the place in the config.
      stage: its name; of a run "" where nothing is run, and what its `init_from` names is evaluated as it is.
      preset: of the stage's config.
      overrides: by dotted name.
      workdir: a finished one that stands for the stage.
      judged: whether it is evaluated and shown; a run that only others start from is not.
    """

    source: str
    stage: str
    preset: str
    overrides: Mapping[str, Any]
    workdir: str = ""
    judged: bool = True

    @property
    def parents(self) -> set[str]:
        """The names that its values refer to."""
        return set() if self.workdir else set(references(self.overrides.values()))


def read_parents(config: Any) -> dict[str, Entry]:
    """The parents by name."""
    entries = {}
    for name, parent in config.parents.items():
        source = f"config.parents.{name}"
        _check_name(name, source)
        overrides = _common(config, parent.stage) | dict(flatten(parent.overrides))
        entries[name] = Entry(source, parent.stage, parent.preset, overrides, parent.workdir)
    return entries


def read_runs(config: Any, parents: Mapping[str, Entry]) -> dict[str, tuple[str, int, Entry]]:
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
            values = replace(values, lambda value, seed=seed: _of_seed(value, labels, seed))
            entry = Entry(source, run["stage"], run["preset"], values, judged=run.get("judged", True))
            runs[_seeded(label, seed)] = (label, seed, entry)
    return runs


def _expand(run: dict[str, Any], source: str) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """A run for each point of its grid: label, place in the config, the run, overrides by dotted name."""
    for field in run.keys() - _FIELDS:
        raise InputError(f"{source}: unknown field {field!r}{nearest(field, _FIELDS)}")
    for field in ("label", "stage", "preset"):
        if not isinstance(run.get(field, "" if field == "label" else None), str):
            raise InputError(f"{source}.{field}: give a text")
    if not isinstance(run.get("judged", True), bool):
        raise InputError(f"{source}.judged: {run['judged']!r} is neither True nor False")
    if not run["stage"] and "init_from" not in run.get("overrides", {}):
        raise InputError(f"{source}.stage: empty, so overrides must name by init_from what is evaluated as it is")
    overrides, grid = dict(flatten(run.get("overrides", {}))), dict(flatten(run.get("grid", {})))
    for field, values in grid.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise InputError(f"{source}.grid.{field}: {values!r} is no list of values")
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        label = ", ".join(filter(None, [run.get("label", ""), *(f"{name}={value}" for name, value in point.items())]))
        yield label, source, run, overrides | point


def read_evaluations(
    config: Any, run: str, label: str, seed: int, entry: Entry
) -> Iterator[tuple[str, str, int, int | None, Entry | None]]:
    """What is evaluated of a run: name, label, seed, step and entry; none where the run's own result is the figure.

    At step 0 it is what the run started from.
    """
    evaluation = config.evaluation
    if not entry.judged:
        return
    if not evaluation.stage:
        if not entry.stage:
            raise InputError(f"{entry.source}.stage: empty, and nothing is evaluated; see config.evaluation.stage")
        yield run, label, seed, None, None
        return
    common = _common(config, evaluation.stage) | dict(flatten(evaluation.overrides))
    for step in evaluation.steps or (None,):
        if step == 0 and "init_from" not in entry.overrides:
            raise InputError(f"config.evaluation.steps: 0 is what a run starts from, and {label!r} sets no init_from")
        subject = f"{{{run}}}" if step != 0 and entry.stage else entry.overrides["init_from"]
        values = {field: subject if value == f"{{{RUN}}}" else value for field, value in common.items()}
        values |= {"step": step} if step and entry.stage else {}
        name = f"{run} evaluated" + (f" at {step}" if step is not None else "")
        yield name, label, seed, step, Entry("config.evaluation", evaluation.stage, evaluation.preset, values)


def _common(config: Any, stage: str) -> dict[str, Any]:
    """What the sweep's config changes for every command of a stage."""
    if not stage or stage not in config.common:
        return {}
    return differences(config.defaults[stage].to_dict(), config.common[stage].to_dict())


def flatten(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested overrides by dotted name."""
    for name, value in overrides.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict) and name not in KEYED:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value


def _check_name(name: str, source: str) -> None:
    if not name or re.search(r"[{}]", name) or name == RUN:
        raise InputError(f"{source}: {name!r} is no name; it is a text without braces, and not {RUN!r}")


def _seeded(label: str, seed: int) -> str:
    return f"{label}, seed {seed}"


def _of_seed(value: Any, labels: set[str], seed: int) -> Any:
    """A reference to a run, made one to the run of this seed."""
    return f"{{{_seeded(value[1:-1], seed)}}}" if is_reference(value) and value[1:-1] in labels else value


def is_reference(value: Any) -> bool:
    """Whether a value stands for a folder: `{NAME}`."""
    return isinstance(value, str) and re.fullmatch(r"\{[^{}]+\}", value) is not None


def references(values: Iterable[Any]) -> Iterator[str]:
    """The names in `values`, however deep in mappings."""
    for value in values:
        if isinstance(value, Mapping):
            yield from references(value.values())
        elif is_reference(value):
            yield value[1:-1]


def replace(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of mappings with its leaves changed."""
    if isinstance(value, Mapping):
        return {name: replace(below, change) for name, below in value.items()}
    return change(value)


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the name that may have been meant; empty where none is like it."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
