"""The figures of a chain's report: plots on matplotlib axes, as inline SVG or as one PNG.

Two hues that colour-blind readers tell apart, one for before and one for after reinforcement learning, are told
apart by line style and marker too. In SVG every colour is a CSS variable, so that the page's dark mode reaches it.
"""

import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import PIL.Image
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from dsmath.evaluation.metrics import accuracy_interval

INK, MUTED, GRID, PAPER = "#1c1e21", "#5d636b", "#d9dce0", "#fdfdfe"
BEFORE, AFTER = "#b65400", "#0a62a9"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", BEFORE: "--before", AFTER: "--after"}
_LOOKS = {  # colour, marker, line style
    "before": (BEFORE, "s", (0, (4, 2))),
    "after": (AFTER, "o", "solid"),
    "neutral": (MUTED, "o", "solid"),
}
_TUNED = {"sft": ("SFT", "before"), "rl": ("RL", "after")}
_LANGUAGES = {"en": "English", "zh": "Chinese"}
_CURVES = (  # stage, field of its metrics, title, unit, how it is drawn
    ("pretrain", "loss", "pretraining loss", "loss, nats a token", "mean"),
    ("pretrain", "learning_rate", "pretraining learning rate", "learning rate", "exact"),
    ("sft", "loss", "SFT loss", "loss, nats a solution token", "mean"),
    ("sft", "learning_rate", "SFT learning rate", "learning rate", "exact"),
    ("rl", "reward", "mean reward", "mean reward of the samples", "mean"),
    ("rl", "kl", "KL to the reference", "KL (k3), nats a token", "mean"),
    ("rl", "entropy", "entropy", "entropy, nats a token", "mean"),
    ("rl", "length", "length of solutions", "mean length, tokens", "mean"),
    ("rl", "truncated", "truncated solutions", "truncated, % of samples", "share"),
    ("rl", "zero_variance_groups", "groups with equal rewards", "% of groups", "share"),
    ("rl", "clip_fraction", "clipped tokens", "clipped, % of tokens", "share"),
)
_LABEL_GAP = 12.0  # points between two labels at line ends
STYLE = {
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 10.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 2.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "dsmath",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
}


def draw_report(chain: Any) -> dict[str, Markup]:
    """The SVG elements of a report by name; a figure without numbers is left out.

    Args:
      chain: a `report.Chain`.
    """
    drawn: dict[str, Markup] = {}
    if chain.mine and chain.mine.rounds:
        drawn["rounds"] = _to_svg("rounds", "Pages collected by round of mining", plot_rounds, chain.mine.rounds)
    for stage, field, title, unit, drawing in _CURVES:
        records = chain.training[stage].records if stage in chain.training else []
        if records and field in records[0] and not (field == "clip_fraction" and not _ever(records, field)):
            look = "before" if stage == "sft" else "after" if stage == "rl" else "neutral"
            curve = ("", look, *_curve(records, field))
            drawn[f"{stage}_{field}"] = _to_svg(
                f"{stage}-{field}", title, plot_curves, [curve], unit=unit, drawing=drawing
            )
    results = {stage: found.result for stage, found in chain.evaluations.items()}
    if results:
        for name, lines, options in _at_k(results):
            drawn[f"{name}_at"] = _to_svg(f"{name}-at", f"{name}@k against k", plot_at_k, lines, **options)
        groups = _accuracy_groups(results)
        height = 0.9 + 0.36 * sum(len(bars) + 0.6 for _, bars in groups)
        title = "Greedy accuracy with 95 % intervals"
        drawn["accuracy"] = _to_svg("accuracy", title, plot_accuracy, groups, height=height)
    right = [(*_TUNED[stage], found.right) for stage, found in chain.evaluations.items() if found.right is not None]
    if right:
        samples = max(result.samples for result in results.values())
        title = "Right samples of each question"
        drawn["right"] = _to_svg("right", title, plot_right_samples, right, samples=samples)
    return drawn


