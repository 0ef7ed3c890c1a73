"""An evaluation's report: one page for people, and its tables as JSON, CSV and LaTeX for papers and programs.

Everything is read from the evaluation's folder; no model is loaded. The texts of models are untrusted: they stand in
the page as data, its policy lets nothing run but its own script, known by its hash, and that script makes no markup
from texts. Nothing is fetched.
"""

import base64
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.evaluation import page_figures, tables
from dsmath.evaluation.page_samples import REASONS, pick_samples
from dsmath.evaluation.protocols import PROTOCOL
from dsmath.evaluation.results import MODES, Group, Result, find_home, read_results
from dsmath.runs.workdir import CONFIG, LINEAGE, RESULT, fingerprint, read_json, write_atomically

PAGE, TABLES = "report.html", "tables"
MOST_CHARACTERS = 1_500_000  # of the texts in a page: it opens at once, and its formulas are set in under a minute
_FOLDER = pathlib.Path(__file__).parent
_DEEPEST = 12  # parents of parents of a checkpoint that are followed


def write(
    workdir: str | os.PathLike, result: Mapping[str, Any] | None = None, most_characters: int = MOST_CHARACTERS
) -> pathlib.Path:
    """Writes `report.html`, `tables.json`, `tables.csv` and `tables.tex` of an evaluation anew, each atomically.

    Args:
      workdir: of the evaluation: its `verdicts/`, and its config and lineage where they are there.
      result: what its `result.json` will hold; None: what it holds.
      most_characters: of the texts of questions and solutions that the page holds; the others are in `verdicts/` alone.
    Returns:
      the page's path.
    Raises:
      InputError: `result.json` is absent or damaged, or a file of verdicts is damaged.
    """
    workdir = pathlib.Path(workdir)
    whole = read_json(workdir / RESULT) if result is None else result
    results = read_results(whole, workdir / RESULT)
    order = {name: place for place, name in enumerate(BENCHMARKS)}
    results.sort(key=lambda result: order.get(result.benchmark, len(order)))  # stable: modes as they were asked for
    home = find_home(workdir)
    config = read_json(home / CONFIG) if (home / CONFIG).exists() else {}
    lineage = trace(home)
    model = _name_model(home, lineage)
    samples, questions = pick_samples(workdir, results, most_characters)
    paper_tables = tables.make_paper_tables(results)
    style, script = (_FOLDER.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    page = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            run=workdir.resolve().name if home == workdir else f"{home.name}, {workdir.parent.name} {workdir.name}",
            home=home.resolve().name,
            model=model,
            results=results,
            paper_tables=paper_tables,
            curves=[(result, _draw_at_k(result)) for result in results if result.samples > 1 and result.pass_at],
            bars=[(result, _bars(result)) for result in results if result.by_level or result.by_subject],
            samples=samples["questions"],
            questions=questions,
            protocol=whole.get("protocol"),
            asked=read_json(home / PROTOCOL) if (home / PROTOCOL).exists() else None,
            published=config.get("published"),
            config=config,
            lineage=lineage,
            data=Markup(_to_json(samples | {"titles": _titles(results), "modes": MODES, "reasons": REASONS})),
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )
    about = {"run": workdir.resolve().name, "model": model, "protocol": whole.get("protocol")}
    about |= {"published": config.get("published")}
    write_atomically(workdir / f"{TABLES}.json", tables.to_json(results, about))
    write_atomically(workdir / f"{TABLES}.csv", tables.to_csv(results))
    write_atomically(workdir / f"{TABLES}.tex", tables.to_latex(paper_tables, results, model))
    write_atomically(workdir / PAGE, page)
    return workdir / PAGE


def trace(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """What an evaluation was made from, and what that was made from, as far as the folders are still here.

    Returns:
      A record for each parent, nearest first: depth, role, name, step, fingerprint of its lineage and whether it still
      has that ("unchanged", "has changed since", "not here"), code (the version that made it) and data.
    """
    found: list[dict[str, Any]] = []

    def follow(folder: pathlib.Path, depth: int) -> None:
        lineage = read_json(folder / LINEAGE)
        for role, parent in lineage["parents"].items():
            there = pathlib.Path(parent["workdir"])
            record = there / LINEAGE
            state = "not here"
            if record.is_file():
                state = "unchanged" if fingerprint(record) == parent["lineage"] else "has changed since"
            found.append(
                {
                    "depth": depth,
                    "role": role,
                    "name": "/".join(there.parts[-2:]),
                    "step": parent.get("step"),
                    "fingerprint": parent["lineage"],
                    "state": state,
                    "code": read_json(record)["code"] if record.is_file() else None,
                }
            )
            if record.is_file() and depth < _DEEPEST:
                follow(there, depth + 1)

    if (workdir / LINEAGE).exists():
        follow(workdir, 0)
    return found


def _name_model(workdir: pathlib.Path, lineage: list[dict[str, Any]]) -> str:
    for parent in lineage:
        if parent["role"] == "init_from":
            return f"{parent['name']}, step {parent['step']}" if parent["step"] else parent["name"]
    return workdir.resolve().name


def _titles(results: list[Result]) -> dict[str, str]:
    return {result.benchmark: result.title for result in results}


def _draw_at_k(result: Result) -> Markup:
    title = f"{result.title}, {MODES.get(result.mode, result.mode)}, {result.samples} samples a problem"
    return page_figures.draw_at_k(result, title)


def _bars(result: Result) -> list[tuple[str, list[tuple[str, Group, Markup]]]]:
    """("level" or "subject", its groups), a group being (name, figures, bar)."""
    drawn = []
    for kind, groups in (("level", result.by_level), ("subject", result.by_subject)):
        rows = []
        for name, group in sorted(groups.items(), key=_in_order) if kind == "level" else groups.items():
            rows.append((name, group, page_figures.draw_bar(group.accuracy, group.low, group.high)))
        if len(rows) > 1:
            drawn.append((kind, rows))
    return drawn


def _in_order(group: tuple[str, Any]) -> tuple[int, str]:
    """Levels as people count them: 10 after 9."""
    digits = "".join(character for character in group[0] if character.isdecimal())
    return int(digits or 0), group[0]


def _to_json(value: Any) -> str:
    """JSON that may stand in a page."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _hash(content: str) -> str:
    """A script or style as the page's policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _percent(share: float | None) -> str:
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "signed": _signed,
        "count": lambda number: f"{number:,}",
        "mode": lambda mode: MODES.get(mode, mode),
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    return environment
