"""Values of expressions to 50 digits, within bounds: for all that the normal form does not decide."""

import random

import mpmath

from dsmath.reward.expressions import Tree
from dsmath.reward.forms import MAX_FACTORIAL, UndecidedError

_MP = mpmath.MPContext()  # its own, as the global precision belongs to everybody
_MP.dps = 50
_EXACT = _MP.mpf(10) ** -35  # relative difference at 50 digits
_ROUNDED = _MP.mpf(10) ** -11  # of a decimal that a program printed
_POINTS = 8
_MAX_SYMBOLS = 12
_MAX_MAGNITUDE = 40_000  # binary exponent of a value

Number = mpmath.mpf | mpmath.mpc
CONSTANTS = {"π": _MP.pi, "e": _MP.e, "i": _MP.mpc(0, 1), "∞": _MP.inf}


_FUNCTIONS = {
    "abs": abs,
    "floor": _MP.floor,
    "ceil": _MP.ceil,
    **{f"arc{name}": getattr(_MP, f"a{name}") for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: getattr(_MP, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
}


class _UndefinedError(ArithmeticError):
    """An expression in real variables has no real value at a point."""


def agree(left: Tree, right: Tree, names: list[str], *, rounded: bool = False) -> bool:
    """Whether two expressions have the same value at every one of several points where both are defined.

    Args:
      left, right: trees of `parse_expression`.
      names: their symbols; symbols stand for real numbers, constants may be complex.
      rounded: whether 11 digits are enough.
    """
    tolerance = _ROUNDED if rounded else _EXACT
    if len(names) > _MAX_SYMBOLS:
        return False
    rng = random.Random(0)
    compared = 0
    for point in range(1 if not names else _POINTS):
        signs = [1 if point < _POINTS // 2 else rng.choice((-1, 1)) for _ in names]
        env = {name: sign * _MP.mpf(rng.randint(300, 2900)) / 997 for name, sign in zip(names, signs, strict=True)}
        try:
            first, second = _evaluate(left, env), _evaluate(right, env)
        except _UndefinedError:
            continue
        except (UndecidedError, ArithmeticError, ValueError, TypeError):
            return False
        if _MP.isinf(first) or _MP.isinf(second):
            return first == second
        if abs(first - second) > tolerance * max(abs(first), abs(second)):
            return False
        compared += 1
    return compared >= min(2, _POINTS if names else 1)


def approximate(tree: Tree) -> mpmath.mpf | None:
    """A real constant's value to 50 digits, or None; infinities are values."""
    try:
        value = _evaluate(tree, {})
    except (UndecidedError, ArithmeticError, ValueError):
        return None
    return value.real if abs(value.imag) <= _EXACT * max(1, abs(value.real)) else None


def _evaluate(tree: Tree, env: dict[str, mpmath.mpf]) -> Number:
    return _MP.mpc(_Evaluator(env).value(tree))


class _Evaluator:
    def __init__(self, env: dict[str, mpmath.mpf]):
        self._env = env

    def value(self, tree: Tree) -> Number:
        result = self._value(tree)
        size = abs(result)
        if not _MP.isinf(size) and size and abs(_MP.mag(size)) > _MAX_MAGNITUDE:
            raise UndecidedError("out of bounds")
        return result

    def _value(self, tree: Tree) -> Number:
        kind = tree[0]
        if kind == "num":
            return _MP.mpf(tree[1].numerator) / tree[1].denominator
        if kind == "sym":
            return self._symbol(tree[1])
        if kind == "fn":
            return self._function(tree[1], [self.value(part) for part in tree[2:]])
        if kind in ("neg", "pct", "deg"):
            value = self.value(tree[1])
            return -value if kind == "neg" else value / 100 if kind == "pct" else value * _MP.pi / 180
        left, right = self.value(tree[1]), self.value(tree[2])
        if kind == "add":
            return left + right
        if kind == "mul":
            return left * right
        if kind == "div":
            return left / right
        return self._power(left, right) if kind == "pow" else self._root(right, left)

    def _symbol(self, name: str) -> Number:
        if name not in CONSTANTS and name not in self._env:
            raise UndecidedError(f"{name} has no value")
        return +CONSTANTS[name] if name in CONSTANTS else self._env[name]

    def _power(self, base: Number, exponent: Number) -> Number:
        if not base:
            if _MP.re(exponent) > 0:
                return _MP.mpf(0)
            raise _UndefinedError("a power of zero")
        if abs(_MP.mag(base)) * abs(exponent) > _MAX_MAGNITUDE or abs(exponent) > 10**6:
            raise UndecidedError("the power is too large")
        if self._is_negative(base) and not _MP.isint(exponent) and self._env:
            raise _UndefinedError("a fractional power of a negative number")
        return base**exponent

    def _root(self, radicand: Number, degree: Number) -> Number:
        if self._is_negative(radicand) and _MP.isint(degree) and int(_MP.re(degree)) % 2:
            return -((-_MP.re(radicand)) ** (1 / degree))
        return self._power(radicand, 1 / degree) if radicand else _MP.mpf(0)

    @staticmethod
    def _is_negative(value: Number) -> bool:
        return not _MP.im(value) and _MP.re(value) < 0

    def _function(self, name: str, arguments: list) -> Number:
        first = arguments[0]
        if name == "log":
            if not first or (self._is_negative(first) and self._env):
                raise _UndefinedError("a logarithm of no positive number")
            return _MP.log(first) / _MP.log(arguments[1])
        if name == "exp":
            return self._power(_MP.e, first)
        if name in ("factorial", "binom"):
            if any(_MP.im(value) or not 0 <= _MP.re(value) <= MAX_FACTORIAL for value in arguments):
                raise (_UndefinedError if self._env else UndecidedError)(f"{name} out of bounds")
            return _MP.factorial(first) if name == "factorial" else _MP.binomial(*arguments)
        if name in ("arcsin", "arccos") and self._env and abs(first) > 1:
            raise _UndefinedError(f"{name} beyond 1")
        if name not in _FUNCTIONS:
            raise UndecidedError(f"{name} has no value here")
        return _FUNCTIONS[name](first)
