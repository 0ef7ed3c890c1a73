"""Reading of answers.

`read` gives all sensible readings of a text, for a notation has several: "(2,5)" is a point or an open interval,
"1,234" a number or two. Two answers agree where one reading of each does (`dsmath.reward.answers`).
"""

import functools
import re

from dsmath.reward.brackets import CLOSE, OPEN, is_one_bracket, split, split_pattern, top_level
from dsmath.reward.expressions import FUNCTIONS, Tree, UnreadableError, parse_expression
from dsmath.reward.matrices import determinant, find_matrix, rows_in_brackets, rows_of, scaled, unwrap_call
from dsmath.reward.notation import clean
from dsmath.reward.units import split_compound, split_unit
from dsmath.reward.values import (
    EMPTY,
    REALS,
    Assignment,
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
from dsmath.reward.wording import read_choices, read_clock, words

_MAX_NESTING = 6
_RELATION = re.compile(
    r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|\\approx(?![A-Za-z])|\\equiv(?![A-Za-z])|[=<>]"
)
_OR = re.compile(r"\\text\{\s*,?\s*(?:or|and)\s*\}|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])")
_CUP = re.compile(r"\\cup(?![A-Za-z])|(?<=[)\]}])\s*U\s*(?=[(\[\\])")
_CAP = re.compile(r"\\cap(?![A-Za-z])")
_MINUS = re.compile(r"\\(?:setminus|backslash)(?![A-Za-z])|(?<=[RZ}])\s*-\s*(?=\\\{)")
_IN = re.compile(r"\\in(?![A-Za-z])|(?<=[a-z])\s+in\s+(?=[(\[\\])")
_EMPTY = re.compile(
    r"\\emptyset|\\\{\s*\\\}|(?:there(?:is|are))?no(?:real|integer)?(?:solutions?|roots?|values?)(?:exists?)?|none"
    r"|emptyset|doesnotexist|dne|无解|空集|无实数解|不存在"
)
_REALS = re.compile(
    r"\\mathbb\s*\{?\s*R\s*\}?|\\Re|(?:\\text\{)?\s*(?:all )?real numbers?\s*\}?|实数集|全体实数|一切实数"
)
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:(?:,\s?\d{3})+|(?: \d{3})+))(?![\d,])")
_GROUP_OF_ZERO = re.compile(r"\d,\s?0\d\d(?!\d)")
_COMBINATIONS = re.compile(r"C\s*_\s*\{?(\d+)\}?\s*\^\s*\{?(\d+)\}?|(?<![A-Za-z\\])C\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_NAME = re.compile(  # what stands before "=" and names a value: y, f(x), AB, x_1, S_{ABC}, |AB|, f(2), \angle A
    r"(?:\\text\{[^{}]*\}|\\?[A-Za-z]+(?:_\{?\w+\}?)?'*)(?:\s*\([a-z,\s]+\))?"
)
_QUANTITY = re.compile(
    r"\\(?:angle|triangle|measuredangle|overline|overrightarrow)\s*\{?\s*[A-Za-z]+\}?|\|\s*\{?[A-Z]{2,}\}?\s*\|"
    r"|[A-Za-z]\s*\(\s*-?\d+(?:\.\d+)?\s*\)|[A-Za-z]+_\{[^{}]*\}|[A-Za-z]\s*\([A-Z]{1,2}\)"
)
_SHORT_WORDS = frozenset(  # that are no products of symbols alone
    "yes no odd mon tue wed thu fri sat sun jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
)
_LABEL = re.compile(r"\s*[A-Za-z]+(?:\s+[A-Za-z]+){0,5}\s*")
_ACRONYM = re.compile(r"\s*[A-Z]{2,}\s*")
_NAMES_OF_FUNCTIONS = "|".join(sorted(FUNCTIONS - {"lg"}, key=len, reverse=True))
_FUNCTIONS_OF_SYMBOLS = re.compile(rf"(?:lg[a-z]?)?(?:[a-z]?(?:{_NAMES_OF_FUNCTIONS})[a-z]?)*(?:pi|inf)?")
_SYMBOL_TUPLE = re.compile(r"\(\s*[A-Za-z](?:_\{?\w\}?)?(?:\s*,\s*[A-Za-z](?:_\{?\w\}?)?)+\s*\)")


