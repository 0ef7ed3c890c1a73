"""What an answer is: an expression, a list, a set, a tuple, an interval, a matrix, a relation, letters or words.

`dsmath.reward.reading` makes them from text; `dsmath.reward.agreement` compares them.
"""

import dataclasses

from dsmath.reward.expressions import Tree


@dataclasses.dataclass(frozen=True)
class Expression:
    """One expression; `alternatives` hold it without its degree sign, percent sign or unit."""

    tree: Tree
    alternatives: tuple[Tree, ...] = ()
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Sequence:
    """Members between brackets, or none ("") where they only stand in a row; ";" marks a row of filled blanks."""

    opening: str
    closing: str
    members: tuple["Value", ...]


@dataclasses.dataclass(frozen=True)
class Finite:
    """A finite set."""

    members: tuple["Value", ...]


@dataclasses.dataclass(frozen=True)
class Union:
    """Parts joined by ∪ or "or"; `all_hold` where ∩ or "and" joins them."""

    members: tuple["Value", ...]
    all_hold: bool = False


@dataclasses.dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple["Value", ...], ...]


@dataclasses.dataclass(frozen=True)
class Relation:
    """sides[0] operators[0] sides[1] …; operators are =, <, >, \\le, \\ge, \\ne."""

    operators: tuple[str, ...]
    sides: tuple[Tree, ...]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A name and its value, of any kind: S = [0, 1]."""

    name: str
    value: "Value"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """a:b or a:b:c."""

    members: tuple[Tree, ...]


@dataclasses.dataclass(frozen=True)
class Clock:
    """A time of day; `is_sure` where the half of the day is told."""

    seconds: int
    is_sure: bool


@dataclasses.dataclass(frozen=True)
class Choices:
    """Letters or circled numbers of a multiple-choice question."""

    letters: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Words:
    text: str


Value = Expression | Sequence | Finite | Union | Matrix | Relation | Assignment | Ratio | Clock | Choices | Words
REALS = Sequence("(", ")", (Expression(("neg", ("sym", "∞"))), Expression(("sym", "∞"))))
EMPTY = Finite(())
