"""The normal form of an expression: a quotient of two sums of terms.

A term is a rational coefficient times powers of atoms: symbols, π, e, i, roots of primes (√18 = 3·2^(1/2)), and whole
subexpressions that the form does not look into ("opaque", such as a logarithm). Roots of primes are independent over
the rationals, so without opaque atoms equal forms mean equal expressions, and unequal forms unequal ones.
"""

import functools
import math
from fractions import Fraction

from dsmath.reward.expressions import Tree

_MAX_BITS = 20_000  # of a coefficient
_MAX_PRODUCTS = 12_000  # of terms, for one normal form
_MAX_RADICAND = 10**10  # for trial division
MAX_FACTORIAL = 1_000

Monomial = frozenset  # of (atom, Fraction)
Polynomial = dict  # of Monomial -> Fraction
Form = tuple[Polynomial, Polynomial]  # numerator, denominator
ONE: Monomial = frozenset()  # the monomial of constants


class UndecidedError(ValueError):
    """The normal form of an expression is too large, or the expression has no value."""


@functools.lru_cache(maxsize=4096)
def normal_form(tree: Tree) -> Form:
    """The quotient of two polynomials that a tree stands for.

    Raises:
      UndecidedError: it is too large, or divides by zero.
    """
    return _Former().form(tree)


class _Former:
    def __init__(self):
        self._budget = _MAX_PRODUCTS

    def form(self, tree: Tree) -> Form:
        kind = tree[0]
        if kind == "num":
            return _constant(tree[1])
        if kind == "sym":
            if tree[1] == "∞":
                return {frozenset({(("∞",), Fraction(1))}): Fraction(1)}, {ONE: Fraction(1)}
            return {frozenset({(tree[1], Fraction(1))}): Fraction(1)}, {ONE: Fraction(1)}
        if kind == "neg":
            top, bottom = self.form(tree[1])
            return {key: -value for key, value in top.items()}, bottom
        if kind == "pct":
            return self._multiply(self.form(tree[1]), _constant(Fraction(1, 100)))
        if kind == "deg":
            return self._multiply(self.form(tree[1]), self.form(("div", ("sym", "π"), ("num", Fraction(180)))))
        if kind in ("add", "mul", "div"):
            left, right = self.form(tree[1]), self.form(tree[2])
            if kind == "add":
                return self._add(left, right)
            return self._multiply(left, right if kind == "mul" else _inverse(right))
        if kind == "pow":
            return self._power(tree[1], tree[2])
        if kind == "root":
            return self._power(tree[2], ("div", ("num", Fraction(1)), tree[1]))
        return self._function(tree)

    def _times(self, left: Polynomial, right: Polynomial) -> Polynomial:
        self._budget -= len(left) * len(right)
        if self._budget < 0:
            raise UndecidedError("too many terms")
        return multiply(left, right)

    def _add(self, left: Form, right: Form) -> Form:
        self._budget -= len(left[0]) + len(right[0])
        if left[1] == right[1]:
            return combine(left[0], right[0], 1), left[1]
        top = combine(self._times(left[0], right[1]), self._times(right[0], left[1]), 1)
        return top, self._times(left[1], right[1])

    def _multiply(self, left: Form, right: Form) -> Form:
        return self._times(left[0], right[0]), self._times(left[1], right[1])

    def _power(self, base_tree: Tree, exponent_tree: Tree) -> Form:
        exponent_form = self.form(exponent_tree)  # once, or a tower of powers takes exponential time
        exponent = _rational(exponent_form)
        base = self.form(base_tree)
        if exponent is None:
            return self._opaque("pow", base, exponent_form)
        if exponent.denominator == 1:
            return self._integer_power(base, int(exponent))
        top, bottom = base
        if not top:
            return _constant(Fraction(0))
        if top.keys() == {ONE} == bottom.keys():
            return self._root(top[ONE] / bottom[ONE], exponent)
        if bottom == {ONE: 1} and len(top) == 1:
            ((monomial, coefficient),) = top.items()
            if coefficient == 1 and len(monomial) == 1:
                ((atom, power),) = monomial
                if power == 1 and not isinstance(atom, int) and atom != "i":
                    return self._multiply(({frozenset({(atom, exponent)}): Fraction(1)}, {ONE: Fraction(1)}), _UNIT)
        return self._opaque("pow", base, _constant(exponent))

    def _integer_power(self, base: Form, exponent: int) -> Form:
        if exponent < 0:
            base, exponent = _inverse(base), -exponent
        bits = max((_bits(value) for polynomial in base for value in polynomial.values()), default=0)
        terms = max(len(base[0]), len(base[1]))
        if exponent > 10_000 or bits * exponent > _MAX_BITS or (terms > 1 and exponent > 60):
            raise UndecidedError("the power is too large")
        result = _UNIT
        while exponent:
            if exponent & 1:
                result = self._multiply(result, base)
            exponent >>= 1
            if exponent:
                base = self._multiply(base, base)
        return result

    def _root(self, value: Fraction, exponent: Fraction) -> Form:
        """A rational to a rational power; odd roots of negative numbers are real, as school has them."""
        sign = _UNIT
        if value < 0:
            if exponent.denominator == 2:
                sign = self._integer_power(self.form(("sym", "i")), exponent.numerator)
            elif exponent.denominator % 2 and exponent.numerator % 2:
                sign = _constant(Fraction(-1))
            elif exponent.denominator % 2 == 0:
                raise UndecidedError("an even root of a negative number")
        result = sign
        for part, direction in ((abs(value).numerator, 1), (abs(value).denominator, -1)):
            for prime, count in _factor(part).items():
                whole, rest = divmod(count * exponent * direction, 1)
                if abs(whole) * prime.bit_length() > _MAX_BITS:
                    raise UndecidedError("the power is too large")
                term = _constant(Fraction(prime) ** int(whole))
                if rest:
                    term = ({frozenset({(prime, rest)}): term[0][ONE]}, term[1])
                result = self._multiply(result, term)
        return result

    def _opaque(self, name: str, *parts: Form) -> Form:
        key = (name, *(tuple(frozenset(polynomial.items()) for polynomial in form) for form in parts))
        return {frozenset({(key, Fraction(1))}): Fraction(1)}, {ONE: Fraction(1)}

    def _function(self, tree: Tree) -> Form:
        _, name, *arguments = tree
        if name == "exp":
            return self._power(("sym", "e"), arguments[0])
        forms = [self.form(argument) for argument in arguments]
        values = [_rational(form) for form in forms]
        if None not in values:
            exact = _exact_function(name, *values)
            if exact is not None:
                return _constant(exact)
        return self._opaque(name, *forms)


