"""Texts of models and web pages for a page that people read: escaped, their formulas as MathML."""

import functools
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import latex2mathml.converter
from markupsafe import Markup, escape

_INNER = r".{1,2000}?"  # bounded: each of many openings without an end would be looked for to the end of the text
_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_FORMULA = re.compile(
    rf"\$\$({_INNER})\$\$|\\\[({_INNER})\\\]|\\\(({_INNER})\\\)|(?<![\\$])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\d$])"
    rf"|(\\boxed{_BRACES}|\\[dt]?frac{_BRACES}{_BRACES})",
    re.S,
)
_MATHML = {
    "math": None, "mrow": None, "mi": None, "mn": None, "mo": None, "mtext": None, "mspace": None, "mstyle": None,
    "mpadded": None, "mphantom": None, "menclose": None, "msqrt": None, "mtable": None, "mtr": None, "mtd": None,
    "mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3,
}  # fmt: skip
_ATTRIBUTES = {
    "accent", "columnalign", "columnlines", "columnspacing", "depth", "display", "displaystyle", "fence", "form",
    "height", "linethickness", "lspace", "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowlines",
    "rowspacing", "rspace", "scriptlevel", "separator", "stretchy", "voffset", "width",
}  # fmt: skip


def typeset(text: str, limit: int = 700) -> Markup:
    """Escapes a text and turns its formulas into MathML; a formula that does not parse stays as it was written.

    Args:
      text: of a model or a web page: untrusted.
      limit: characters after which the text is cut.
    """
    shown = text if len(text) <= limit else f"{text[:limit]} …"
    return Markup("").join(
        escape(part)
        if formula is None
        else Markup(ElementTree.tostring(formula, encoding="unicode", short_empty_elements=False))
        for part, formula in split(shown)
    )


def split(text: str) -> Iterator[tuple[str, ElementTree.Element | None]]:
    """Cuts an untrusted text at its formulas.

    Returns:
      Its parts as they were written, each with the MathML that they stand for: of harmless elements and attributes
      alone, text in leaves alone. None where a part is plain text or a formula that does not parse.
    """
    end = 0
    for match in _FORMULA.finditer(text):
        formula = _mathml(next(group for group in match.groups() if group))
        if formula is not None:
            if end < match.start():
                yield text[end : match.start()], None
            yield match[0], formula
            end = match.end()
    if end < len(text):
        yield text[end:], None


@functools.lru_cache(maxsize=4096)  # samples of one question write the same formulas again and again
def _mathml(formula: str) -> ElementTree.Element | None:
    """MathML of a formula, None where it is not one. The converter copies `\\text{<script>}` and `\\href`: check it."""
    try:
        source = latex2mathml.converter.convert(formula)
        root = ElementTree.fromstring(source.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "", 1))
    except Exception:  # whatever the converter stumbles on in a text that no one wrote for it
        return None
    for node in root.iter():
        arity = _MATHML.get(node.tag, 0)
        if node.tag not in _MATHML or (arity is not None and len(node) != arity):
            return None
        if not node.attrib.keys() <= _ATTRIBUTES or (node.text or "").startswith("\\"):  # an unknown command
            return None
    return root
