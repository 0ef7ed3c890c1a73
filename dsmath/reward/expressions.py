"""Expressions as trees, read from LaTeX or plain text by a recursive-descent parser: no model text is ever evaluated.

A tree is a tuple whose first member names the node: ("num", Fraction), ("sym", name), ("add", left, right),
("mul", left, right), ("div", left, right), ("pow", base, exponent), ("root", degree, radicand), ("neg", x),
("fn", name, argument…), ("pct", x) and ("deg", x).
"""

from fractions import Fraction

from dsmath.reward.tokens import FUNCTIONS, UnreadableError, tokenize

Tree = tuple

MAX_LENGTH = 2000  # characters
_MAX_DEPTH = 40  # of brackets
_MAX_DECIMAL_EXPONENT = 4000  # 1e9999999 is a word of ten characters and a number of ten million

_PLAIN = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "inf": "infty",
    "infinity": "infty",
    "Infinity": "infty",
}
_CONSTANTS = {"pi": "π", "infty": "∞", "mathrm{e}": "e"}
_LETTERS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell"
)
_GREEK = frozenset(_LETTERS.split())
_RADICALS = {"radical": 2, "cuberoot": 3, "fourthroot": 4}  # √, ∛ and ∜, which take what follows
_DECORATIONS = frozenset(("dot", "ddot", "hat", "bar", "overline", "tilde", "widehat", "overrightarrow"))