def _rational(form: Form) -> Fraction | None:
    top, bottom = form
    if not top:
        return Fraction(0)
    return top[ONE] / bottom[ONE] if top.keys() == {ONE} == bottom.keys() else None


def _exact_function(name: str, *values: Fraction) -> Fraction | None:
    """The rational value of a function at rational arguments, None where there is none."""
    whole = all(value.denominator == 1 for value in values)
    if name in ("factorial", "binom"):
        if not whole or any(not 0 <= value <= MAX_FACTORIAL for value in values):
            raise UndecidedError(f"{name} out of bounds")
        return Fraction((math.factorial if name == "factorial" else math.comb)(*map(int, values)))
    if name in ("floor", "ceil", "abs"):
        return Fraction({"floor": values[0].__floor__, "ceil": values[0].__ceil__, "abs": values[0].__abs__}[name]())
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name in ("gcd", "lcm") and whole:
        return Fraction(getattr(math, name)(*map(int, values)))
    if name == "base":
        digits, base = str(values[0].numerator), int(values[1])
        if not whole or any(int(digit) >= base for digit in digits):
            raise UndecidedError("not digits of that base")
        return Fraction(int(digits, base))
    if name == "log" and len(values) == 2 and values[0] > 0 and values[1] > 0 and values[1] != 1:
        return _logarithm(*values)
    return None


def _logarithm(value: Fraction, base: Fraction) -> Fraction | None:
    """The rational logarithm of a rational: their factorizations are proportional."""
    if value == 1:
        return Fraction(0)
    vectors = []
    for number in (value, base):
        powers = _factor(number.numerator) | {p: -n for p, n in _factor(number.denominator).items()}
        vectors.append(powers)
    first, second = vectors
    if first.keys() != second.keys():
        return None
    ratios = {Fraction(first[prime], second[prime]) for prime in first}
    return ratios.pop() if len(ratios) == 1 else None


@functools.lru_cache(maxsize=4096)
def _factor(number: int) -> dict[int, int]:
    if number > _MAX_RADICAND:
        raise UndecidedError("too large to factor")
    powers, prime = {}, 2
    while prime * prime <= number:
        while number % prime == 0:
            powers[prime] = powers.get(prime, 0) + 1
            number //= prime
        prime += 1 if prime == 2 else 2
    if number > 1:
        powers[number] = powers.get(number, 0) + 1
    return powers


def _constant(value: Fraction) -> Form:
    return ({ONE: Fraction(value)} if value else {}), {ONE: Fraction(1)}


_UNIT = _constant(Fraction(1))


def _inverse(form: Form) -> Form:
    if not form[0]:
        raise UndecidedError("division by zero")
    if form[0].keys() == {ONE}:  # a rational denominator goes into the coefficients
        return {key: value / form[0][ONE] for key, value in form[1].items()}, {ONE: Fraction(1)}
    return form[1], form[0]


def combine(left: Polynomial, right: Polynomial, sign: int) -> Polynomial:
    """left + sign * right."""
    result = dict(left)
    for key, value in right.items():
        total = result.get(key, 0) + sign * value
        if total:
            result[key] = total
        else:
            result.pop(key, None)
    return result


def multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    """The product of two polynomials.

    Raises:
      UndecidedError: a coefficient is too large.
    """
    result: Polynomial = {}
    for key_left, value_left in left.items():
        for key_right, value_right in right.items():
            factor, key = (1, key_left or key_right) if not (key_left and key_right) else _merge(key_left, key_right)
            value = value_left * value_right * factor
            if _bits(value) > _MAX_BITS:
                raise UndecidedError("the coefficients are too large")
            total = result.get(key, 0) + value
            if total:
                result[key] = total
            else:
                result.pop(key, None)
    return result


def _merge(left: Monomial, right: Monomial) -> tuple[Fraction, Monomial]:
    """The product of two monomials: a rational factor (from √2·√2 and i·i) and a monomial."""
    factor, powers = Fraction(1), dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    for atom, power in list(powers.items()):
        if isinstance(atom, int) and not 0 < power < 1:
            whole = power.__floor__()
            factor *= Fraction(atom) ** whole
            powers[atom] = power - whole
        elif atom == "i" and power >= 2:
            factor *= -1 if power // 2 % 2 else 1
            powers[atom] = power % 2
        if not powers[atom]:
            del powers[atom]
    return factor, frozenset(powers.items())


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()
