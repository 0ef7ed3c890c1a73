"""The plots of the notebooks: runs side by side, scores of pages, the inside of a model, errors of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from dsmath.evaluation.figures import AFTER, BEFORE, GRID, INK, MUTED
from dsmath.runs.errors import InputError

COLOURS = (BEFORE, AFTER, "#22783a", "#8a3a8f", "#a3243b", "#00727a", MUTED)
_STYLES = ("solid", (0, (5, 2)), (0, (1, 1)), (0, (6, 1, 1, 1)))
_REASONS = {"right": AFTER, "wrong": "#c98a4b", "no_answer": "#9aa0a6", "timeout": "#a3243b", "error": "#5b3a70"}
_CHARACTERS = 8  # of a token in a plot


def plot_runs(axes: Axes, runs: Mapping[str, Sequence[Mapping[str, float]]], field: str) -> None:
    """A metric of several runs by step: every record faint, a running mean strong.

    Args:
      axes: where.
      runs: records by the run's name, as `read_metrics` gives them; runs without the field are left out.
      field: of the records.
    Raises:
      InputError: no run has it.
    """
    drawn = 0
    for place, (name, records) in enumerate(runs.items()):
        found = [(record["step"], record[field]) for record in records if record.get(field) is not None]
        if not found:
            continue
        steps, values = np.array(found, float).T
        colour, style = COLOURS[place % len(COLOURS)], _STYLES[(place // len(COLOURS)) % len(_STYLES)]
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smooth(values), color=colour, linestyle=style, linewidth=1.8, label=name)
        drawn += 1
    if not drawn:
        names = sorted({name for records in runs.values() for name in (records[0] if records else ())} - {"step"})
        raise InputError(f"{field!r} is no metric of these runs; they have {', '.join(names) or 'none'}")
    axes.set(xlabel="step", ylabel=field.replace("_", " "))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.margins(x=0.01)
    if drawn > 1:
        axes.legend(frameon=False, fontsize=9)


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred mean over a twentieth of the run, shorter at its ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def plot_scores(axes: Axes, scores: Mapping[int, np.ndarray], threshold: float) -> None:
    """How P(mathematics) is spread over a crawl's pages, a line a round.

    Args:
      axes: where.
      scores: float [pages] by round.
      threshold: down to which pages are collected.
    """
    edges = np.linspace(0.0, 1.0, 41)
    for place, (number, found) in enumerate(sorted(scores.items())):
        counts, _ = np.histogram(np.clip(found, 0.0, 1.0), edges)
        axes.stairs(counts, edges, color=COLOURS[place % len(COLOURS)], linewidth=1.6, label=f"round {number}")
    axes.axvline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    axes.annotate("collected →", (threshold, 0.97), (4, 0), xycoords=("data", "axes fraction"),
                  textcoords="offset points", color=MUTED, va="top", fontsize=9)  # fmt: skip
    axes.set(xlabel="P(mathematics)", ylabel="pages", yscale="log", xlim=(0, 1))
    _write_plain(axes)
    axes.legend(frameon=False, fontsize=9)


def _write_plain(axes: Axes) -> None:
    """Numbers on a logarithmic axis without formulas, which the notebooks turn off."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def plot_histograms(axes: Axes, records: Sequence[Mapping[str, Any]], title: str, most: int = 4) -> None:
    """How a quantity is spread at some of a run's steps, as shares.

    Args:
      axes: where.
      records: of one quantity, as `read_histograms` gives them.
      title: of the plot.
      most: steps that are shown, spread over the run.
    """
    places = sorted({round(place) for place in np.linspace(0, len(records) - 1, most)}) if records else []
    filled = [np.inf, -np.inf]
    for colour, place in zip(COLOURS, places, strict=False):
        counts, edges = np.array(records[place]["counts"]), np.array(records[place]["edges"])
        axes.stairs(counts / max(counts.sum(), 1e-30), edges, color=colour, label=f"step {records[place]['step']}")
        bins = np.flatnonzero(counts)
        if bins.size:
            filled = [min(filled[0], edges[bins[0]]), max(filled[1], edges[bins[-1] + 1])]
    if filled[0] < filled[1]:
        room = 0.05 * (filled[1] - filled[0])
        axes.set_xlim(filled[0] - room, filled[1] + room)
        axes.legend(frameon=False, fontsize=9)
    axes.set(title=title, ylabel="share")


def plot_hosts(axes: Axes, hosts: Sequence[Any], most: int = 25) -> None:
    """Pages of the largest hosts, and those that were collected, the most mathematical on top.

    Args:
      axes: where.
      hosts: objects with `host`, `pages` and `collected`.
      most: how many are shown.
    """
    shown = sorted(hosts, key=lambda host: host.pages)[-most:]
    shown.sort(key=lambda host: (host.collected / max(host.pages, 1), host.pages))
    names = [host.host for host in shown]
    axes.barh(names, [host.pages for host in shown], facecolor=GRID, label="pages")
    axes.barh(names, [host.collected for host in shown], facecolor=AFTER, label="collected")
    axes.set(xlabel="pages")
    axes.margins(y=0.01)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.legend(loc="lower right", frameon=False)


