"""From files of instruction sets to checked solutions: each file on its own, then all together."""

import collections
import concurrent.futures
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from dsmath.data.instructions import statistics
from dsmath.data.instructions.checking import Checks, check
from dsmath.data.instructions.duplicates import find_duplicates
from dsmath.data.instructions.files import read_records
from dsmath.data.instructions.formats import Draft, Rejected, read_record
from dsmath.data.solutions import Solution, read_solutions, write_solutions
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import read_json, write_json

_BATCH = 256  # solutions that are checked together
_SOLUTIONS, _COUNTS = ".jsonl", ".json"
Counts = collections.Counter[statistics.Outcome]


def is_converted(stem: pathlib.Path) -> bool:
    """Whether `convert` has written all of a file."""
    return stem.with_suffix(_COUNTS).exists()


def convert(path: pathlib.Path, stem: pathlib.Path, checks: Checks, workers: int, label: str) -> None:
    """Writes the solutions of a file as STEM.jsonl, then their counts as STEM.json, which say that the file is done.

    Args:
      path: of the instruction set.
      stem: of what is written.
      checks: see there.
      workers: solutions that are checked at a time.
      label: of the progress.
    """
    outcomes: Counts = collections.Counter()
    golds: collections.Counter[str] = collections.Counter()
    kept: list[Solution] = []
    drafts = _read_drafts(path, outcomes)

    def look(draft: Draft) -> tuple[Solution, str] | str:
        try:
            return check(draft, checks)
        except Rejected as reason:
            return str(reason)

    with (
        concurrent.futures.ThreadPoolExecutor(workers) as threads,
        Progress(len(drafts), label, "solution") as progress,
    ):
        for start in range(0, len(drafts), _BATCH):
            batch = drafts[start : start + _BATCH]
            for draft, found in zip(batch, threads.map(look, batch), strict=True):
                if isinstance(found, str):
                    outcome = found
                else:
                    outcome = statistics.KEPT
                    kept.append(found[0])
                    golds[found[1]] += 1
                outcomes[draft.source, draft.kind, draft.language, outcome] += 1
            progress.advance(len(batch))
    write_solutions(stem.with_suffix(_SOLUTIONS), kept)
    counts = [[*outcome, count] for outcome, count in outcomes.items()]
    write_json(stem.with_suffix(_COUNTS), {"outcomes": counts, "golds": golds})


def combine(
    stems: Sequence[pathlib.Path], cluster: Callable[[Sequence[str]], Sequence[int]]
) -> tuple[list[Solution], dict[str, Any]]:
    """The solutions of all files without those that say what another says, and the statistics of all.

    Args:
      stems: of converted files.
      cluster: gives near texts the same number.
    """
    records = [record for stem in stems for record in read_solutions(stem.with_suffix(_SOLUTIONS))]
    outcomes: Counts = collections.Counter()
    golds: collections.Counter[str] = collections.Counter()
    for stem in stems:
        told = read_json(stem.with_suffix(_COUNTS))
        golds.update(told["golds"])
        outcomes.update({tuple(outcome): count for *outcome, count in told["outcomes"]})
    gone = find_duplicates(records, cluster)
    for place, reason in gone.items():
        group = (records[place].source, records[place].kind, records[place].language)
        outcomes[*group, statistics.KEPT] -= 1
        outcomes[*group, reason] += 1
    kept = [record for place, record in enumerate(records) if place not in gone]
    told = statistics.count_outcomes(outcomes)
    return kept, told | {"golds": dict(golds), "characters": statistics.describe_lengths(kept)}


def _read_drafts(path: pathlib.Path, outcomes: Counts) -> list[Draft]:
    """The drafts of a file; records that give none are counted."""
    drafts = []
    for record in read_records(path):
        try:
            if record is None:
                raise Rejected("damaged")
            drafts += read_record(record, path.stem)
        except Rejected as reason:
            outcomes[path.stem, "", "", str(reason)] += 1
    return drafts
