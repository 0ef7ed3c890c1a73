"""What an answer is: an expression, a list, a set, a tuple, an interval, a matrix, a relation, letters or words.

`read` gives all sensible readings of a text, for a notation has several: "(2,5)" is a point or an open interval,
"1,234" a number or two. Two answers agree where one reading of each does (`dsmath.reward.answers`).
"""

import dataclasses
import functools
import re

from dsmath.reward.expressions import FUNCTIONS, Tree, UnreadableError, parse_expression
from dsmath.reward.notation import clean
from dsmath.reward.units import split_unit

_MAX_NESTING = 6
_RELATION = re.compile(
    r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|\\approx(?![A-Za-z])|\\equiv(?![A-Za-z])|[=<>]"
)
_OR = re.compile(r"\\text\{\s*,?\s*(?:or|and)\s*\}|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.S)
_OPEN, _CLOSE = "([{", ")]}"
_EMPTY = re.compile(
    r"\\emptyset|\\\{\s*\\\}|(?:there(?:is|are))?no(?:real|integer)?(?:solutions?|roots?|values?)|none|emptyset|"
    r"无解|空集|无实数解|不存在"
)
_TRUE_WORDS = {"yes": "true", "no": "false", "对": "true", "错": "false", "正确": "true", "错误": "false"}


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
    """Parts joined by ∪ or "or"; `all_hold` where "and" joins them."""

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
    """a:b or a:b:c; `is_time` where it may be a time of day, such as 6:10."""

    members: tuple[Tree, ...]
    is_time: bool = False


@dataclasses.dataclass(frozen=True)
class Choices:
    """Letters or circled numbers of a multiple-choice question."""

    letters: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Words:
    text: str


Value = Expression | Sequence | Finite | Union | Matrix | Relation | Assignment | Ratio | Choices | Words
REALS = Sequence("(", ")", (Expression(("neg", ("sym", "∞"))), Expression(("sym", "∞"))))
EMPTY = Finite(())


@functools.lru_cache(maxsize=16384)
def read(text: str) -> tuple[Value, ...]:
    """All readings of an answer, the likeliest first; words where it is nothing else."""
    cleaned = clean(text)
    readings: list[Value] = []
    choices = _read_choices(cleaned)
    if choices:
        readings.append(choices)
    without = re.sub(
        r"(?<![\d.,])(\d{1,3}(?:(?:,\s?\d{3})+|(?: \d{3})+))(?![\d,])",
        lambda found: re.sub(r"[,\s]", "", found[1]),
        cleaned,
    )
    for spelling in dict.fromkeys((without if not re.match(r"\s*(?:\\?[{(\[])", cleaned) else cleaned, cleaned)):
        # "1, 234" with a space is a list first; "12,345" a number first.
        try:
            value = _read(spelling, 0)
        except UnreadableError:
            continue
        if value not in readings:
            readings.append(value)
    return tuple(readings) or (Words(words(cleaned)),)


def words(cleaned: str) -> str:
    """Words without markup, case and punctuation."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", cleaned)
    if "\\" not in text:  # \\frac{1}{23 is not \\frac{12}{3}
        text = re.sub(r"[{}]", " ", text)
    text = re.sub(r"^(?:the|a|an)\s", "", re.sub(r"[\s.,;:!?\"'`*$]+", " ", text).strip().lower())
    return _TRUE_WORDS.get(text, text).replace(" ", "")


def _read_choices(cleaned: str) -> Choices | None:
    text = re.sub(r"\\text\s*\{([^{}]*)\}|[{}]", r"\1", cleaned) if "circled" not in cleaned else cleaned
    circled = re.findall(r"\\circled\{(\d+)\}", text)
    if circled and not re.sub(r"\\circled\{\d+\}|[\s,;{}]|\\text", "", text):
        return Choices(frozenset(circled))
    text = re.sub(r"^\s*(?:选项?|答案|[Oo]ptions?|[Cc]hoices?|[Aa]nswers?)\s*:?\s*", "", text)
    text = text.strip()
    listed = re.sub(r"\s(?:and|or)\s|[\s,;&]", "", text[:80]).rstrip(".")
    if not re.fullmatch(r"(?:\([A-J]\)|[A-J]\)?)+", listed) or len(text) > 80:
        found = re.fullmatch(r"\(([A-J])\)\s*:?\s*\S.{0,200}|([A-J])[.):]\s+\S.{0,200}", text)
        return Choices(frozenset(found[1] or found[2])) if found else None
    letters = re.findall(r"[A-J]", listed)
    return Choices(frozenset(letters)) if len(set(letters)) == len(letters) else None


def _read(text: str, nesting: int) -> Value:
    """One reading of cleaned text.

    Raises:
      UnreadableError: it is not in the grammar.
    """
    text = text.strip()
    if nesting > _MAX_NESTING or not text:
        raise UnreadableError("nothing, or too deep")
    if _EMPTY.fullmatch(text) or _EMPTY.fullmatch(words(text)):
        return EMPTY
    if re.fullmatch(r"\\mathbb\s*\{?\s*R\s*\}?|\\Re|(?:\\text\{)?all real numbers\}?|实数集|全体实数", text):
        return REALS
    text = re.sub(r"^\\text\{[^{}]*\}\s*(?=[-\d\\(\[])|^(?:=|\\approx)\s*", "", text)
    blanks = _split(text, ";")
    if len(blanks) > 1:
        return Sequence("", ";", tuple(_read(part, nesting + 1) for part in blanks if part.strip()))
    alternatives = _split_pattern(text, _OR)
    if len(alternatives) > 1:
        return _read_alternatives(alternatives, "or" not in _OR.search(text)[0], nesting)
    found = _MATRIX.fullmatch(text)
    if found and "\\begin" not in found[2]:
        return _read_matrix(found[2], nesting)
    return _read_joined(text, nesting)


def _read_alternatives(parts: list[str], all_hold: bool, nesting: int) -> Value:
    """Parts between "or" or "and": a union of sets, else a list; each part may be a list itself."""
    members = [
        _read(piece, nesting + 1) for part in parts for piece in _split(part.strip(" ,"), ",") if piece.strip(" ,")
    ]
    if any(isinstance(member, Relation) and "=" not in member.operators for member in members):
        return Union(tuple(members), all_hold)
    return Sequence("", "", tuple(members))


def _read_matrix(body: str, nesting: int) -> Matrix:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", re.sub(r"\\hline", "", body)) if row.strip()]
    cells = tuple(tuple(_read(cell, nesting + 1) for cell in row.split("&")) for row in rows)
    if not cells or len({len(row) for row in cells}) != 1:
        raise UnreadableError("no rows of one length")
    return Matrix(cells)


def _read_joined(text: str, nesting: int) -> Value:
    """A union, a membership, a list, a relation, a bracket or an expression."""
    named = re.fullmatch(r"([A-Za-z](?:_\w)?)\s*=([^=<>]*\\cup.*)", text, re.S)
    if named:
        return Assignment(named[1], _read(named[2], nesting + 1))
    parts = _split_pattern(text, re.compile(r"\\cup(?![A-Za-z])|(?<=[)\]}])\s*U\s*(?=[(\[\\])"))
    if len(parts) > 1:
        return Union(tuple(_read(part, nesting + 1) for part in parts))
    parts = _split_pattern(text, re.compile(r"\\in(?![A-Za-z])|(?<=[a-z])\s+in\s+(?=[(\[\\])"))
    if len(parts) == 2 and re.fullmatch(r"\s*[A-Za-z](?:\([a-z]\))?\s*|\s*\\[a-z]+\s*", parts[0]):
        return _read(parts[1], nesting + 1)
    parts = _split(text, ",")
    if len(parts) > 1:
        return Sequence("", "", tuple(_read(part, nesting + 1) for part in parts))
    relation = _read_relation(text, nesting)
    if relation is not None:
        return relation
    bracket = _read_bracket(text, nesting)
    if bracket is not None:
        return bracket
    if "\\pm" in text or "\\mp" in text:
        plus = text.replace("\\pm", "+").replace("\\mp", "-")
        minus = text.replace("\\pm", "-").replace("\\mp", "+")
        return Sequence("", "", (_read(plus, nesting + 1), _read(minus, nesting + 1)))
    parts = _split(text, ":")
    if len(parts) > 1:
        is_time = bool(re.fullmatch(r"\d{1,2}\s*(?::\s*[0-5]\d\s*){1,2}", text))
        return Ratio(tuple(parse_expression(part) for part in parts), is_time)
    return _read_expression(text)


def _read_relation(text: str, nesting: int) -> Value | None:
    parts = _split_pattern(text, _RELATION)
    if len(parts) == 1:
        return None
    operators = [found[0] for found in _top_level(text, _RELATION)]
    operators = ["=" if operator in ("\\approx", "\\equiv") else operator for operator in operators]
    left = parts[0].strip()
    if set(operators) == {"="} and re.fullmatch(
        r"(?:\\text\{[^{}]*\}|\\?[A-Za-z]+(?:_\{?\w+\}?)?'*)(?:\s*\([a-z,\s]+\))?", left
    ):
        try:
            value = _read(parts[-1], nesting + 1)
        except UnreadableError:
            value = None
        is_name = "text" in left or re.match(r"[A-Za-z]{4}|[A-Z]{2}", left)
        if value is not None and (not isinstance(value, Expression) or value.alternatives or is_name):
            return Assignment(left, value)
    if "\\pm" in text and set(operators) == {"="}:
        plus, minus = text.replace("\\pm", "+"), text.replace("\\pm", "-")
        return Sequence("", "", (_read(plus, nesting + 1), _read(minus, nesting + 1)))
    return Relation(tuple(operators), tuple(_read_expression(part).tree for part in parts))


def _read_bracket(text: str, nesting: int) -> Value | None:
    """A set in braces, or a tuple, interval or matrix in brackets; None for a bracket that only groups."""
    if text.startswith("\\{") and text.endswith("\\}"):
        inner = text[2:-2]
        builder = re.fullmatch(r"\s*[a-zA-Z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\\mid|\||:)\s*(.*)", inner, re.S)
        if builder:
            return _read(builder[1], nesting + 1)
        return Finite(tuple(_read(part, nesting + 1) for part in _split(inner, ",")))
    if len(text) < 2 or text[0] not in _OPEN or text[-1] not in _CLOSE or not _is_one_bracket(text):
        return None
    parts = _split(text[1:-1], ",")
    if len(parts) == 1:
        inner = text[1:-1].strip()
        if text[0] in "({" and text[-1] in ")}":
            return _read(inner, nesting + 1)
        return None
    members = tuple(_read(part, nesting + 1) for part in parts)
    if text[0] == "{":
        return Finite(members)
    are_rows = all(isinstance(member, Sequence) and member.opening == "[" for member in members)
    if text[0] == "[" and are_rows and len({len(member.members) for member in members}) == 1:
        return Matrix(tuple(member.members for member in members))
    return Sequence(text[0], text[-1], members)


def _read_expression(text: str) -> Expression:
    """An expression with or without a unit.

    Raises:
      UnreadableError: words, or not in the grammar.
    """
    stripped, unit = split_unit(text.strip())
    if "\\text" in stripped or re.search(r"(?<![\\A-Za-z])[A-Za-z]{4,}", _without_functions(stripped)):
        raise UnreadableError("words")
    tree = parse_expression(stripped)
    alternatives: tuple[Tree, ...] = ()
    if tree[0] in ("deg", "pct"):
        alternatives = (tree[1],)
    elif tree[0] == "neg" and tree[1][0] in ("deg", "pct"):
        alternatives = (("neg", tree[1][1]),)
    elif not unit:
        bare = re.sub(r"(?<=[\d)}])\s*(?:[mgshLNJWVAKC]|cm|mm|km|kg|ft|mL|ml)$", "", stripped)
        if bare != stripped:
            try:
                alternatives = (parse_expression(bare),)
            except UnreadableError:
                alternatives = ()
    return Expression(tree, alternatives, unit)


def _without_functions(text: str) -> str:
    return re.sub(
        r"\\[A-Za-z]+|" + "|".join(sorted(FUNCTIONS, key=len, reverse=True)) + r"|infinity|_\{[^{}]*\}", " ", text
    )


# ----------------------------------------------------------------------------------------- splitting outside brackets


def _top_level(text: str, pattern: re.Pattern) -> list[re.Match]:
    """The matches of a pattern that stand in no bracket."""
    spots = list(pattern.finditer(text))
    if not spots:
        return []
    kept, depth, bars = [], 0, 0
    waiting = iter(spots)
    spot = next(waiting, None)
    for token in re.finditer(r"\\begin|\\end|\\?[{(\[]|\\?[})\]]|\||$", text):
        while spot is not None and spot.start() < token.start():
            if depth == 0 and not bars:
                kept.append(spot)
            spot = next(waiting, None)
        mark = token[0]
        if mark == "|":
            bars ^= depth == 0
        elif mark in ("\\begin",) or mark[-1:] in ("{", "(", "["):
            depth += 1
        elif mark in ("\\end",) or mark[-1:] in ("}", ")", "]"):
            depth -= 1
    return kept


def _split_pattern(text: str, pattern: re.Pattern) -> list[str]:
    parts, start = [], 0
    for found in _top_level(text, pattern):
        parts.append(text[start : found.start()])
        start = found.end()
    return [*parts, text[start:]]


@functools.cache
def _separator(character: str) -> re.Pattern:
    return re.compile(re.escape(character))


def _split(text: str, character: str) -> list[str]:
    return _split_pattern(text, _separator(character)) if character in text else [text]


def _is_one_bracket(text: str) -> bool:
    """Whether the first bracket closes at the end; intervals mix the kinds of bracket."""
    depth = 0
    for index, char in enumerate(text):
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
            if depth == 0:
                return index == len(text) - 1
    return False