def draw_story(chain: Any) -> bytes:
    """A chain's story as one PNG of up to six panels: rounds, losses, reward, KL if there is one, maj@k, pass@k.

    Args:
      chain: a `report.Chain`.
    """
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    if chain.mine and chain.mine.rounds:
        panels.append(("Mining: pages by round", partial(plot_rounds, rounds=chain.mine.rounds)))
    records = {stage: training.records for stage, training in chain.training.items() if training.records}
    names = {"pretrain": ("pretraining", "neutral"), "sft": _TUNED["sft"]}
    losses = [(*names[stage], *_curve(records[stage], "loss")) for stage in names if stage in records]
    if losses:
        panels.append(("Training: loss", partial(plot_curves, curves=losses, unit="loss, nats a token")))
    for stage, field, title, unit, drawing in _CURVES:
        if field in ("reward", "kl") and field in records.get(stage, [{}])[0]:
            curve = ("", "after", *_curve(records[stage], field))
            panels.append((f"GRPO: {title}", partial(plot_curves, curves=[curve], unit=unit, drawing=drawing)))
    for name, lines, options in _at_k({stage: found.result for stage, found in chain.evaluations.items()}):
        panels.append((f"Held-out problems: {name}@k", partial(plot_at_k, lines=lines, **options)))
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white"}):
        figure = Figure(figsize=(4.0 * columns, 3.0 * rows), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (title, plot) in itertools.zip_longest(grid, panels, fillvalue=("", None)):
            if plot is None:
                axes.remove()
                continue
            plot(axes)
            axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    small = io.BytesIO()
    PIL.Image.open(buffer).convert("RGB").quantize(48).save(small, format="png", optimize=True)  # few colours, a third
    return small.getvalue()


def _to_svg(
    name: str, title: str, plot: Callable[..., None], *args: Any, height: float = 3.0, **options: Any
) -> Markup:
    """Draws one plot as an SVG element; `name` prefixes its ids, a screen reader says `title`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.0, height), layout="constrained")
        plot(figure.subplots(), *args, **options)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    opening, body = svg[svg.index("<svg") :].split(">", maxsplit=1)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.S)  # would style the whole page
    body = re.sub(r' id="(?:figure|axes|patch|text|line2d|matplotlib|[xy]tick|\w+Collection|legend)[^"]*"', "", body)
    body = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    body = re.sub(r' font-family: [^;"]+;?', "", body)  # the page's own
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    view_box = re.search(r'viewBox="[^"]+"', opening)[0]
    return Markup(f'<svg {view_box} role="img" aria-label="{escape(title)}">{body}')


def _curve(records: Sequence[dict[str, float]], field: str) -> tuple[list[float], list[float]]:
    return [record["step"] for record in records], [record.get(field, math.nan) for record in records]


def _ever(records: Sequence[dict[str, float]], field: str) -> bool:
    return any(record.get(field) for record in records)


def _at_k(results: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str, Any]], dict[str, Any]]]:
    """("maj" or "pass", lines, options) for `plot_at_k`."""
    lines = {
        name: [(*_TUNED[stage], getattr(result, f"{name}_at")) for stage, result in results.items()]
        for name in ("maj", "pass")
    }
    limits = share_limits(np.array([share for line in itertools.chain(*lines.values()) for share in line[2].values()]))
    for name in lines if results else ():
        yield name, lines[name], {"metric": f"{name}@k", "limits": limits}


def _accuracy_groups(results: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, float, float, float]]]]:
    """The bars of `plot_accuracy`: all questions first, then each language, whose interval is Wilson's."""
    first = next(iter(results.values()))
    bars = [(*_TUNED[stage], it.accuracy, it.accuracy_low, it.accuracy_high) for stage, it in results.items()]
    groups = [(f"all\n{first.questions:,} questions", bars)]
    for language in sorted({language for result in results.values() for language in result.by_language}):
        bars, questions = [], 0
        for stage, result in results.items():
            if language in result.by_language:
                accuracy, questions = result.by_language[language].accuracy, result.by_language[language].questions
                bars.append((*_TUNED[stage], accuracy, *accuracy_interval(round(accuracy * questions), questions)))
        groups.append((f"{_LANGUAGES.get(language, language)}\n{questions:,} questions", bars))
    return groups


def plot_rounds(axes: Axes, rounds: Sequence[Any]) -> None:
    """Pages by mining round: those that the round before had collected, and the new ones.

    Args:
      rounds: objects with `round`, `collected` and `already_collected` (a share, or None in the first round).
    """
    x = np.arange(len(rounds))
    total = np.array([entry.collected for entry in rounds])
    old = np.array([round(entry.collected * (entry.already_collected or 0.0)) for entry in rounds])
    axes.bar(x, old, width=0.6, facecolor=GRID, edgecolor=MUTED, linewidth=1.0)
    axes.bar(x, total - old, width=0.6, bottom=old, facecolor=AFTER, edgecolor=AFTER, linewidth=1.0)
    top = max(float(total.max()), 1.0)
    for at, count in zip(x, total, strict=True):
        axes.annotate(f"{count:,}", (at, count), (0, 4), textcoords="offset points", ha="center", fontweight="bold")
    edge = x[-1] + 0.3
    ends = [((old[-1] + total[-1]) / 2, "new", AFTER)]
    if old[-1]:
        ends.append((old[-1] / 2, "collected\nbefore", MUTED))
    axes.set(xticks=x, xticklabels=[str(entry.round) for entry in rounds], xlabel="round of mining")
    axes.set(ylabel="pages collected", ylim=(0, 1.12 * top), xlim=(-0.6, edge + 0.05))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    label_ends(axes, edge, ends)


def plot_curves(
    axes: Axes, curves: Sequence[tuple[str, str, Sequence[float], Sequence[float]]], *, unit: str, drawing: str = "mean"
) -> None:
    """Quantities by training step.

    Args:
      curves: (label, "before" or "after", steps, values); a label stands at its curve's end.
      unit: of the vertical axis.
      drawing: "mean" (every record faint, their running mean strong), "share" (the same, in per cent) or "exact".
    """
    ends = []
    for label, look, steps, values in curves:
        steps, values = np.asarray(steps, float), np.asarray(values, float)
        colour, _, style = _LOOKS[look]
        smooth = values if drawing == "exact" else _running_mean(values)
        axes.plot(steps, values, color=colour, alpha=0.28, linewidth=0.9)
        axes.plot(steps, smooth, color=colour, linestyle=style if len(curves) > 1 else "solid")
        ends.append((steps[-1], smooth[-1], label, colour))
    axes.set(xlabel="step", ylabel=unit)
    axes.margins(x=0.0, y=0.06)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    shown = np.concatenate([np.asarray(values, float) for _, _, _, values in curves])
    finite = shown[np.isfinite(shown)]
    if drawing == "share":
        axes.set_ylim(*share_limits(finite))
        use_percent(axes)
    elif finite.size and finite.min() >= 0:  # nothing here is below zero: a margin must not suggest it
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0.0))
    if all(label for *_, label, _ in ends):
        for x, y, label, colour in ends:
            axes.plot([x], [y], "o", color=colour, markersize=4, clip_on=False)
            axes.annotate(
                label, (x, y), (5, 0), textcoords="offset points", color=colour, va="center", fontweight="bold"
            )


