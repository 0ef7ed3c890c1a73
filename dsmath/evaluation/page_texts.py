"""Untrusted texts as parts from which a page's script makes nodes: no text ever becomes markup."""

import re
from typing import Any
from xml.etree import ElementTree

from dsmath.runs.formulas import split

LONGEST = 6000  # characters of a text that are shown
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.S | re.M)
_LATEX = re.compile(r"\\[a-zA-Z]|[\^_]")


class Texts:
    """Cuts texts into parts that a page shows: plain text, code, and formulas, each formula kept once."""

    def __init__(self) -> None:
        self.formulas: list[list[Any]] = []  # [as it was written, tree]
        self._places: dict[str, int] = {}

    def cut(self, text: str, code: bool = False) -> list[Any]:
        """Parts of a text: strings, {"code": …, "language": …}, and numbers of formulas.

        Args:
          text: untrusted.
          code: the whole is code where it has no fences.
        """
        shown = text if len(text) <= LONGEST else text[:LONGEST] + f"\n… {len(text) - LONGEST:,} characters more"
        parts: list[Any] = []
        end = 0
        for match in _FENCE.finditer(shown):
            parts += self._cut_plain(shown[end : match.start()])
            parts.append({"code": match[2].rstrip("\n"), "language": match[1]})
            end = match.end()
        if not parts and code:
            return [{"code": shown.strip("\n"), "language": ""}]
        return parts + self._cut_plain(shown[end:])

    def cut_answer(self, answer: str) -> list[Any]:
        """Parts of a final answer, which is LaTeX without dollars where it looks so."""
        bare = "$" not in answer and "\\(" not in answer and _LATEX.search(answer)
        return self.cut(f"${answer}$") if bare and self._is_formula(f"${answer}$") else self.cut(answer)

    def _is_formula(self, text: str) -> bool:
        parts = list(split(text))
        return len(parts) == 1 and parts[0][1] is not None

    def _cut_plain(self, text: str) -> list[Any]:
        return [part if formula is None else self._place(part, formula) for part, formula in split(text)]

    def _place(self, source: str, formula: ElementTree.Element) -> int:
        if source not in self._places:
            self._places[source] = len(self.formulas)
            self.formulas.append([source, _to_tree(formula)])
        return self._places[source]


def _to_tree(node: ElementTree.Element) -> list[Any]:
    """MathML as lists: the element's name, its attributes, its children or its text."""
    return [node.tag, dict(node.attrib), *(map(_to_tree, node) if len(node) else [node.text or ""])]
