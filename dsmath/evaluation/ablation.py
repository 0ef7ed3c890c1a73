"""What a sweep found: rows of its runs, a table of means with standard errors, and the figure.

A row is a run with one seed at one step: `label, seed, step, workdir` and `result`, the evaluation's. An evaluation on
several benchmarks or in several modes gives a row for each, unless the metrics name them.
"""

import csv
import io
import math
import os
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.evaluation.figures import AFTER, BEFORE, INK, MUTED, STYLE, label_ends, share_limits, use_percent
from dsmath.runs.errors import InputError
from dsmath.runs.sweep import Point
from dsmath.runs.workdir import CONFIG, LINEAGE, read_json, read_result, write_atomically

# Told apart by colour-blind readers with the help of markers and line styles.
_LOOKS = (
    (BEFORE, "s", (0, (4, 2))),
    (AFTER, "o", "solid"),
    ("#22783a", "^", (0, (6, 1, 1, 1))),
    ("#8a3a8f", "D", (0, (1, 1))),
    ("#a3243b", "v", (0, (3, 1))),
    ("#00727a", "P", (0, (5, 1, 1, 1, 1, 1))),
    (MUTED, "X", (0, (2, 1))),
)
_NAMES = {
    "accuracy": "greedy accuracy",
    "pass_at": "pass@{}",
    "maj_at": "maj@{}",
    "best_of": "best of {}",
    "weighted_maj": "weighted maj@{}",
}
_AT_K = tuple(name for name, title in _NAMES.items() if "{}" in title)  # metrics of k samples
_LANGUAGES = {"en": "English", "zh": "Chinese"}
_WITH_PYTHON = "few_shot_pot"  # the mode, "+Python" in the paper's tables
RESULTS = "results.json"  # of a sweep: its rows
FIGURES = ("by_step", "at_k", "by_run")


def check_figure(figure: Mapping[str, Any], steps: Sequence[int] = ()) -> None:
    """Refuses a figure that cannot be drawn.

    Args:
      steps: of the checkpoints that are evaluated; none where each run has one figure.
      figure: `kind`, one of by_step (a metric by training step), at_k (metrics of k samples by k) and by_run (a
        metric of each run); `metrics`, a panel each; `title`; `marks`, steps at which by_step draws a line.
    """
    if figure["kind"] not in FIGURES:
        raise InputError(f"config.figure.kind: {figure['kind']!r} is none of {', '.join(FIGURES)}")
    if not figure["metrics"]:
        raise InputError("config.figure.metrics: empty; name one at least")
    if figure["kind"] == "by_step" and not steps:
        raise InputError("config.figure.kind: by_step draws config.evaluation.steps, which is empty; name checkpoints")
    if figure["kind"] == "at_k":
        for name in figure["metrics"]:
            if name not in _AT_K:
                raise InputError(f"config.figure.metrics: {name!r} has no figures by k; at_k takes {', '.join(_AT_K)}")


