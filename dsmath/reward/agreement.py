"""Whether two answers that were read (`dsmath.reward.values`) mean the same."""

import functools
from collections.abc import Callable

from dsmath.reward import algebra
from dsmath.reward.expressions import Tree
from dsmath.reward.intervals import FLIPPED, intervals, intervals_agree
from dsmath.reward.units import ratio
from dsmath.reward.values import (
    Assignment,
    Choices,
    Clock,
    Expression,
    Finite,
    Matrix,
    Ratio,
    Relation,
    Sequence,
    Value,
    Words,
)


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
            value = value_of_equation(first)
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
    for first, second in ((left, right), (right, left)):
        if isinstance(first, Finite) and len(first.members) == 1 and isinstance(second, Expression):
            return same(first.members[0], second)
    if isinstance(left, Choices | Words):
        return left == right
    if isinstance(left, Clock) and isinstance(right, Clock):
        period = 86400 if left.is_sure and right.is_sure else 43200
        return (left.seconds - right.seconds) % period == 0
    if isinstance(left, Matrix | Sequence) and isinstance(right, Matrix | Sequence):
        return _matrices_agree(left, right, same)
    if isinstance(left, Ratio) or isinstance(right, Ratio):
        return _ratios_agree(left, right)
    first, second = intervals(left), intervals(right)
    return first is not None and second is not None and intervals_agree(first, second)


def _names_agree(left: str, right: str) -> bool:
    return left.replace(" ", "") == right.replace(" ", "") or "text" in left + right


def value_of_equation(relation: Relation) -> Value | None:
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
    if left.unit and right.unit:
        factor = ratio(left.unit, right.unit)
        if factor is None:
            return False
        if factor != 1:
            return algebra.are_equal(("mul", left.tree, ("num", factor)), right.tree, rounded=rounded)
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
        (tuple(FLIPPED[operator] for operator in reversed(right.operators)), tuple(reversed(right.sides))),
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
    if left == right or any(algebra.value_of(member) == 0 for member in (*first, *second)):
        return left == right
    return len(first) == len(second) and all(
        algebra.are_equal(("mul", first[index], second[0]), ("mul", second[index], first[0]))
        for index in range(len(first))
    )
