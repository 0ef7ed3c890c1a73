"""Small figures of a run as SVG elements: drawn in milliseconds as the run goes on, coloured by the page."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

_WIDTH, _HEIGHT = 260, 92
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 252, 8, 74  # of the plot within it
_MOST_POINTS = 240


def draw(steps: Sequence[float], values: Sequence[float | None]) -> Markup:
    """One curve: every value faint, their running mean strong, the limits of both axes in numbers.

    The page gives the looks of the classes `raw`, `mean` and `axis` and of texts. What is not finite is left out.

    Args:
      steps, values: of the same length; None is no value.
    """
    x, y = np.asarray(steps, float), np.array([np.nan if value is None else value for value in values], float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not x.size:
        return _frame([], ("", ""), ("", ""))
    low, high = float(y.min()), float(y.max())
    shown = np.unique(np.linspace(0, x.size - 1, _MOST_POINTS).astype(int))
    lines = [
        Markup('<polyline class="{}" points="{}"/>').format(
            name, _places(x[shown], line[shown], (x[0], x[-1]), (low, high))
        )
        for name, line in (("raw", y), ("mean", _running_mean(y)))
    ]
    across = (f"{x[0]:.0f}", f"{x[-1]:.0f}" if x.size > 1 else "")
    return _frame(lines, across, (short(low) if low < high else "", short(high)))


def draw_bars(counts: Sequence[float], edges: Sequence[float]) -> Markup:
    """A histogram, from its first filled bin to its last one, the bins all of one width; bars have the class `bin`.

    Args:
      counts: [bins].
      edges: [bins + 1].
    """
    counts = np.asarray(counts, float)
    filled = np.flatnonzero(counts)
    if not filled.size:
        return _frame([], ("", ""), ("", ""))
    first, last = filled[0], filled[-1] + 1
    width = (_RIGHT - _LEFT) / (last - first)
    heights = (_BOTTOM - _TOP) * counts[first:last] / counts.max()
    bars = [
        Markup('<rect class="bin" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            _LEFT + place * width, _BOTTOM - height, 0.85 * width, height
        )
        for place, height in enumerate(heights)
    ]
    return _frame(bars, (short(edges[first]), short(edges[last])), ("0", short(counts.max())))


def _frame(drawn: Sequence[Markup], across: tuple[str, str], along: tuple[str, str]) -> Markup:
    """The SVG element: axes with the numbers at both ends of each, and what is drawn between them."""
    axes = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _RIGHT, height, height)
        for height in (_TOP, _BOTTOM)
    ]
    texts = [
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(*label)
        for label in (
            (_LEFT - 5, _TOP + 4, "end", along[1]),
            (_LEFT - 5, _BOTTOM + 3, "end", along[0]),
            (_LEFT, _HEIGHT - 4, "start", across[0]),
            (_RIGHT, _HEIGHT - 4, "end", across[1]),
        )
    ]
    opening = Markup('<svg viewBox="0 0 {} {}" aria-hidden="true">').format(_WIDTH, _HEIGHT)
    return opening + Markup("").join([*axes, *drawn, *texts]) + Markup("</svg>")


def short(value: float) -> str:
    """A figure with three digits, or all that stand before the point, and a true minus."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "\N{MINUS SIGN}")


def _places(x: np.ndarray, y: np.ndarray, across: tuple[float, float], along: tuple[float, float]) -> str:
    """Values as places in the plot; a constant curve lies in the middle."""
    left = _LEFT + (_RIGHT - _LEFT) * (x - across[0]) / ((across[1] - across[0]) or 1.0)
    share = (y - along[0]) / (along[1] - along[0]) if along[1] > along[0] else np.full(y.shape, 0.5)
    top = _BOTTOM - (_BOTTOM - _TOP) * share
    if x.size == 1:  # a line of one point is none
        left, top = np.append(left, left + 2), np.append(top, top)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(left, top, strict=True))


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean over a centred window of a fifteenth of the curve, shorter at both ends."""
    half = max(len(values) // 30, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(len(values))
    first, last = np.maximum(ends - half, 0), np.minimum(ends + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)