@functools.lru_cache(maxsize=16384)
def read(text: str) -> tuple[Value, ...]:
    """All readings of an answer, the likeliest first; words where it is nothing else."""
    cleaned = clean(text)
    if cleaned == "oo":  # `clean` leaves letters alone as they are, and the paper's grader has it so
        cleaned = "\\infty"
    readings: list[Value] = [reading for reading in (read_choices(cleaned), read_clock(cleaned)) if reading]
    if cleaned == "R":
        readings.append(REALS)
    without = _THOUSANDS.sub(lambda found: re.sub(r"[,\s]", "", found[1]), cleaned)
    combined = _COMBINATIONS.sub(lambda found: f"\\binom{{{found[1] or found[3]}}}{{{found[2] or found[4]}}}", cleaned)
    first = without if not re.match(r"\s*(?:\\?[{(\[])", cleaned) else cleaned
    for spelling in dict.fromkeys((first, cleaned, combined)):
        if spelling != first and _GROUP_OF_ZERO.search(spelling):
            continue  # no list holds 000
        try:
            value = _read(spelling, 0)
        except UnreadableError:
            continue
        if value not in readings:
            readings.append(value)
    if not readings or cleaned.casefold() in _SHORT_WORDS:
        readings.append(Words(words(cleaned)))
    return tuple(readings)


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
    if _REALS.fullmatch(text):
        return REALS
    text = re.sub(r"^\\text\{[^{}]*\}\s*(?=[-\d\\(\[])|^(?:=|\\approx)\s*", "", text)
    blanks = split(text, ";")
    if len(blanks) > 1:
        return Sequence("", ";", tuple(_read(part, nesting + 1) for part in blanks if part.strip()))
    alternatives = split_pattern(text, _OR)
    if len(alternatives) > 1:
        return _read_alternatives(alternatives, "or" not in _OR.search(text)[0], nesting)
    text = unwrap_call(text)
    found = find_matrix(text)
    if found:
        return _read_matrix(*found, nesting)
    return _read_joined(text, nesting)


def _read_alternatives(parts: list[str], all_hold: bool, nesting: int) -> Value:
    """Parts between "or" or "and": a union of sets, else a list; each part may be a list itself."""
    members = [
        _read(piece, nesting + 1) for part in parts for piece in split(part.strip(" ,"), ",") if piece.strip(" ,")
    ]
    if any(isinstance(member, Relation) and "=" not in member.operators for member in members):
        return Union(tuple(members), all_hold)
    return _row(members)


def _row(members: list[Value]) -> Sequence:
    """Members in a row; a row within it, such as that of ±2, gives its own."""
    flat: list[Value] = []
    for member in members:
        is_row = isinstance(member, Sequence) and member.opening == member.closing == ""
        flat += member.members if is_row else [member]
    return Sequence("", "", tuple(flat))


def _read_matrix(factor: str, kind: str, body: str, nesting: int) -> Value:
    if kind == "cases":
        return _row([_read(row, nesting + 1) for row in rows_of(body)])
    cells = tuple(tuple(_read(cell, nesting + 1) for cell in row.split("&")) for row in rows_of(body))
    if not cells or len({len(row) for row in cells}) != 1:
        raise UnreadableError("no rows of one length")
    if kind == "determinant":
        return Expression(determinant(cells))
    return scaled(parse_expression(factor), Matrix(cells)) if factor else Matrix(cells)


def _read_joined(text: str, nesting: int) -> Value:
    """A union, a membership, a list, a relation, a bracket or an expression."""
    named = re.fullmatch(r"([A-Za-z](?:_\w)?)\s*=([^=<>]*\\cup.*)", text, re.S)
    if named:
        return Assignment(named[1], _read(named[2], nesting + 1))
    for pattern, all_hold in ((_CUP, False), (_CAP, True)):
        parts = split_pattern(text, pattern)
        if len(parts) > 1:
            return Union(tuple(_read(part, nesting + 1) for part in parts), all_hold)
    parts = split_pattern(text, _MINUS)
    if len(parts) == 2:
        return _without(_read(parts[0], nesting + 1), _read(parts[1], nesting + 1))
    parts = split_pattern(text, _IN)
    if len(parts) == 2 and re.fullmatch(r"\s*[A-Za-z](?:\([a-z]\))?\s*|\s*\\[a-z]+\s*", parts[0]):
        return _read(parts[1], nesting + 1)
    parts = split(text, ",")
    if len(parts) > 1:
        return _row([_read(part, nesting + 1) for part in parts])
    relation = _read_relation(text, nesting)
    if relation is not None:
        return relation
    bracket = _read_bracket(text, nesting)
    if bracket is not None:
        return bracket
    if "\\pm" in text or "\\mp" in text:
        return _both_signs(text, nesting)
    parts = split(text, ":")
    if len(parts) > 1:
        return _read_ratio(parts, nesting)
    return _read_expression(text)


def _read_ratio(parts: list[str], nesting: int) -> Value:
    """3:4, a:b:c; or, behind words, the value that they name: "Total: 72"."""
    if _LABEL.fullmatch(parts[0]) and _holds_words(parts[0]):
        value = ":".join(parts[1:]).strip()
        return Assignment(parts[0].strip(), read_clock(value) or _read(value, nesting + 1))
    if any("\\text" in part or _holds_words(part) for part in parts):
        raise UnreadableError("words")
    return Ratio(tuple(parse_expression(part) for part in parts))


