"""Marks between two rounds: from a file, from people, from the scores, or none."""

import pathlib
import shlex
import sys

from dsmath.runs.errors import InputError, Paused
from dsmath.runs.workdir import write_json
from dsmath.web.annotate.offers import WAITS, Offers
from dsmath.web.annotate.tree import DomainTree
from dsmath.web.paths import MarkedPaths, parse_pattern, read_marked_paths

MODES = ("none", "file", "auto", "people")
MARKED_PATHS = "marked_paths.json"


def check(mode: str, marked_paths: str) -> None:
    """Says at the start of a run what would fail after its first round.

    Raises:
      InputError: an unknown mode, or a file that is absent or malformed.
    """
    if mode not in MODES:
        raise InputError(f"config.annotation={mode!r} is none of {', '.join(MODES)}")
    if mode == "file":
        read_marked_paths(marked_paths)


def find_marks(
    workdir: pathlib.Path, round_number: int, mode: str, *, marked_paths: str, min_score: float, min_pages: int
) -> MarkedPaths:
    """The marks after a round; they are kept, so that a resumed run goes on with the same.

    Args:
      mode: "none"; "file", those of `marked_paths`; "auto", those of `suggest_paths`; "people", those that the page of
        `experiments.annotate` exports.
      marked_paths: file of patterns, for "file".
      min_score, min_pages: for "auto".
    Raises:
      Paused: people have not exported their marks yet.
      InputError: a malformed file.
    Source: DeepSeekMath §2.1; all but "people" is ours.
    """
    kept = workdir / "marks" / f"round-{round_number}.json"
    if not kept.exists():
        patterns: list[str] = []
        if mode == "file":
            patterns = read_marked_paths(marked_paths).patterns
        elif mode == "auto":
            patterns = suggest_paths(workdir, round_number, min_score=min_score, min_pages=min_pages)
        elif mode == "people":
            patterns = _read_exported(workdir, round_number)
        write_json(kept, patterns)
    marked = read_marked_paths(kept)
    write_json(workdir / MARKED_PATHS, marked.patterns)
    return marked


def suggest_paths(workdir: pathlib.Path, round_number: int, *, min_score: float, min_pages: int) -> list[str]:
    """The broadest paths of the offered domains whose missed pages look like mathematics, as patterns.

    Args:
      min_score: least mean score of a path's missed pages.
      min_pages: fewest of them.
    """
    offers = Offers(workdir, round_number)
    trees = (DomainTree(offers.read_pages(domain)) for domain in offers.domains)
    found = (node.address for tree in trees for node in tree.suggest(min_score=min_score, min_pages=min_pages))
    return sorted(filter(_is_pattern, found))


def _is_pattern(address: str) -> bool:
    """Whether an address of the crawl, which may be hostile, says the same as a pattern."""
    try:
        return not parse_pattern(address).excludes
    except ValueError:
        return False


def _read_exported(workdir: pathlib.Path, round_number: int) -> list[str]:
    exported = workdir / f"marked_paths-{round_number}.json"
    if exported.exists():
        return read_marked_paths(exported).patterns
    command = shlex.join(["python", "-m", "experiments.mine", *sys.argv[1:]])
    write_json(workdir / WAITS, {"round": round_number, "command": command})
    raise Paused(
        f"round {round_number} waits for marks. Open the page, mark, export:\n"
        f"    python -m experiments.annotate --workdir={shlex.quote(str(workdir))}\n"
        f"then go on by the line that began this run:\n    {command}\n"
        "or go on without people, by the same line with --config.annotation=none, file or auto"
    )
