"""Pages of samples and verdicts: what models were asked, what they answered, and what was made of it."""

import re
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from dsmath.view.files import Broken, Folder
from dsmath.view.runs import Run

PAGE = 20  # rows at a time
MOST_CHARACTERS = 12_000  # of one text
WHICH = ("all", "right", "wrong")
_PLACES = {"samples": re.compile(r"[\w.-]+\.parquet"), "verdicts": re.compile(r"[\w.-]+\.parquet")}
_TOP = ("greedy.parquet", "samples.parquet")
_MOST_FILES, _MOST_COLUMNS = 5_000, 60
_MOST_BYTES = 2**29  # of a row group's shown columns, in memory
_TEXTS = ("question", "completion", "gold", "answer")  # what is shown large; the rest are facts
_HIDDEN = {"prompt", "prompt_hash", "request", "question_index"}


def list_files(folder: Folder, run: Run) -> list[str]:
    """The files of samples and verdicts of a run, the newest step first; names below the run's folder."""
    found = []
    for place, pattern in _PLACES.items():
        path = folder.path / run.path(place)
        if path.is_dir() and not path.is_symlink():
            names = sorted(entry.name for entry in path.iterdir() if pattern.fullmatch(entry.name))
            if place == "samples":  # named by steps
                names.reverse()
            found += [f"{place}/{name}" for name in names[:_MOST_FILES]]
    return found + [name for name in _TOP if (folder.path / run.path(name)).is_file()]


def read_page(folder: Folder, run: Run, name: str, *, which: str, offset: int) -> dict[str, Any]:
    """Some rows of one file.

    Args:
      folder: the root.
      run: whose file it is.
      name: of the file, as `list_files` gives it.
      which: "all", or the "right" or "wrong" ones, by the column `correct`.
      offset: rows of these to skip.
    Returns:
      rows (texts by name, facts by name), number: of the rows that were asked for, of: of all.
    Raises:
      LookupError: no such file.
      Broken: it is no Parquet file that can be shown.
    """
    if name not in list_files(folder, run):
        raise LookupError(f"no samples {name!r} in {run.name}")
    with folder.open(run.path(name)) as file:
        try:
            parquet = pyarrow.parquet.ParquetFile(file)
            places = _find(parquet, which)
            shown = places[offset : offset + PAGE]
            rows = [_show(row) for row in _take(parquet, shown)]
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            first = (str(error).strip().splitlines() or ["no reason"])[0]
            raise Broken(f"{run.path(name)}: cannot be read as Parquet ({first[:300]})") from error
    return {"rows": rows, "number": len(places), "of": parquet.metadata.num_rows}


def _find(parquet: pyarrow.parquet.ParquetFile, which: str) -> np.ndarray:
    """int64 [rows]: the places of the rows that are asked for."""
    if which == "all" or "correct" not in parquet.schema_arrow.names:
        return np.arange(parquet.metadata.num_rows)
    _check_size(parquet, range(parquet.num_row_groups), ["correct"])
    correct = parquet.read(columns=["correct"]).column(0).to_pylist()
    return np.array([place for place, value in enumerate(correct) if value is (which == "right")], dtype=np.int64)


def _take(parquet: pyarrow.parquet.ParquetFile, places: np.ndarray) -> list[dict[str, Any]]:
    columns = [field.name for field in parquet.schema_arrow if _is_shown(field)][:_MOST_COLUMNS]
    rows, first = [], 0
    for group in range(parquet.num_row_groups):
        number = parquet.metadata.row_group(group).num_rows
        here = places[(places >= first) & (places < first + number)] - first
        if len(here):
            _check_size(parquet, [group], columns)
            rows += parquet.read_row_group(group, columns=columns).take(here).to_pylist()
        first += number
    return rows


def _check_size(parquet: pyarrow.parquet.ParquetFile, groups: Any, columns: list[str]) -> None:
    size = 0
    for group in map(parquet.metadata.row_group, groups):
        parts = map(group.column, range(group.num_columns))
        size += sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
    if size > _MOST_BYTES:
        raise ValueError(f"{size >> 20} MiB of its rows would have to be read at once")


def _is_shown(field: pyarrow.Field) -> bool:
    """Numbers by token are left to the run's own page of samples."""
    types = pyarrow.types
    simple = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return field.name not in _HIDDEN and any(test(field.type) for test in simple)


def _show(row: dict[str, Any]) -> dict[str, Any]:
    texts = {name: _cut(str(row[name])) for name in _TEXTS if row.get(name) is not None}
    facts = {name: _fact(value) for name, value in row.items() if name not in _TEXTS and value is not None}
    return {"texts": texts, "facts": {name: value for name, value in facts.items() if value != ""}}


def _fact(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4g}"
    return _cut(value) if isinstance(value, str) else value


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} … ({len(text):,} characters)"