def plot_at_k(
    axes: Axes, lines: Sequence[tuple[str, str, Mapping[int, float]]], *, metric: str, limits: tuple[float, float]
) -> None:
    """pass@k or maj@k against k.

    Args:
      lines: (label, "before" or "after", share by k).
      metric: its name, for the axis.
      limits: of the vertical axis, the same for both metrics.
    """
    ks = sorted({k for _, _, shares in lines for k in shares})
    ends = []
    for label, look, shares in lines:
        colour, marker, style = _LOOKS[look]
        known = sorted(shares)
        axes.plot(known, [shares[k] for k in known], color=colour, marker=marker, linestyle=style, markersize=5)
        ends.append((shares[known[-1]], f"{label} {100 * shares[known[-1]]:.1f} %", colour))
    axes.set_xscale("log", base=2)
    axes.set(
        xticks=ks, xticklabels=[str(k) for k in ks], xlabel="k, samples a question", ylabel=f"{metric}, % of questions"
    )
    axes.minorticks_off()
    axes.set_ylim(*limits)
    use_percent(axes)
    label_ends(axes, ks[-1], ends)


def plot_accuracy(axes: Axes, groups: Sequence[tuple[str, Sequence[tuple[str, str, float, float, float]]]]) -> None:
    """Accuracy as bars with intervals, a group of bars for each set of questions.

    Args:
      groups: (group's label, bars from top to bottom), a bar being (label, "before" or "after", accuracy, low, high).
    """
    y, ticks, labels = 0.0, [], []
    for group, bars in groups:
        ticks.append(y + 0.5 * (len(bars) - 1))
        labels.append(group)
        for label, look, accuracy, low, high in bars:
            filled = look == "after"
            colour = _LOOKS[look][0]
            axes.barh(
                y, accuracy, 0.78, facecolor=colour if filled else PAPER, edgecolor=colour, linewidth=1.4,
                hatch=None if filled else "////",
            )  # fmt: skip
            axes.plot([low, high], [y, y], color=INK, linewidth=1.6, marker="|", markersize=8)
            axes.annotate(
                f"{label} {100 * accuracy:.1f} %", (max(high, accuracy), y), (6, 0), textcoords="offset points",
                va="center", color=colour, fontweight="bold",
            )  # fmt: skip
            y += 1.0
        y += 0.6
    axes.set(yticks=ticks, yticklabels=labels, xlabel="greedy accuracy, % of questions", ylim=(y - 1.0, -0.7))
    top = max(high for _, bars in groups for *_, high in bars)
    axes.set_xlim(0, min(1.0, 1.05 * top) + 0.3 * top)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.0])
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=INK)