def _both_signs(text: str, nesting: int) -> Sequence:
    plus = text.replace("\\pm", "+").replace("\\mp", "-")
    minus = text.replace("\\pm", "-").replace("\\mp", "+")
    return Sequence("", "", (_read(plus, nesting + 1), _read(minus, nesting + 1)))


def _without(whole: Value, removed: Value) -> Union:
    """A set of numbers without a finite set."""
    if not isinstance(removed, Finite) or not all(isinstance(member, Expression) for member in removed.members):
        raise UnreadableError("no finite set to remove")
    gaps = (Relation(("\\ne",), (("sym", "x"), member.tree)) for member in removed.members)
    return Union((whole, *gaps), all_hold=True)


def _read_relation(text: str, nesting: int) -> Value | None:
    parts = split_pattern(text, _RELATION)
    if len(parts) == 1:
        return None
    operators = [found[0] for found in top_level(text, _RELATION)]
    operators = ["=" if operator in ("\\approx", "\\equiv") else operator for operator in operators]
    left = parts[0].strip()
    if set(operators) == {"="}:
        if "\\pm" in text or "\\mp" in text:
            return _both_signs(text, nesting)
        if _SYMBOL_TUPLE.fullmatch(left):
            return _read(parts[-1], nesting + 1)
        if _QUANTITY.fullmatch(left) and not _NAME.fullmatch(left):
            return Assignment(left, _read(parts[-1], nesting + 1))
        if _NAME.fullmatch(left) and not _ACRONYM.fullmatch(parts[-1]):
            value = _read_named(left, parts[-1], nesting)
            if value is not None:
                return value
        if len(parts) == 2 and re.fullmatch(r"f\s*\(\s*x\s*\)", left):
            parts[0] = "y"
    elif not left:  # "> 5", from 大于5
        parts[0] = "x"
    return Relation(tuple(operators), tuple(_read_side(part) for part in parts))


def _read_named(left: str, right: str, nesting: int) -> Assignment | None:
    """A name and a value that is no plain expression, or any value of a long name."""
    try:
        value = _read(right, nesting + 1)
    except UnreadableError:
        return None
    is_long = "text" in left or re.match(r"[A-Za-z]{4}|[A-Z]{2}", left)
    return Assignment(left, value) if not isinstance(value, Expression) or value.alternatives or is_long else None


def _read_side(text: str) -> Tree:
    return ("sym", text.strip()) if _ACRONYM.fullmatch(text) else _read_expression(text).tree


def _read_bracket(text: str, nesting: int) -> Value | None:
    """A set in braces, or a tuple, interval or matrix in brackets; None for a bracket that only groups."""
    if text.startswith("\\{") and text.endswith("\\}"):
        return _read_set(text[2:-2], nesting)
    if len(text) < 2 or text[0] not in OPEN or text[-1] not in CLOSE or not is_one_bracket(text):
        return None
    if text[0] == "{" and re.match(r"\{\s*[a-zA-Z]\s*(?:\\mid|\||:)", text):
        return _read_set(text[1:-1], nesting)
    rows = rows_in_brackets(text)
    if rows:
        return Matrix(tuple(tuple(_read(cell, nesting + 1) for cell in row) for row in rows))
    parts = split(text[1:-1], ",")
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


def _read_set(inner: str, nesting: int) -> Value:
    """A set by its members, or by a condition."""
    builder = re.fullmatch(r"\s*[a-zA-Z]\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|R))?\s*(?:\\mid|\||:)\s*(.*)", inner, re.S)
    if builder:
        return _read(builder[1], nesting + 1)
    return Finite(_row([_read(part, nesting + 1) for part in split(inner, ",")]).members)


def _read_expression(text: str) -> Expression:
    """An expression with or without a unit.

    Raises:
      UnreadableError: words, or not in the grammar.
    """
    stripped, unit = split_unit(text.strip())
    if "\\text" in stripped or _holds_words(stripped):
        raise UnreadableError("words")
    bare = None if unit else split_compound(stripped)
    try:
        tree = parse_expression(stripped)
    except UnreadableError:
        if bare is None:
            raise
        return Expression(parse_expression(bare))
    alternatives: tuple[Tree, ...] = ()
    if tree[0] in ("deg", "pct"):
        alternatives = (tree[1],)
    elif tree[0] == "neg" and tree[1][0] in ("deg", "pct"):
        alternatives = (("neg", tree[1][1]),)
    elif bare is not None:
        try:
            alternatives = (parse_expression(bare),)
        except UnreadableError:
            alternatives = ()
    return Expression(tree, alternatives, unit)


def _holds_words(text: str) -> bool:
    """Whether four letters or more stand together that are no functions of a symbol, such as sinx and xlnx."""
    runs = re.findall(r"[A-Za-z]{4,}", re.sub(r"\\[A-Za-z]+|infinity|_\{[^{}]*\}", " ", text))
    return not all(_FUNCTIONS_OF_SYMBOLS.fullmatch(run) for run in runs)
