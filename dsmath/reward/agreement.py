"""Whether two answers that were read (`dsmath.reward.values`) mean the same."""

import functools
from collections.abc import Callable

from dsmath.reward import algebra, numerics
from dsmath.reward.expressions import Tree
from dsmath.reward.values import (
    Assignment,
    Choices,
    Expression,
    Finite,
    Matrix,
    Ratio,
    Relation,
    Sequence,
    Union,
    Value,
    Words,
)

_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "=": "=", "\\ne": "\\ne"}
_INFINITY = ("sym", "∞")

Interval = tuple[Tree, bool, Tree, bool]  # lower end, whether it belongs, upper end, whether it belongs


def agree(left: Value, right: Value, rounded: bool = False) -> bool:
    """Whether two readings mean the same: a tuple's order and an interval's brackets matter, a set's order does not.

    Args:
      left, right: readings of two answers.
      rounded: whether a long decimal stands for the number that it rounds.
    """
    same = functools.partial(agree, rounded=rounded)
    for first, second in ((left, right), (right, left)):
        if isinstance(first, Assignment):
            if isinstance(second, Assignment):
                return same(first.value, second.value) and _names_agree(first.name, second.name)
            return same(first.value, second)
        if isinstance(first, Relation) and not isinstance(second, Relation):
            value = _value_of_equation(first)
            if value is not None:
                return same(value, second)
    if isinstance(left, Expression) and isinstance(right, Expression):
        return _expressions_agree(left, right, rounded)
    if isinstance(left, Relation) and isinstance(right, Relation):
        if _relations_agree(left, right):
            return True
        if _names(left) != _names(right):
            return False
    if isinstance(left, Sequence | Finite) and isinstance(right, Sequence | Finite):
        return _collections_agree(left, right, same)
    if isinstance(left, Choices | Words):
        return left == right
    if isinstance(left, Matrix | Sequence) and isinstance(right, Matrix | Sequence):
        return _matrices_agree(left, right, same)
    if isinstance(left, Ratio) or isinstance(right, Ratio):
        return _ratios_agree(left, right)
    first, second = intervals(left), intervals(right)
    return first is not None and second is not None and _intervals_agree(first, second)


def _names_agree(left: str, right: str) -> bool:
    return left.replace(" ", "") == right.replace(" ", "") or "text" in left + right


def _value_of_equation(relation: Relation) -> Value | None:
    """b of "x = b", "f(x) = b", "5 = x" and "2+3 = b"; None for other relations."""
    if set(relation.operators) != {"="}:
        return None
    first, last = relation.sides[0], relation.sides[-1]
    if _is_name(first) or not algebra.symbols(first):
        if _is_name(last) and not algebra.symbols(first):
            return Expression(first)
        return Expression(last)
    return None


def _names(relation: Relation) -> set[str]:
    return set().union(*map(algebra.symbols, relation.sides))


def _is_name(tree: Tree) -> bool:
    """A symbol, or a product of symbols such as AB and f(x)."""
    return tree[0] == "sym" or (tree[0] == "mul" and _is_name(tree[1]) and _is_name(tree[2]))


def _expressions_agree(left: Expression, right: Expression, rounded: bool) -> bool:
    if left.unit and right.unit and left.unit != right.unit:
        return False
    if algebra.are_equal(left.tree, right.tree, rounded=rounded):
        return True
    for bare, other in ((left, right), (right, left)):
        for tree in bare.alternatives:
            # 40% may answer "how many percent" as 40 does; 0.4% is never 0.4.
            value = algebra.value_of(tree) if bare.tree[0] == "pct" or bare.tree[0] == "neg" else None
            if value is not None and "pct" in (bare.tree[0], bare.tree[1][0]) and abs(value) <= 1:
                continue
            if algebra.are_equal(tree, other.tree, rounded=rounded):
                return True
    return False


def _relations_agree(left: Relation, right: Relation) -> bool:
    if len(left.operators) != len(right.operators):
        return False
    if left.operators == right.operators == ("=",):
        return algebra.are_proportional(*(("add", side[0], ("neg", side[1])) for side in (left.sides, right.sides)))
    for operators, sides in (
        (right.operators, right.sides),
        (tuple(_FLIPPED[operator] for operator in reversed(right.operators)), tuple(reversed(right.sides))),
    ):
        if left.operators == operators and all(map(algebra.are_equal, left.sides, sides)):
            return True
        if len(operators) == 1 and left.operators == operators:
            gap = (
                ("add", *(_signed(pair, sign) for pair, sign in zip(both, (1, -1), strict=True)))
                for both in (left.sides, sides)
            )
            if algebra.are_equal(*gap):
                return True
    return False