def plot_norms(axes: Axes, norms: Mapping[str, np.ndarray]) -> None:
    """The size of each weight by layer; `norms` is what `inspection.weight_norms` gives."""
    for place, (name, values) in enumerate(norms.items()):
        colour, style = COLOURS[place % len(COLOURS)], _STYLES[(place // len(COLOURS)) % len(_STYLES)]
        axes.plot(np.arange(len(values)) + 1, values, "o", color=colour, linestyle=style, markersize=4, label=name)
    axes.set(xlabel="layer", ylabel="root mean square", yscale="log")
    _write_plain(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def plot_attention(axes: Axes, weights: np.ndarray, tokens: Sequence[str], title: str) -> None:
    """One head's attention, float [length, length]: a row is a place, its columns what it looks at."""
    axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
    _name_tokens(axes, tokens)
    axes.set_yticks(range(len(tokens)), [_show(token) for token in tokens], fontsize=6)
    axes.set_title(title, fontsize=9)


def plot_lens(axes: Axes, words: Sequence[Sequence[str]], probability: np.ndarray, tokens: Sequence[str]) -> None:
    """What each layer would say next, and how sure it is; see `inspection.likeliest`."""
    axes.imshow(probability, cmap="Blues", vmin=0.0, vmax=1.3, aspect="auto")
    for row, line in enumerate(words):
        for column, word in enumerate(line):
            dark = probability[row, column] > 0.75
            axes.text(column, row, _show(word), ha="center", va="center", fontsize=6, color="white" if dark else INK,
                      parse_math=False)  # fmt: skip
    _name_tokens(axes, tokens)
    axes.set_yticks(range(len(words)), ["embedding", *(f"layer {number}" for number in range(1, len(words)))])
    axes.invert_yaxis()


def _name_tokens(axes: Axes, tokens: Sequence[str]) -> None:
    axes.set_xticks(range(len(tokens)), [_show(token) for token in tokens], rotation=90, fontsize=6)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)
    axes.grid(visible=False)


def _show(token: str) -> str:
    """A token as a plot can show it: spaces seen, no control characters, not long."""
    text = "".join(
        "␣" if char == " " else "⏎" if char == "\n" else char if char.isprintable() else "·" for char in token
    )
    text = "".join(char if ord(char) < 0x2E80 else "▯" for char in text)  # the plots' font has no Chinese
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def plot_reasons(axes: Axes, evaluations: Mapping[str, Sequence[str]]) -> None:
    """Why answers were right or wrong, a bar an evaluation.

    Args:
      axes: where.
      evaluations: the verdicts' reasons by the evaluation's name.
    """
    names = list(evaluations)
    left = np.zeros(len(names))
    for reason, colour in _REASONS.items():
        shares = np.array([list(evaluations[name]).count(reason) / len(evaluations[name]) for name in names])
        if shares.any():
            axes.barh(names, shares, left=left, facecolor=colour, edgecolor="white", label=reason.replace("_", " "))
            for y, (start, share) in enumerate(zip(left, shares, strict=True)):
                if share > 0.04:
                    axes.text(start + share / 2, y, f"{100 * share:.0f}", ha="center", va="center", color="white")
        left += shares
    axes.set(xlabel="% of problems", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    axes.invert_yaxis()
    axes.legend(frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=9)


def plot_groups(axes: Axes, evaluations: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Accuracy by subject, level or language with 95 % intervals, hardest of the first evaluation on top.

    Args:
      axes: where.
      evaluations: by the evaluation's name, what `result.json` has as `by_subject`, `by_level` or `by_language`.
    """
    first = next(iter(evaluations.values()))
    groups = sorted(first, key=lambda name: first[name]["accuracy"])
    height = 0.8 / len(evaluations)
    for place, (name, found) in enumerate(evaluations.items()):
        shown = [(row, found[group]) for row, group in enumerate(groups) if group in found]
        y = [row + (place - (len(evaluations) - 1) / 2) * height for row, _ in shown]
        values = np.array([group["accuracy"] for _, group in shown])
        errors = np.abs(np.array([[group["low"], group["high"]] for _, group in shown]).T - values)
        axes.errorbar(values, y, xerr=errors, fmt="o", color=COLOURS[place % len(COLOURS)], capsize=2.5, label=name)
    labels = [f"{group}  ({first[group]['questions']:,.0f})" for group in groups]
    axes.set_yticks(range(len(groups)), labels)
    axes.set(xlabel="accuracy, %", xlim=(-0.02, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    axes.invert_yaxis()
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(evaluations))
