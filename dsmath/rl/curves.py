"""Small curves of a run's figures as SVG elements: drawn in milliseconds as the run goes on, coloured by the page."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

_WIDTH, _HEIGHT = 260, 92
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 252, 8, 74  # of the plot within it
_MOST_POINTS = 240


def draw(steps: Sequence[float], values: Sequence[float | None]) -> Markup:
    """One curve: every value faint, their running mean strong, the limits of both axes in numbers.

    The page gives the looks of the classes `raw`, `mean`, `axis` and of `text`. What is not finite is left out.

    Args:
      steps, values: of the same length; None is no value.
    """
    x, y = np.asarray(steps, float), np.array([np.nan if value is None else value for value in values], float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not x.size:
        return Markup('<svg viewBox="0 0 {} {}" aria-hidden="true"></svg>').format(_WIDTH, _HEIGHT)
    low, high = float(y.min()), float(y.max())
    shown = np.unique(np.linspace(0, x.size - 1, _MOST_POINTS).astype(int))
    points = [
        Markup('<polyline class="{}" points="{}"/>').format(
            name, _places(x[shown], line[shown], (x[0], x[-1]), (low, high))
        )
        for name, line in (("raw", y), ("mean", _running_mean(y)))
    ]
    texts = [
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(*label)
        for label in (
            (_LEFT - 5, _TOP + 4, "end", short(high)),
            (_LEFT - 5, _BOTTOM + 3, "end", short(low) if low < high else ""),
            (_LEFT, _HEIGHT - 4, "start", f"{x[0]:.0f}"),
            (_RIGHT, _HEIGHT - 4, "end", f"{x[-1]:.0f}" if x.size > 1 else ""),
        )
    ]
    axes = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _RIGHT, height, height)
        for height in (_TOP, _BOTTOM)
    ]
    opening = Markup('<svg viewBox="0 0 {} {}" aria-hidden="true">').format(_WIDTH, _HEIGHT)
    return opening + Markup("").join([*axes, *points, *texts]) + Markup("</svg>")


def short(value: float) -> str:
    """A figure with three digits, or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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