def _signed(tree: Tree, sign: int) -> Tree:
    return tree if sign > 0 else ("neg", tree)


def _collections_agree(left: Sequence | Finite, right: Sequence | Finite, same: Callable[[Value, Value], bool]) -> bool:
    free = [isinstance(side, Finite) or side.opening == side.closing == "" for side in (left, right)]
    rows = [isinstance(side, Sequence) and side.closing == ";" for side in (left, right)]
    if any(rows) and all(isinstance(member, Sequence) for member in left.members + right.members):
        free, rows = [True, True], [False, False]
    if all(free):
        return _same_members(left.members, right.members, same)
    if isinstance(left, Finite) or isinstance(right, Finite) or len(left.members) != len(right.members):
        return False
    brackets = {(side.opening, side.closing) for side in (left, right)}
    loose = any(free) or any(rows)  # a row without brackets, in the order of the other side's
    if len(brackets) > 1 and not (loose and brackets <= {("", ""), ("", ";"), ("(", ")")}):
        return False
    return all(map(same, left.members, right.members))


def _same_members(left: tuple[Value, ...], right: tuple[Value, ...], same: Callable[[Value, Value], bool]) -> bool:
    """Whether two sets are equal: every member of each has its like in the other."""
    if len(left) > 100 or len(right) > 100:
        return left == right
    if len(left) == len(right) and all(map(same, left, right)):
        return True
    return all(any(same(a, b) for b in right) for a in left) and all(any(same(a, b) for a in left) for b in right)


def _matrices_agree(left: Matrix | Sequence, right: Matrix | Sequence, same: Callable[[Value, Value], bool]) -> bool:
    if isinstance(left, Matrix) and isinstance(right, Matrix):
        if (len(left.rows), len(left.rows[0])) != (len(right.rows), len(right.rows[0])):
            return False
        return all(same(a, b) for rows in zip(left.rows, right.rows, strict=True) for a, b in zip(*rows, strict=True))
    matrix, vector = (left, right) if isinstance(left, Matrix) else (right, left)
    cells = [cell for row in matrix.rows for cell in row]
    if (
        min(len(matrix.rows), len(matrix.rows[0])) != 1
        or vector.opening not in ("(", "[")
        or len(cells) != len(vector.members)
    ):
        return False
    return (vector.opening, vector.closing) in (("(", ")"), ("[", "]")) and all(map(same, cells, vector.members))


def _ratios_agree(left: Value, right: Value) -> bool:
    sides = []
    for side in (left, right):
        if isinstance(side, Expression):
            sides.append((side.tree, ("num", 1)))
        elif isinstance(side, Ratio):
            sides.append(side.members)
        else:
            return False
    first, second = sides
    are_times = all(isinstance(side, Ratio) and side.is_time for side in (left, right))
    if left == right or are_times or any(algebra.value_of(member) == 0 for member in (*first, *second)):
        return left == right
    return len(first) == len(second) and all(
        algebra.are_equal(("mul", first[index], second[0]), ("mul", second[index], first[0]))
        for index in range(len(first))
    )


# ------------------------------------------------------------------------------------------------ sets of real numbers


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
        if is_row or value.all_hold:
            return functools.reduce(_intersect, parts)
        return _ordered([interval for part in parts for interval in part])
    return None


def _solve(relation: Relation) -> list[Interval] | None:
    result = None
    for operator, left, right in zip(relation.operators, relation.sides, relation.sides[1:], strict=False):
        solved = algebra.linear_in_one_symbol(("add", left, ("neg", right)))
        if solved is None:
            return None
        _, bound, is_increasing = solved
        operator = operator if is_increasing else _FLIPPED[operator]
        below = (("neg", _INFINITY), False, bound, operator == "\\le")
        above = (bound, operator == "\\ge", _INFINITY, False)
        part = {"=": [(bound, True, bound, True)], "\\ne": [below, above]}.get(operator)
        part = part or ([below] if operator in ("<", "\\le") else [above])
        result = part if result is None else _intersect(result, part)
    return result


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


def _intervals_agree(left: list[Interval], right: list[Interval]) -> bool:
    return len(left) == len(right) and all(
        a[1] == b[1] and a[3] == b[3] and algebra.are_equal(a[0], b[0]) and algebra.are_equal(a[2], b[2])
        for a, b in zip(left, right, strict=True)
    )
