"""Equality of expressions and of equations: by the normal form where it decides, else by values at points."""

from fractions import Fraction

from dsmath.reward import numerics
from dsmath.reward.expressions import Tree
from dsmath.reward.forms import ONE, Form, Monomial, UndecidedError, combine, multiply, normal_form


def are_equal(left: Tree, right: Tree, *, rounded: bool = False) -> bool:
    """Whether two expressions are equal wherever both are defined.

    Args:
      left, right: trees of `parse_expression`.
      rounded: whether one side is a long decimal, of which the first 11 digits count.
    """
    try:
        form_left, form_right = normal_form(left), normal_form(right)
        if _same(form_left, form_right):
            return True
        if not rounded and not _is_opaque(form_left) and not _is_opaque(form_right):
            return False
        if symbols(left) != symbols(right) and not (_is_opaque(form_left) or _is_opaque(form_right)):
            return False
    except UndecidedError:
        pass
    return numerics.agree(left, right, sorted(symbols(left) | symbols(right)), rounded=rounded)


def are_proportional(left: Tree, right: Tree) -> bool:
    """Whether two expressions, two equations' left minus right sides, are equal up to a constant factor."""
    try:
        numerators = [normal_form(tree)[0] for tree in (left, right)]
    except UndecidedError:
        return False
    first, second = {}, {}
    for terms, polynomial in zip((first, second), numerators, strict=True):
        for monomial, coefficient in polynomial.items():
            variables = frozenset(item for item in monomial if _is_variable(item[0]))
            terms.setdefault(variables, {})[monomial - variables] = coefficient
    if not first or first.keys() != second.keys() or first.keys() == {ONE}:
        return False
    lead = max(first, key=_order)
    return all(
        combine(multiply(first[key], second[lead]), multiply(second[key], first[lead]), -1) == {} for key in first
    )


def _order(monomial: Monomial) -> str:
    """An order that does not depend on hashing."""
    return str(sorted((str(atom), power) for atom, power in monomial))


def value_of(tree: Tree) -> Fraction | None:
    """The exact rational value, or None."""
    try:
        top, bottom = normal_form(tree)
    except UndecidedError:
        return None
    if not top:
        return Fraction(0)
    if top.keys() == {ONE} == bottom.keys():
        return top[ONE] / bottom[ONE]
    return None


def linear_in_one_symbol(tree: Tree) -> tuple[str, Tree, bool] | None:
    """Solves `tree = 0` for its one symbol.

    Returns:
      The symbol, its value, and whether the symbol's coefficient is positive; None where the tree is not linear in one
      symbol with a rational coefficient.
    """
    try:
        top, bottom = normal_form(tree)
    except UndecidedError:
        return None
    names = symbols(tree)
    if len(names) != 1 or bottom.keys() != {ONE}:
        return None
    (name,) = names
    linear = frozenset({(name, Fraction(1))})
    slope = top.get(linear)
    if slope is None or any(name == atom for key in top if key != linear for atom, _ in key) or _is_opaque((top, {})):
        return None
    constant = ("num", Fraction(0))
    for monomial, coefficient in top.items():
        if monomial != linear:
            term = ("num", -coefficient / slope)
            for atom, power in monomial:
                base = ("num", Fraction(atom)) if isinstance(atom, int) else ("sym", atom)
                term = ("mul", term, ("pow", base, ("num", power)))
            constant = ("add", constant, term)
    return name, constant, slope / bottom[ONE] > 0


def _is_variable(atom: object) -> bool:
    return not isinstance(atom, int) and atom not in numerics.CONSTANTS


def _is_opaque(form: Form) -> bool:
    return any(isinstance(atom, tuple) for polynomial in form for monomial in polynomial for atom, _ in monomial)


def _same(left: Form, right: Form) -> bool:
    if left == right:
        return True
    return multiply(left[0], right[1]) == multiply(right[0], left[1])


def symbols(tree: Tree) -> set[str]:
    """The names in a tree, constants apart."""
    if tree[0] == "sym":
        return {tree[1]} if _is_variable(tree[1]) else set()
    return set().union(*(symbols(part) for part in tree[1:] if isinstance(part, tuple)))