def parse_expression(text: str) -> Tree:
    """Parses one expression.

    Args:
      text: cleaned text (`dsmath.reward.notation.clean`).
    Raises:
      UnreadableError: it is not in the grammar, or too long or too deep for it.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError("too long")
    parser = _Parser(tokenize(text))
    tree = parser.sum()
    if parser.kind() is not None:
        raise UnreadableError(f"{parser.value()!r} after the end")
    return tree


class _Parser:
    def __init__(self, tokens: list[tuple[str, str, bool]]):
        self._tokens, self._at, self._depth = tokens, 0, 0
        self._bars = 0  # absolute values that are open

    def kind(self) -> str | None:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else None

    def value(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _take(self, *values: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at][1] in values:
            self._at += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._take(value):
            raise UnreadableError(f"{value!r} is missing")

    def sum(self) -> Tree:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableError("too deep")
        tree = self._product()
        while self.value() in ("+", "-"):
            minus = self._take("-") or not self._take("+")
            right = self._product()
            tree = ("add", tree, ("neg", right) if minus else right)
        self._depth -= 1
        return tree

    def _product(self) -> Tree:
        tree = self._signed()
        while True:
            if self._take("*"):
                tree = ("mul", tree, self._signed())
            elif self._take("/"):
                tree = ("div", tree, self._signed())
            elif self._starts_factor():
                if self.kind() == "num":
                    raise UnreadableError("a number follows a factor")
                tree = ("mul", tree, self._power())
            else:
                return tree

    def _signed(self) -> Tree:
        minus = False
        while self.value() in ("+", "-"):
            minus ^= self.value() == "-"
            self._at += 1
        tree = self._power()
        return ("neg", tree) if minus else tree

    def _starts_factor(self) -> bool:
        kind, value = self.kind(), self.value()
        if kind in ("num", "sym", "name"):
            return True
        if kind == "cmd":
            return value not in ("\\}", "\\rfloor", "\\rceil", "\\degree", "\\text", "\\cup")
        return value in ("(", "[", "{") or (value == "|" and not self._bars)

    def _power(self) -> Tree:
        tree = self._postfix(self._primary())
        if self._take("^"):
            tree = self._postfix(("pow", tree, self._exponent()))
        return tree

    def _exponent(self) -> Tree:
        if self.value() in ("+", "-"):
            minus = self.value() == "-"
            self._at += 1
            tree = self._exponent()
            return ("neg", tree) if minus else tree
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableError("too deep")
        tree = self._power() if self.kind() != "num" else self._number_power()
        self._depth -= 1
        return tree

    def _number_power(self) -> Tree:
        tree = self._number()
        if self._take("^"):
            tree = ("pow", tree, self._exponent())
        return tree

    def _postfix(self, tree: Tree) -> Tree:
        while True:
            if self._take("!"):
                tree = ("fn", "factorial", tree)
            elif self._take("%"):
                tree = ("pct", tree)
            elif self._take("\\degree"):
                tree = ("deg", tree)
            elif self.value() == "'" and tree[0] == "sym":
                self._at += 1
                tree = ("sym", tree[1] + "'")
            elif self.value() == "_" and tree[0] in ("sym", "num"):
                self._at += 1
                tree = self._subscript(tree)
            else:
                return tree

    def _subscript(self, tree: Tree) -> Tree:
        name = self._raw_argument()
        if tree[0] == "sym":
            return ("sym", f"{tree[1]}_{name}")
        if not name.isdigit() or not 2 <= int(name) <= 36 or tree[1] < 0:
            raise UnreadableError(f"{name!r} is no base")
        return ("fn", "base", tree, ("num", Fraction(int(name))))

    def _raw_argument(self) -> str:
        """The text of a subscript."""
        if not self._take("{"):
            self._at += 1
            if self._at > len(self._tokens):
                raise UnreadableError("nothing after a command")
            return self._tokens[self._at - 1][1]
        start, depth = self._at, 1
        while depth:
            if self.value() is None:
                raise UnreadableError("'}' is missing")
            depth += {"{": 1, "}": -1}.get(self.value(), 0)
            self._at += 1
        return "".join(token[1] for token in self._tokens[start : self._at - 1])

    def _number(self) -> Tree:
        text = self.value()
        self._at += 1
        mantissa, _, exponent = text.lower().partition("e")
        if exponent and abs(int(exponent)) > _MAX_DECIMAL_EXPONENT:
            raise UnreadableError("the exponent is out of bounds")
        return ("num", Fraction(mantissa.rstrip(".") or "0") * (Fraction(10) ** int(exponent) if exponent else 1))

    def _primary(self) -> Tree:
        kind, value = self.kind(), self.value()
        if kind == "num":
            return self._mixed(self._number())
        if kind is None:
            raise UnreadableError("an operand is missing")
        self._at += 1
        if kind == "sym":
            return ("sym", value + "(0)") if self._take_zero() else ("sym", value)
        if kind == "name":
            return self._named(_PLAIN.get(value, value))
        if kind == "cmd":
            return self._command(value)
        if value in ("(", "[", "{"):
            tree = self.sum()
            self._expect({"(": ")", "[": "]", "{": "}"}[value])
            return tree
        if value == "|":
            self._bars += 1
            tree = self.sum()
            self._expect("|")
            self._bars -= 1
            return ("fn", "abs", tree)
        raise UnreadableError(f"{value!r} is no operand")

    def _take_zero(self) -> bool:
        """Takes (0), for I(0) is a value of a function and no product."""
        found = [token[1] for token in self._tokens[self._at : self._at + 3]] == ["(", "0", ")"]
        self._at += 3 if found else 0
        return found

    def _mixed(self, whole: Tree) -> Tree:
        """4\\frac{1}{2} and 4 1/2 are sums; 4\\frac{x}{2} and 4\\frac{5}{2} are products."""
        if whole[1].denominator != 1:
            return whole
        mark = self._at
        if self._take("\\frac"):
            tree = ("div", self._argument(), self._argument())
            if _is_proper(tree) and self.value() not in ("^", "!"):
                return ("add", whole, tree)
            self._at = mark
        elif self.kind() == "num" and self._tokens[self._at][2]:
            numerator = self._number()
            if self._take("/") and self.kind() == "num":
                tree = ("div", numerator, self._number())
                if _is_proper(tree):
                    return ("add", whole, tree)
            raise UnreadableError("two numbers stand side by side")
        return whole

    def _argument(self) -> Tree:
        """A command's argument: a group in braces, or one token, of which a number gives its first digit."""
        if self._take("{"):
            tree = self.sum()
            self._expect("}")
            return tree
        if self.kind() == "num":
            text = self.value()
            if text.isdigit() and len(text) > 1:
                self._tokens[self._at] = ("num", text[1:], False)
                return ("num", Fraction(int(text[0])))
            return self._number()
        if self.value() in ("+", "-", "^", "_", "/", "*"):
            raise UnreadableError(f"{self.value()!r} is no argument")
        return self._primary()

    def _command(self, command: str) -> Tree:
        name = command[1:]
        if name == "frac":
            return ("div", self._argument(), self._argument())
        if name == "sqrt":
            degree = ("num", Fraction(2))
            if self._take("["):
                degree = self.sum()
                self._expect("]")
            # LaTeX takes one digit of \\sqrt13, whoever writes it means all.
            return ("root", degree, self._number() if self.kind() == "num" else self._argument())
        if name in _RADICALS:
            return ("root", ("num", Fraction(_RADICALS[name])), self._primary())
        if name == "binom":
            return ("fn", "binom", self._argument(), self._argument())
        if name in ("lfloor", "lceil"):
            tree = self.sum()
            self._expect("\\r" + name[1:])
            return ("fn", name[1:], tree)
        if name in _DECORATIONS:
            digits = self._raw_argument()
            return ("sym", f"{name} {digits}")
        if name in FUNCTIONS or name in ("pi", "infty"):
            return self._named(name)
        if name in _GREEK:
            return ("sym", name)
        raise UnreadableError(f"{command} is not in the grammar")

    def _named(self, name: str) -> Tree:
        if name in _CONSTANTS:
            return ("sym", _CONSTANTS[name])
        if name == "sqrt":
            if self.kind() == "num":
                return ("root", ("num", Fraction(2)), self._number())
            return ("root", ("num", Fraction(2)), self._primary())
        base, power = None, None
        if self._take("_"):
            base = self._argument()
        if self._take("^"):
            power = self._argument() if self.value() == "{" else self._exponent()
        argument = self._applied(name)
        if power == ("neg", ("num", Fraction(1))) and name in ("sin", "cos", "tan"):
            return ("fn", "arc" + name, *argument)
        if name == "lg":
            name, base = "log", ("num", Fraction(10))
        if name == "log":
            argument = (*argument, base or ("sym", "e"))
        elif base is not None:
            raise UnreadableError(f"{name} with a base")
        tree = ("fn", "log", *argument, ("sym", "e")) if name == "ln" else ("fn", name, *argument)
        return tree if power is None else ("pow", tree, power)

    def _applied(self, name: str) -> tuple[Tree, ...]:
        """What a function is applied to: a bracket, or the factors up to the next sign or function."""
        if self._take("("):
            arguments = [self.sum()]
            while name in ("max", "min", "gcd", "lcm", "log") and self._take(","):
                arguments.append(self.sum())
            self._expect(")")
            if len(arguments) > (1 if name == "log" else 4):
                raise UnreadableError(f"{name} of several arguments")
            return tuple(arguments)
        if self.kind() == "name" or (
            self.kind() == "cmd" and self.value()[1:] in FUNCTIONS and self.value() != "\\sqrt"
        ):
            return (self._power(),)
        tree = self._signed() if self.value() == "-" else self._power()
        while self._starts_factor() and self.kind() in ("sym", "cmd") and self.value()[1:] not in FUNCTIONS:
            tree = ("mul", tree, self._power())
        return (tree,)


def _is_proper(tree: Tree) -> bool:
    """Whether a division is of two whole numbers, the smaller above."""
    _, top, bottom = tree
    return top[0] == bottom[0] == "num" and top[1].denominator == bottom[1].denominator == 1 and 0 < top[1] < bottom[1]
