"""A mixture of solutions from several places, each so often in an epoch as is wanted."""

import os
import pathlib
import random
from collections.abc import Mapping

from dsmath.data import problems
from dsmath.data.solutions import SOLUTIONS, Solution, read_solutions
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import LINEAGE, require_finished


def load(solutions: Mapping[str, str], repeats: Mapping[str, float], seed: int) -> list[Solution]:
    """The solutions of an epoch, place after place.

    Args:
      solutions: by name a file of solutions, a workdir that made one, or problems with files, as `problems.load` takes
        them.
      repeats: by name how often its solutions come; 1 where none is given; of a fraction a random choice comes once
        more.
      seed: of that choice.
    Raises:
      InputError: an unknown name, a number that is not positive, or a place that holds no solutions.
    """
    for name, number in repeats.items():
        if name not in solutions:
            raise InputError(f"config.repeats: {name!r} is no name of config.solutions ({', '.join(solutions)})")
        if number <= 0:
            raise InputError(f"config.repeats.{name}: {number} must be positive; leave it out of config.solutions")
    mixed = []
    for name, path in solutions.items():
        records = _read(name, path, seed)
        if not records:
            raise InputError(f"config.solutions.{name}={path!r}: holds no solution")
        whole, rest = divmod(repeats.get(name, 1), 1)
        chosen = random.Random(f"{name}/{seed}").sample(records, round(rest * len(records)))
        mixed += records * int(whole) + chosen
    return mixed


def files(solutions: Mapping[str, str]) -> list[pathlib.Path]:
    """The files behind `load`, for the lineage."""
    found = []
    for path in solutions.values():
        file = _file(path)
        found += [file] if file.is_file() else problems.files(path, "train")
    return found


def _read(name: str, path: str, seed: int) -> list[Solution]:
    if (pathlib.Path(path) / LINEAGE).exists():
        require_finished(path, f"config.solutions.{name}")
    if path in problems.GENERATED:
        raise InputError(f"config.solutions.{name}={path!r}: the generator has no end; write its solutions to a file")
    if _file(path).is_file():
        return read_solutions(_file(path))
    return problems.load(path, "train", count=0, seed=seed)


def _file(path: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(path) / SOLUTIONS if pathlib.Path(path).is_dir() else pathlib.Path(path)
