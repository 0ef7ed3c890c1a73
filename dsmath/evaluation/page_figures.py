"""The figures of an evaluation's page as SVG elements: no style of their own, the page's classes colour them."""

import math

from markupsafe import Markup

from dsmath.evaluation.results import Result

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 232, 12, 164  # of the plot within it; line labels stand to its right
_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_MOST_TICKS = 6
_ALIKE = 0.1  # above and below shares that are all alike
_GAP = 15.0  # between two labels
_LINES = (("pass_at", "pass", "pass@k"), ("maj_at", "maj", "maj@k"))  # field, class, how it is called


def draw_at_k(result: Result, title: str) -> Markup:
    """pass@k (squares, dashed) and maj@k (circles) with intervals against k, which grows by doubling.

    Args:
      result: has pass@k at least.
      title: what is drawn, for people who do not see it; the figures are read to them too.
    """
    lines = [(line, name, spoken) for field, name, spoken in _LINES if (line := getattr(result, field))]
    intervals = {name: getattr(result, f"{field}_interval") for field, name, _ in _LINES}
    ks = sorted({k for line, *_ in lines for k in line})
    values = [share for line, *_ in lines for share in line.values()]
    values += [end for line in intervals.values() for interval in line.values() for end in interval]
    ticks, digits = _ticks(min(values), max(values))
    span = math.log2(ks[-1] / ks[0]) or 1.0

    def across(k: int) -> float:
        return _LEFT + 8 + (_RIGHT - _LEFT - 16) * math.log2(k / ks[0]) / span

    def along(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (share - ticks[0]) / (ticks[-1] - ticks[0])

    drawn = [_tick(along(tick), f"{100 * tick:.{digits}f}") for tick in ticks]
    drawn += [
        _text(across(k), _BOTTOM + 16, "middle", str(k))
        for k in ks
        if len(ks) < 8 or k == ks[-1] or math.log2(k / ks[0]).is_integer()
    ]
    drawn.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 3, "middle", "k, samples a problem"))
    for line, name, _ in lines:
        drawn += [
            Markup('<path class="{}" d="M{:.1f} {:.1f}V{:.1f}"/>').format(name, across(k), along(low), along(high))
            for k, (low, high) in sorted(intervals[name].items())
        ]
        drawn.append(_line([(across(k), along(line[k])) for k in sorted(line)], name))
    ends = [
        (along(line[max(line)]), f"{name}@{max(line)} {100 * line[max(line)]:.1f} %", name) for line, name, _ in lines
    ]
    drawn += [_text(_RIGHT + 4, place + 4, "start", text, name) for place, text, name in _spread(ends)]
    heard = "; ".join(
        f"{spoken}: " + ", ".join(f"{100 * line[k]:.1f} % at {k}" for k in sorted(line)) for line, _, spoken in lines
    )
    label = f"{title}. {heard}."
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, label, Markup("").join(drawn)
    )


def draw_bar(share: float, low: float, high: float) -> Markup:
    """An accuracy as a bar from 0 to 1 with its interval; the number stands beside it in the page."""
    return Markup(
        '<svg class="bar" viewBox="0 0 200 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="whole" width="200" height="12"/><rect class="part" width="{:.1f}" height="12"/>'
        '<path class="interval" d="M{:.1f} 6H{:.1f}M{:.1f} 2.5V9.5M{:.1f} 2.5V9.5"/></svg>'
    ).format(200 * share, 200 * low, 200 * high, 200 * low, 200 * high)


def _line(points: list[tuple[float, float]], name: str) -> Markup:
    path = Markup('<polyline class="{}" points="{}"/>').format(name, " ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    if name == "maj":
        marks = [Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.4"/>').format(name, x, y) for x, y in points]
    else:
        marks = [
            Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="6.4" height="6.4"/>').format(name, x - 3.2, y - 3.2)
            for x, y in points
        ]
    return path + Markup("").join(marks)


def _tick(y: float, label: str) -> Markup:
    rule = Markup('<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _RIGHT, y, y)
    return rule + _text(_LEFT - 6, y + 4, "end", label)


def _text(x: float, y: float, anchor: str, text: str, name: str = "") -> Markup:
    return Markup('<text{} x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        Markup(' class="{}"').format(name) if name else "", x, y, anchor, text
    )


def _ticks(low: float, high: float) -> tuple[list[float], int]:
    """Round shares around the data, and the digits that their percentages need."""
    if high - low < _STEPS[0]:  # all shares are alike: no step is too fine to part them
        low, high = max(low - _ALIKE, 0.0), min(high + _ALIKE, 1.0)
    for step in _STEPS:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < _MOST_TICKS:
            break
    return [step * place for place in range(first, last + 1)], 1 if step < 0.01 else 0


def _spread(ends: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Labels at the ends of at most two lines, moved apart where they would touch."""
    ends = sorted(ends)
    if len(ends) == 2 and (missing := _GAP - (ends[1][0] - ends[0][0])) > 0:
        (upper, *first), (lower, *second) = ends
        return [(upper - missing / 2, *first), (lower + missing / 2, *second)]
    return ends
