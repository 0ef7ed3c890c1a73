"""Two runs on the same problems: who wins where, by how much, and whether that may be chance."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
from absl import logging

from dsmath.evaluation import metrics
from dsmath.evaluation.protocols import PROTOCOL
from dsmath.evaluation.results import find_home, table_file
from dsmath.evaluation.table import align, percent
from dsmath.reward.generations import read_table
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import RESULT, read_json

_SAME = ("question", "gold", "prompt_hash")


def compare(first: str | os.PathLike, second: str | os.PathLike) -> list[dict[str, Any]]:
    """Compares two finished evaluations, problem by problem.

    Args:
      first, second: their workdirs, or later gradings of them, WORKDIR/rescored/NUMBER.
    Returns:
      for each benchmark, mode and kind ("greedy", "samples": the share of right samples of a problem) that both have:
      both accuracies, the second's less the first's with its 95 % interval (bootstrap of the differences, so paired),
      the p-value of the sign test (McNemar's exact test where each problem is right or wrong), and the ids of the
      problems that each wins.
    Raises:
      InputError: an evaluation that has not finished, nothing in common, other problems or prompts, or other protocols.
    """
    folders = [pathlib.Path(first), pathlib.Path(second)]
    results = [read_json(folder / RESULT) for folder in folders]
    _check_same(folders, results)
    names = [{_name(result) for result in whole.get("results", ())} for whole in results]
    common = [_name(result) for result in results[0].get("results", ()) if _name(result) in names[1]]
    if not common:
        raise InputError(f"{folders[0]} and {folders[1]} have no benchmark and mode in common")
    found = []
    for benchmark, mode in common:
        for kind in ("greedy", "samples"):
            paths = [table_file(folder, benchmark, mode, kind) for folder in folders]
            if all(path.exists() for path in paths):
                found.append({"benchmark": benchmark, "mode": mode, "kind": kind, **_compare(*paths)})
    return found


def _check_same(folders: Sequence[pathlib.Path], results: Sequence[Mapping[str, Any]]) -> None:
    """Refuses runs whose answers were not made, or not judged, in the same way."""
    graders, protocols = [], []
    for folder, result in zip(folders, results, strict=True):
        graders.append("paper" if result.get("grader") == "paper" else "strict")  # of "both" the strict one counts
        record = find_home(folder) / PROTOCOL
        protocols.append(read_json(record) if record.exists() else None)
    if None in protocols:
        logging.warning(
            "a protocol is not known, as where another program sampled: see that both were asked in one way"
        )
        protocols = [{}, {}]
    first, second = ({"grader": grader, **protocol} for grader, protocol in zip(graders, protocols, strict=True))
    for field, value in first.items():
        if value != second.get(field) and field != "name":
            raise InputError(
                f"{folders[1]}: its {field} is {second.get(field)!r}, and {value!r} that of {folders[0]}; "
                "compare runs of one protocol"
            )


def _name(result: Mapping[str, Any]) -> tuple[str, str]:
    return result["benchmark"], result["mode"]


def _compare(first: pathlib.Path, second: pathlib.Path) -> dict[str, Any]:
    a, b = _read(first), _read(second)
    if a.keys() != b.keys():
        odd = min(a.keys() ^ b.keys())
        raise InputError(f"{second}: not the problems of {first}, such as {odd!r}; compare runs on the same ones")
    for name in a:
        for field, here, there in zip(_SAME, a[name][1], b[name][1], strict=True):
            if here != there and "" not in (here, there):  # a prompt of another program is not known
                raise InputError(f"{second}: the {field} of problem {name!r} is another in {first}")
    differences = {name: b[name][0] - a[name][0] for name in a}
    values = np.array(list(differences.values()))
    low, high = metrics.bootstrap_interval(values)
    return {
        "questions": len(values),
        "first": float(np.mean([share for share, _ in a.values()])),
        "second": float(np.mean([share for share, _ in b.values()])),
        "difference": float(values.mean()),
        "low": low,
        "high": high,
        "p": metrics.sign_test(values),
        "first_wins": [name for name, difference in differences.items() if difference < 0],
        "second_wins": [name for name, difference in differences.items() if difference > 0],
    }


def _read(path: pathlib.Path) -> dict[str, tuple[float, tuple[str, ...]]]:
    """By problem: the share of its right samples, and what it is."""
    table = read_table(path, ["id", *_SAME, "correct"])
    table = table.set_column(table.column_names.index("correct"), "correct", table["correct"].cast(pyarrow.float64()))
    means = table.group_by(["id", *_SAME], use_threads=False).aggregate([("correct", "mean")])
    return {row["id"]: (row["correct_mean"], tuple(row[name] for name in _SAME)) for row in means.to_pylist()}


def draw_comparison(found: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as a table of text, in per cent."""
    head = ("benchmark", "mode", "of", "problems", "first", "second", "difference", "95 %")
    rows = [(*head, "first wins", "second wins", "p")]
    for row in found:
        rows.append(
            (
                *(row["benchmark"], row["mode"], row["kind"], str(row["questions"])),
                *(percent(row["first"]), percent(row["second"]), percent(row["difference"], "+")),
                f"{percent(row['low'], '+')} to {percent(row['high'], '+')}",
                *(str(len(row["first_wins"])), str(len(row["second_wins"])), f"{row['p']:.2g}"),
            )
        )
    return align(rows)
