"""Sets of real numbers: intervals, inequalities and unions of them."""

import functools

from dsmath.reward import algebra, numerics
from dsmath.reward.expressions import Tree
from dsmath.reward.values import Expression, Finite, Relation, Sequence, Union, Value

FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "=": "=", "\\ne": "\\ne"}
_INFINITY = ("sym", "∞")
_INFINITIES = (_INFINITY, ("neg", _INFINITY))

Interval = tuple[Tree, bool, Tree, bool]  # lower end, whether it belongs, upper end, whether it belongs


def intervals(value: Value) -> list[Interval] | None:
    """The set of real numbers that an interval, an inequality or a union of them stands for, in increasing order."""
    if isinstance(value, Sequence) and value.opening in ("(", "[") and len(value.members) == 2:
        if not all(isinstance(member, Expression) for member in value.members):
            return None
        low, high = (member.tree for member in value.members)
        return _ordered([(low, value.opening == "[", high, value.closing == "]")])
    if isinstance(value, Finite):
        if not all(isinstance(member, Expression) for member in value.members):
            return None
        return _ordered([(member.tree, True, member.tree, True) for member in value.members])
    if isinstance(value, Relation):
        return _solve(value)
    is_row = isinstance(value, Sequence) and value.opening == value.closing == ""
    if isinstance(value, Union) or is_row:
        parts = [intervals(member) for member in value.members]
        if None in parts:
            return None
        if value.all_hold if not is_row else any(isinstance(member, Relation) for member in value.members):
            return functools.reduce(_intersect, parts)
        return _ordered([interval for part in parts for interval in part])
    return None


def _solve(relation: Relation) -> list[Interval] | None:
    result = None
    for operator, left, right in zip(relation.operators, relation.sides, relation.sides[1:], strict=False):
        if left in _INFINITIES or right in _INFINITIES:  # -∞ < x says nothing
            continue
        bounded = _solve_absolute(operator, left, right)
        if bounded is not None:
            result = bounded if result is None else _intersect(result, bounded)
            continue
        solved = algebra.linear_in_one_symbol(("add", left, ("neg", right)))
        if solved is None:
            return None
        _, bound, is_increasing = solved
        operator = operator if is_increasing else FLIPPED[operator]
        below = (("neg", _INFINITY), False, bound, operator == "\\le")
        above = (bound, operator == "\\ge", _INFINITY, False)
        part = {"=": [(bound, True, bound, True)], "\\ne": [below, above]}.get(operator)
        part = part or ([below] if operator in ("<", "\\le") else [above])
        result = part if result is None else _intersect(result, part)
    return result


def _solve_absolute(operator: str, left: Tree, right: Tree) -> list[Interval] | None:
    """The solutions of |u| < c and its like; None for other relations."""
    if right[:2] == ("fn", "abs"):
        operator, left, right = FLIPPED[operator], right, left
    if left[:2] != ("fn", "abs") or algebra.symbols(right) or operator in ("=", "\\ne"):
        return None
    low, high = (_solve(Relation((op,), (left[2], end))) for op, end in _ends(operator, right))
    if low is None or high is None:
        return None
    return _intersect(low, high) if operator in ("<", "\\le") else _ordered(low + high)


def _ends(operator: str, bound: Tree) -> tuple[tuple[str, Tree], tuple[str, Tree]]:
    return (FLIPPED[operator], ("neg", bound)), (operator, bound)


def _ordered(parts: list[Interval]) -> list[Interval] | None:
    """Sorted and merged where they overlap or touch; None where an end is no real constant or the ends are reversed."""
    keyed = []
    for part in parts:
        low, high = numerics.approximate(part[0]), numerics.approximate(part[2])
        if low is None or high is None or low > high or (low == high and not (part[1] and part[3])):
            return None
        keyed.append((low, not part[1], high, part))
    merged: list[tuple] = []
    for low, _, high, part in sorted(keyed, key=lambda item: item[:3]):
        if merged:
            last_high, last = merged[-1]
            if low < last_high or (low == last_high and (part[1] or last[3])):
                if high > last_high or (high == last_high and part[3]):
                    merged[-1] = (max(high, last_high), (last[0], last[1], part[2], part[3]))
                continue
        merged.append((high, part))
    return [part for _, part in merged]


def _intersect(left: list[Interval], right: list[Interval]) -> list[Interval]:
    result = []
    for a in left:
        for b in right:
            lows = sorted((a, b), key=lambda part: (numerics.approximate(part[0]), not part[1]))
            highs = sorted((a, b), key=lambda part: (numerics.approximate(part[2]), part[3]))
            kept = _ordered([(lows[1][0], lows[1][1], highs[0][2], highs[0][3])])
            result += kept or []
    return _ordered(result) or []


def intervals_agree(left: list[Interval], right: list[Interval]) -> bool:
    """Whether two sets of numbers in increasing order are equal."""
    return len(left) == len(right) and all(
        a[1] == b[1] and a[3] == b[3] and algebra.are_equal(a[0], b[0]) and algebra.are_equal(a[2], b[2])
        for a, b in zip(left, right, strict=True)
    )
