"""Matrices in LaTeX and in the notations of programs."""

import itertools
import re

from dsmath.reward.brackets import split
from dsmath.reward.expressions import Tree, UnreadableError
from dsmath.reward.values import Expression, Matrix, Value

_MATRIX = re.compile(
    r"([^\[\](){}&|\\]*?|-?\\frac\{\d+\}\{\d+\})\s*([\[(|]|\\\{)?\s*"
    r"\\begin\{([pbvBV]?matrix|smallmatrix|array|cases|aligned)\}(?:\{[^{}]*\})?(.*)\\end\{\3\}\s*(?:\.|[\])|])?",
    re.S,
)
_CALL = re.compile(r"(?:Matrix|matrix|array)\s*\(\s*(\[.*\])\s*\)", re.S)
_MAX_DETERMINANT = 4  # rows; of five the terms are too many


def find_matrix(text: str) -> tuple[str, str, str] | None:
    """Finds a matrix that fills a text, perhaps with a factor before it.

    Returns:
      The factor ("" where there is none), the kind ("matrix", "determinant" or "cases") and the body; None where the
      text is no matrix.
    """
    found = _MATRIX.fullmatch(text)
    if not found or "\\begin" in found[4]:
        return None
    factor, bracket, name, body = (part or "" for part in found.groups())
    if "=" in factor:
        return None
    if name in ("cases", "aligned") or bracket == "\\{":
        body = re.sub(r"&\s*(?=[=<>\\])|(?<==)\s*&", "", body)
        return (factor, "cases", body) if "&" not in body else (factor, "matrix", body)
    is_determinant = name in ("vmatrix", "Vmatrix") or bracket == "|"
    return factor.strip().rstrip("*").strip(), "determinant" if is_determinant else "matrix", body


def rows_of(body: str) -> list[str]:
    """The rows of a LaTeX body."""
    body = re.sub(r"\\hline", "", body)
    return [row.strip(" ,") for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", body) if row.strip(" ,")]


def rows_in_brackets(text: str) -> list[list[str]] | None:
    """Cells of [1,2;3,4], [1 2; 3 4] and Matrix([[1, 2], [3, 4]]); None for other texts."""
    if text[0] != "[" or ";" not in text:
        return None
    rows = [
        [cell for cell in (split(row, ",") if "," in row else row.split()) if cell.strip()]
        for row in split(text[1:-1], ";")
        if row.strip()
    ]
    return rows if rows and len({len(row) for row in rows}) == 1 else None


def unwrap_call(text: str) -> str:
    """The list in Matrix([[1, 2], [3, 4]]), as programs print it; other texts as they are."""
    found = _CALL.fullmatch(text)
    return found[1] if found else text


def scaled(factor: Tree, matrix: Matrix) -> Matrix:
    """A matrix times a factor.

    Raises:
      UnreadableError: a cell is no expression.
    """
    return Matrix(tuple(tuple(Expression(("mul", factor, _tree(cell))) for cell in row) for row in matrix.rows))


def determinant(cells: tuple[tuple[Value, ...], ...]) -> Tree:
    """The determinant of a square of expressions, written out.

    Raises:
      UnreadableError: it is no square, too large, or a cell is no expression.
    """
    size = len(cells)
    if any(len(row) != size for row in cells) or size > _MAX_DETERMINANT:
        raise UnreadableError("no small square")
    total: Tree | None = None
    for order in itertools.permutations(range(size)):
        swaps = sum(a > b for a, b in itertools.combinations(order, 2))
        term: Tree = _tree(cells[0][order[0]])
        for row in range(1, size):
            term = ("mul", term, _tree(cells[row][order[row]]))
        term = ("neg", term) if swaps % 2 else term
        total = term if total is None else ("add", total, term)
    return total


def _tree(cell: Value) -> Tree:
    if not isinstance(cell, Expression):
        raise UnreadableError("a cell is no expression")
    return cell.tree
