"""A run's samples as one page for people: questions that open to their samples, every token coloured by its advantage.

The texts of models are untrusted: they are escaped, the page's policy lets nothing run but its own script, known by its
hash, and that script makes no markup from texts. Nothing is fetched.
"""

import base64
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import pyarrow
import pyarrow.compute
from markupsafe import Markup

from dsmath.rl import curves, samples
from dsmath.rl.legend import find_entry
from dsmath.runs.metrics import read_histograms, read_metrics
from dsmath.runs.workdir import write_atomically

PAGE = "samples.html"
_FOLDER = pathlib.Path(__file__).parent
_CURVES = (  # field of the metrics, title
    ("reward", "reward"),
    ("accuracy", "accuracy"),
    ("kl", "KL to the reference"),
    ("entropy", "entropy"),
    ("length", "length, tokens"),
    ("truncated", "truncated samples"),
    ("zero_variance_groups", "groups with equal rewards"),
    ("clip_fraction", "clipped tokens"),
    ("pair_accuracy", "accuracy of pairs"),
    ("explained_variance", "explained variance"),
)
_BY_TOKEN = ("advantages", "coefficients", "logprobs", "ref_logprobs")
# What a browser would drop or change is shown as the picture of itself: a text must keep its number of characters.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


def write_page(workdir: str | os.PathLike, most_tokens: int) -> pathlib.Path:
    """Writes `samples.html` anew from `samples/` and `metrics.jsonl`, atomically.

    Args:
      workdir: of the run.
      most_tokens: of the samples that are shown: whole groups of the newest steps, one group at least.
    Returns:
      the page's path.
    """
    questions, left_out = _pick(workdir, most_tokens)
    data = [sample.pop("data") for question in questions for sample in question["samples"]]
    records = read_metrics(workdir)
    last = {name: value for record in records for name, value in record.items() if isinstance(value, int | float)}
    style, script = (_FOLDER.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    page = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            run=pathlib.Path(workdir).resolve().name,
            questions=questions,
            left_out=left_out,
            data=Markup(_to_json(data)),
            curves=[
                (title, last[name], find_entry(name), _draw(records, name)) for name, title in _CURVES if name in last
            ],
            figures=[(name, value, find_entry(name)) for name, value in last.items() if name != "step"],
            spread=_spread(workdir),
            last_step=last.get("step"),
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )
    path = pathlib.Path(workdir) / PAGE
    write_atomically(path, page)
    return path


def _pick(workdir: str | os.PathLike, most_tokens: int) -> tuple[list[dict[str, Any]], int]:
    """The questions to show, newest step first, and how many others of these steps are not shown."""
    questions, left_out, room = [], 0, most_tokens
    for step in reversed(samples.steps(workdir)):
        table = samples.read(workdir, [step])
        starts = np.flatnonzero(table["sample"].to_numpy() == 0)
        tokens = pyarrow.compute.list_value_length(table["pieces"]).to_numpy()
        ends = [*starts[1:], len(tokens)]
        fits = np.cumsum(np.add.reduceat(tokens, starts)) <= room if len(starts) else np.zeros(0, bool)
        count = int(fits.sum()) or (0 if questions else min(1, len(starts)))
        if not count:
            break
        shown = table.slice(0, ends[count - 1])
        rows = _rows(shown)
        questions += [_question(rows[start:end]) for start, end in zip(starts[:count], ends, strict=False)]
        room -= int(tokens[: len(shown)].sum())
        if count < len(starts):
            left_out = len(starts) - count
            break
    return questions, left_out


def _rows(table: pyarrow.Table) -> list[dict[str, Any]]:
    """The rows of a table, lists as NumPy arrays: as Python's own they take most of a page's time."""
    names = [field.name for field in table.schema if pyarrow.types.is_list(field.type)]
    rows = table.drop_columns(names).to_pylist(maps_as_pydicts="strict")
    for name in names:
        column = table[name].combine_chunks()
        values, offsets = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
        for row, start, end, known in zip(rows, offsets, offsets[1:], column.is_valid().to_pylist(), strict=False):
            row[name] = values[start:end] if known else None
    return rows


def _question(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A group: its question, its figures, its samples from the highest reward down."""
    rewards = [row["reward"] for row in rows]
    judged = [row["correct"] for row in rows if row["correct"] is not None]
    return {
        **{name: rows[0][name] for name in ("step", "request")},
        **{name: rows[0][name].translate(_CONTROLS) for name in ("question", "gold", "prompt")},
        "reward": float(np.mean(rewards)),
        "group": len(rows),
        "solved": sum(judged) if judged else None,
        "idle": not any(row["advantages"].any() for row in rows),
        "truncated": sum(row["finish_reason"] == "length" for row in rows),
        "length": float(np.mean([len(row["pieces"]) for row in rows])),
        "samples": [_sample(row) for row in sorted(rows, key=lambda row: -row["reward"])],
    }


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    pieces = [piece.translate(_CONTROLS) for piece in row["pieces"]]
    chosen = row["advantages"][row["mask"] > 0]
    data = {name: _numbers(row[name]) for name in _BY_TOKEN if row[name] is not None}
    if row["step_ends"] is not None and row["step_ends"].size:
        data |= {"step_ends": row["step_ends"].tolist(), "step_rewards": _numbers(row["step_rewards"], fold=False)}
    if len(chosen) < len(pieces):
        data["tool"] = np.flatnonzero(row["mask"] == 0).tolist()
    return {
        **{name: row[name] for name in ("sample", "reward", "rewards", "finish_reason", "correct")},
        "answer": None if row["answer"] is None else row["answer"].translate(_CONTROLS),
        "text": "".join(pieces),
        "length": len(pieces),
        "advantage": float(chosen.mean()) if chosen.size else None,
        "varies": bool(chosen.size and chosen.max() > chosen.min()),
        # The script cuts the text by these, in the UTF-16 units that a browser counts.
        "data": {"pieces": [len(piece.encode("utf-16-le")) // 2 for piece in pieces], **data},
    }


def _numbers(values: np.ndarray, fold: bool = True) -> list[float | None] | float | None:
    """Numbers with three decimals; of tokens that all have the same one it stands alone."""
    rounded = np.round(values.astype(float), 3)
    if fold and rounded.size and (rounded == rounded[0]).all():
        rounded = rounded[0]
    if np.isfinite(rounded).all():
        return rounded.tolist()
    return np.where(np.isfinite(rounded), rounded, None).tolist()


def _draw(records: Sequence[dict[str, Any]], name: str) -> Markup:
    return curves.draw([record["step"] for record in records], [record.get(name) for record in records])


def _spread(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """How the gradient coefficients of the last step are spread."""
    found = [record for record in read_histograms(workdir) if record["name"] == "gradient_coefficient"]
    return (
        {"step": found[-1]["step"], "bars": curves.draw_bars(found[-1]["counts"], found[-1]["edges"])}
        if found
        else None
    )


def _to_json(value: Any) -> str:
    """JSON that may stand in a page."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _hash(content: str) -> str:
    """A script or style as the page's policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _number(value: float | None) -> str:
    return "–" if value is None else curves.short(value)


def _signed(value: float | None) -> str:
    return ("+" if value and value > 0 else "") + _number(value)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "signed": _signed}
    return environment
