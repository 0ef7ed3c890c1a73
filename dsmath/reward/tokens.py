"""The tokens of expressions in LaTeX or plain text."""

import re

_NAMES = (
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh ln log exp sqrt abs floor ceil "
    "lg max min gcd lcm"
)
FUNCTIONS = frozenset(_NAMES.split())
_TOKEN = re.compile(
    r"\s*(?:(?P<num>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)|(?P<cmd>\\[A-Za-z]+|\\[{}])"
    r"|(?P<name>(?:arc|a)?(?:sin|cos|tan)h?|(?:arc)?(?:cot|sec|csc)|ln|log|lg|exp|sqrt|abs|floor|ceil|max|min|gcd|lcm"
    r"|infinity|Infinity|inf|pi(?![a-z]))|(?P<sym>[A-Za-z])|(?P<op>[-+*/^_!|()\[\]{},%']))"
)


class UnreadableError(ValueError):
    """The text is no expression of this grammar."""


def tokenize(text: str) -> list[tuple[str, str, bool]]:
    """Tokens as (kind, text, whether space stands before).

    Raises:
      UnreadableError: a character is in no token.
    """
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise UnreadableError(f"{text[position]!r} is no part of an expression")
        kind = found.lastgroup
        tokens.append((kind, found[kind], text[position].isspace()))
        position = found.end()
    return tokens