def plot_right_samples(axes: Axes, lines: Sequence[tuple[str, str, Sequence[int]]], *, samples: int) -> None:
    """How many of a question's samples are right: a count of questions for each number.

    Args:
      lines: (label, "before" or "after", right samples of each question).
      samples: drawn for each question.
    """
    x = np.arange(samples + 1)
    width = 0.84 / len(lines)
    for place, (label, look, right) in enumerate(lines):
        colour, *_ = _LOOKS[look]
        counts = np.bincount(np.asarray(right, int), minlength=samples + 1)
        filled = look == "after"
        axes.bar(
            x + (place - (len(lines) - 1) / 2) * width, counts, width, label=label,
            facecolor=colour if filled else PAPER, edgecolor=colour, linewidth=0.9, hatch=None if filled else "//////",
        )  # fmt: skip
    axes.set(xlabel=f"right samples out of {samples}", ylabel="questions", xlim=(-0.6, samples + 0.6))
    axes.set_ylim(top=1.2 * axes.get_ylim()[1])  # room for the legend
    axes.xaxis.set_major_locator(MultipleLocator(max(samples // 4, 1)))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(frameon=False, loc="upper center", ncols=len(lines))


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean over a centred window of a fifteenth of the curve, shorter at both ends."""
    half = max(len(values) // 30, 1)
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])


def share_limits(shares: np.ndarray) -> tuple[float, float]:
    """Limits that show the differences between shares, and nothing outside 0 to 1 but room for a line."""
    if not shares.size:
        return 0.0, 1.0
    low, high = float(shares.min()), float(shares.max())
    margin = max(0.12 * (high - low), 0.015)
    return (0.0 if low < 0.2 else low - margin), min(high + margin, 1.0 + 0.02)


def use_percent(axes: Axes) -> None:
    """Writes the shares of the vertical axis in per cent."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if high - low < 0.05 else 0, symbol=""))


def label_ends(axes: Axes, x: float, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes labels to the right of x, one for each (y, text, colour), moved apart where they would touch."""
    height = axes.figure.get_size_inches()[1] * 72 * 0.7 / max(axes.get_gridspec().nrows, 1)  # of the axes, about
    low, high = axes.get_ylim()
    at = sorted(((y - low) / (high - low) * height, y, text, colour) for y, text, colour in ends)
    places = [place for place, *_ in at]
    for _ in range(100):
        for i in range(len(places) - 1):
            overlap = _LABEL_GAP - (places[i + 1] - places[i])
            if overlap > 1e-6:
                places[i] -= overlap / 2
                places[i + 1] += overlap / 2
    for place, (wanted, y, text, colour) in zip(places, at, strict=True):
        axes.annotate(
            text, (x, y), (7, place - wanted), textcoords="offset points", color=colour, va="center",
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