def collect(points: Iterable[Point], metrics: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of the points whose stage has finished.

    Args:
      points: where the figures come from.
      metrics: of the table. Where one names a benchmark with its mode, as "gsm8k-few_shot.accuracy", these are columns,
        and an evaluation is one row; else one on several benchmarks or in several modes gives a row for each.
    """
    rows = []
    whole = any(name.partition("-")[0] in BENCHMARKS for name in metrics)
    for point in points:
        result = read_result(point.workdir)
        if result is not None:
            place = {"seed": point.seed, "step": point.step, "workdir": str(point.workdir)}
            parts = {point.label: result} if whole else _parts(point.label, result)
            rows += [{"label": label, **place, "result": part} for label, part in parts.items()]
    return rows


def _parts(label: str, result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The results of an evaluation by label, which names the benchmark and the mode where there are several."""
    found = result.get("results", [])
    if len(found) < 2:
        return {label: result}
    several = [name for name in ("title", "mode") if len({one[name] for one in found}) > 1]
    return {", ".join([label, *(one[name] for name in several)]): one for one in found}


def metric(row: Mapping[str, Any], name: str) -> float:
    """A figure of a row's result by dotted name, such as "pass_at.16".

    Of an evaluation of several benchmarks, the benchmark with its mode comes first: "gsm8k-few_shot.accuracy".

    Raises:
      InputError: the result has no such number.
    """
    found: Any = row["result"] | _by_task(row["result"])
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if not isinstance(found, int | float):
        numbers = ", ".join(sorted(_numbers(row["result"] | _by_task(row["result"]))))
        raise InputError(f"config.metrics: {name!r} is no number of {row['workdir']}/result.json, which has {numbers}")
    return float(found)


def _by_task(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The records of an evaluation by benchmark and mode."""
    return {f"{record['benchmark']}-{record['mode']}": record for record in result.get("results", ())}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds and its standard error, s / sqrt(n) with the unbiased s; not a number for one seed."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def over_seeds(rows: Iterable[Mapping[str, Any]], name: str) -> dict[tuple[str, int | None], tuple[float, float, int]]:
    """Mean, standard error and number of seeds of a metric by label and step, in the rows' order."""
    values: dict[tuple[str, int | None], list[float]] = {}
    for row in rows:
        values.setdefault((row["label"], row["step"]), []).append(metric(row, name))
    return {place: (*mean_and_error(found), len(found)) for place, found in values.items()}


def make_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """Markdown: a line a run at its last step, mean ± standard error over the seeds."""
    columns = [over_seeds(_last(rows), name) for name in metrics]
    by_step = any(row["step"] is not None for row in rows)
    lines = [
        " | ".join(["| run", *(["step"] if by_step else []), "seeds", *map(_title, metrics)]) + " |",
        "| --- " * (len(metrics) + 2 + by_step) + "|",
    ]
    for (label, step), (_, _, seeds) in columns[0].items():
        cells = [_format(name, *column[label, step][:2]) for name, column in zip(metrics, columns, strict=True)]
        lines.append(" | ".join([f"| {label}", *([str(step)] if by_step else []), str(seeds), *cells]) + " |")
    return "\n".join(lines) + "\n"


def make_csv(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A line a row: label, seed, step, the metrics, the folder they are from."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "seed", "step", *metrics, "workdir"])
    for row in rows:
        step = "" if row["step"] is None else row["step"]
        writer.writerow([row["label"], row["seed"], step, *(metric(row, name) for name in metrics), row["workdir"]])
    return text.getvalue()


def read(workdir: str | os.PathLike) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows and the config of a sweep that has ended, or that has figures already.

    Raises:
      InputError: it has none; it names the file.
    """
    folder = pathlib.Path(workdir)
    return read_json(folder / RESULTS), read_json(folder / CONFIG)


def find_trained(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], pathlib.Path]:
    """The folder of the run that was evaluated by label and seed; where a run was evaluated at its start, not that."""
    found = {}
    for row in rows:
        lineage = pathlib.Path(row["workdir"]) / LINEAGE
        if row["step"] != 0 and lineage.exists():
            found[row["label"], row["seed"]] = pathlib.Path(read_json(lineage)["parents"]["init_from"]["workdir"])
    return found


def write_figure(rows: Sequence[Mapping[str, Any]], figure: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Draws the figure into `path`.png and `path`.svg."""
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white"}):
        drawing = draw_figure(rows, figure)
        for suffix, options in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
            buffer = io.BytesIO()
            drawing.savefig(buffer, format=suffix, **options)
            write_atomically(f"{os.fspath(path)}.{suffix}", buffer.getvalue())


def draw_figure(rows: Sequence[Mapping[str, Any]], figure: Mapping[str, Any]) -> Figure:
    """The figure, drawn; error bars are standard errors over the seeds. See `check_figure` for `figure`."""
    plot = {"by_step": plot_by_step, "at_k": plot_at_k, "by_run": plot_by_run}[figure["kind"]]
    panels = figure["metrics"]
    height = 1.1 + 0.42 * len({row["label"] for row in rows}) if plot is plot_by_run else 3.8
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white"}):
        drawing = Figure(figsize=(5.6 * len(panels), height), layout="constrained")
        drawing.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        grid = drawing.subplots(1, len(panels), squeeze=False, sharey=plot is plot_at_k)[0]
        for axes, name in zip(grid, panels, strict=True):
            plot(axes, rows, name)
            for step in figure["marks"]:
                axes.axvline(step, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        if plot is plot_at_k:  # both are shares of the same questions
            low, high = zip(*(axes.dataLim.intervaly for axes in grid), strict=True)
            grid[0].set_ylim(*share_limits(np.array([min(low), max(high)])))
        for axes, name in zip(grid, panels, strict=True) if plot is not plot_by_run else ():
            _label_lines(axes, name)
        if figure["title"]:
            drawing.suptitle(figure["title"], x=0.01, ha="left", fontsize=12, fontweight="bold")
        seeds = len({row["seed"] for row in rows})
        if seeds > 1:
            note = f"mean of {seeds} seeds, bars: standard error"
            drawing.supxlabel(note, x=0.01, ha="left", fontsize=8.5, color=MUTED)
    return drawing


def plot_by_step(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """A metric by training step, a line a run. Source: DeepSeekMath §5.2.2, Figures 5 and 6."""
    found = over_seeds(rows, name)
    labels = list(dict.fromkeys(label for label, _ in found))
    last = max(step for _, step in found)
    for place, label in enumerate(labels):
        steps = sorted(step for other, step in found if other == label)
        apart = 0.004 * last * (place - (len(labels) - 1) / 2)  # else the bars of a step hide each other
        _plot_line(axes, place, label, {step + apart: found[label, step][:2] for step in steps})
    axes.set(xlabel="step", ylabel=_title(name, unit=True))
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _set_limits(axes, name)


def plot_at_k(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """pass@k or maj@k against k, a line a run at its last step. Source: DeepSeekMath §5.2.2, Figure 7."""
    last = _last(rows)
    ks = sorted({int(k) for row in last for k in row["result"].get(name, {})})
    if not ks:
        raise InputError(f"config.figure.metrics: {name!r} has no figures by k in {last[0]['workdir']}/result.json")
    for place, label in enumerate(dict.fromkeys(row["label"] for row in last)):
        of_label = [row for row in last if row["label"] == label]
        _plot_line(
            axes, place, label, {k: mean_and_error([metric(row, f"{name}.{k}") for row in of_label]) for k in ks}
        )
    axes.set_xscale("log", base=2)
    axes.set(
        xticks=ks, xticklabels=[str(k) for k in ks], xlabel="k, samples a question", ylabel=_title(name, unit=True)
    )
    axes.minorticks_off()
    _set_limits(axes, name)


def plot_by_run(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """A metric of each run at its last step, with every seed as a dot."""
    last = _last(rows)
    labels = list(dict.fromkeys(row["label"] for row in last))
    for y, label in enumerate(labels):
        values = [metric(row, name) for row in last if row["label"] == label]
        mean, error = mean_and_error(values)
        axes.plot(values, [y] * len(values), "o", color=MUTED, alpha=0.5, markersize=4, linestyle="none")
        axes.errorbar([mean], [y], xerr=None if math.isnan(error) else [error], fmt="D", color=AFTER, capsize=4)
        axes.annotate(
            _format(name, mean, error), (mean, y), (0, 8), textcoords="offset points", color=AFTER, ha="center",
            fontweight="bold", fontsize=9,
        )  # fmt: skip
    axes.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.75))
    axes.set_xlabel(_title(name, unit=True))
    axes.margins(x=0.2)
    if _is_share(name):
        axes.set_xlim(left=max(axes.get_xlim()[0], -0.02))  # none is below zero
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if _is_share(name):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))


def _plot_line(axes: Axes, place: int, label: str, values: Mapping[float, tuple[float, float]]) -> None:
    colour, marker, style = _LOOKS[place % len(_LOOKS)]
    x, y = list(values), [mean for mean, _ in values.values()]
    errors = [0.0 if math.isnan(error) else error for _, error in values.values()]
    axes.errorbar(
        x, y, yerr=errors if any(errors) else None, color=colour, marker=marker, linestyle=style, markersize=5,
        linewidth=1.8, elinewidth=1.1, capsize=2.5, label=label,
    )  # fmt: skip


def _label_lines(axes: Axes, name: str) -> None:
    """Each line's name with its last value at its end; call it when the limits stand."""
    lines = [(container.get_label(), container[0]) for container in axes.containers]
    edge = max(line.get_xdata()[-1] for _, line in lines)
    ends = [
        (line.get_ydata()[-1], f"{label} {_value(name, line.get_ydata()[-1])}", line.get_color())
        for label, line in lines
    ]
    label_ends(axes, edge, ends)


def _set_limits(axes: Axes, name: str) -> None:
    if _is_share(name):
        axes.margins(y=0.0)
        axes.set_ylim(*share_limits(np.array(axes.get_ylim())))
        use_percent(axes)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _last(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each run's rows at its last step."""
    steps: dict[str, int] = {}
    for row in rows:
        steps[row["label"]] = max(steps.get(row["label"], 0), row["step"] or 0)
    return [row for row in rows if (row["step"] or 0) == steps[row["label"]]]


def _is_share(name: str) -> bool:
    return not _NAMES.keys().isdisjoint(name.split("."))


def _title(name: str, unit: bool = False) -> str:
    if not _is_share(name):
        return name.replace(".", ", ").replace("_", " ")
    parts = name.split(".")
    at = next(index for index, part in enumerate(parts) if part in _NAMES)
    places, head, k = parts[:at], parts[at], ".".join(parts[at + 1 :]) or "k"
    place = " ".join(filter(None, map(_place, places)))
    figure = _NAMES[head].format(k)
    title = figure if not place else place if head == "accuracy" else f"{place}, {figure}"
    return title + (", % of questions" if unit else "")


def _place(part: str) -> str:
    """What a part of a metric's name before the figure says: a benchmark as in the paper's tables, or a language."""
    benchmark, _, mode = part.partition("-")
    if benchmark in BENCHMARKS:
        return BENCHMARKS[benchmark].title + ("+Python" if mode == _WITH_PYTHON else "")
    return "" if part.startswith("by_") else _LANGUAGES.get(part, part)


def _value(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if _is_share(name) else f"{value:.4g}"


def _format(name: str, mean: float, error: float) -> str:
    if math.isnan(error):
        return _value(name, mean)
    return f"{100 * mean:.1f} ± {100 * error:.1f} %" if _is_share(name) else f"{mean:.4g} ± {error:.2g}"


def _numbers(result: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}"
