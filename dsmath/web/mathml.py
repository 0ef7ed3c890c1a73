"""MathML to LaTeX: the annotation where the page carries one, a reading of the tree where it does not."""

import itertools
import re
import unicodedata

from resiliparse.parse.html import ElementNode

_LATEX_ENCODINGS = ("application/x-tex", "tex", "latex", "application/x-latex", "text/x-tex")
_SYMBOLS = {
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ϵ": r"\epsilon", "ε": r"\varepsilon",
    "ζ": r"\zeta", "η": r"\eta", "θ": r"\theta", "ϑ": r"\vartheta", "ι": r"\iota", "κ": r"\kappa", "λ": r"\lambda",
    "μ": r"\mu", "ν": r"\nu", "ξ": r"\xi", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "ς": r"\varsigma",
    "τ": r"\tau", "υ": r"\upsilon", "φ": r"\varphi", "ϕ": r"\phi", "χ": r"\chi", "ψ": r"\psi", "ω": r"\omega",
    "Γ": r"\Gamma", "Δ": r"\Delta", "Θ": r"\Theta", "Λ": r"\Lambda", "Ξ": r"\Xi", "Π": r"\Pi", "Σ": r"\Sigma",
    "Υ": r"\Upsilon", "Φ": r"\Phi", "Ψ": r"\Psi", "Ω": r"\Omega",
    "∑": r"\sum", "∏": r"\prod", "∐": r"\coprod", "∫": r"\int", "∬": r"\iint", "∭": r"\iiint", "∮": r"\oint",
    "∞": r"\infty", "∂": r"\partial", "∇": r"\nabla", "±": r"\pm", "∓": r"\mp", "×": r"\times", "÷": r"\div",
    "⋅": r"\cdot", "·": r"\cdot", "∘": r"\circ", "∗": "*", "⊕": r"\oplus", "⊗": r"\otimes", "≤": r"\le", "≥": r"\ge",
    "≠": r"\ne", "≈": r"\approx", "≡": r"\equiv", "≅": r"\cong", "∼": r"\sim", "≃": r"\simeq", "∝": r"\propto",
    "≪": r"\ll", "≫": r"\gg", "∈": r"\in", "∉": r"\notin", "∋": r"\ni", "⊂": r"\subset", "⊆": r"\subseteq",
    "⊃": r"\supset", "⊇": r"\supseteq", "∪": r"\cup", "∩": r"\cap", "∖": r"\setminus", "∅": r"\emptyset",
    "∀": r"\forall", "∃": r"\exists", "¬": r"\neg", "∧": r"\wedge", "∨": r"\vee", "→": r"\to", "←": r"\leftarrow",
    "↔": r"\leftrightarrow", "⇒": r"\Rightarrow", "⇐": r"\Leftarrow", "⇔": r"\Leftrightarrow", "↦": r"\mapsto",
    "⟨": r"\langle", "⟩": r"\rangle", "〈": r"\langle", "〉": r"\rangle", "⌊": r"\lfloor", "⌋": r"\rfloor",
    "⌈": r"\lceil", "⌉": r"\rceil", "‖": r"\|", "∥": r"\parallel", "∣": r"\mid", "⊥": r"\perp", "…": r"\ldots",
    "⋯": r"\cdots", "⋮": r"\vdots", "⋱": r"\ddots", "ℓ": r"\ell", "ℏ": r"\hbar", "ℜ": r"\Re", "ℑ": r"\Im",
    "ℝ": r"\mathbb{R}", "ℂ": r"\mathbb{C}", "ℕ": r"\mathbb{N}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}",
    "†": r"\dagger", "−": "-", "′": "'", "″": "''", "{": r"\{", "}": r"\}", "%": r"\%", "#": r"\#",
    "\\": r"\backslash", "&": r"\&", "$": r"\$", "_": r"\_", "~": r"\sim", "^": r"\text{\textasciicircum}",
    "\u2061": "", "\u2062": "", "\u2063": "", "\u2064": "", "\u00a0": " ", "\u200b": "",
}  # fmt: skip
_SYMBOLS_OF_TEXT = {
    **{character: f"\\{character}" for character in "{}$&#%_"},
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
}  # fmt: skip
_ACCENTS = {
    "^": r"\hat", "ˆ": r"\hat", "~": r"\tilde", "˜": r"\tilde", "¯": r"\bar", "‾": r"\overline", "―": r"\overline",
    "→": r"\vec", "⃗": r"\vec", "˙": r"\dot", ".": r"\dot", "¨": r"\ddot", "⏞": r"\overbrace", "̂": r"\hat",
}  # fmt: skip
_FUNCTIONS = {
    "arccos", "arcsin", "arctan", "arg", "cos", "cosh", "cot", "coth", "csc", "deg", "det", "dim", "exp", "gcd",
    "hom", "inf", "ker", "lg", "lim", "liminf", "limsup", "ln", "log", "max", "min", "Pr", "sec", "sin", "sinh",
    "sup", "tan", "tanh",
}  # fmt: skip
_VARIANTS = {
    "bold": r"\mathbf", "double-struck": r"\mathbb", "script": r"\mathcal", "fraktur": r"\mathfrak",
    "sans-serif": r"\mathsf", "monospace": r"\mathtt",
}  # fmt: skip
_ALPHABETS = {
    "DOUBLE-STRUCK": r"\mathbb", "FRAKTUR": r"\mathfrak", "SCRIPT": r"\mathcal", "SANS-SERIF": r"\mathsf",
    "MONOSPACE": r"\mathtt", "BOLD": r"\mathbf",
}  # fmt: skip
_ENCLOSURES = {"top": r"\overline", "bottom": r"\underline", "box": r"\boxed", "radical": r"\sqrt"}
_SKIPPED = {"annotation", "annotation-xml", "mphantom", "none", "mprescripts", "mjx-copytext", "maligngroup"}
_MAX_DEPTH = 100  # of nested elements: deeper ones are no formula
_FLAGS = {"true", "false", "yes", "no", "on", "off", "1", "0", "inline", "block", "display", "katex", "mathjax", "math",
          "latex", "tex", "mathml", "asciimath"}  # fmt: skip
_SCRIPT_MARKS = re.compile(r"\\.|[{}_^']", re.DOTALL)


def mathml_to_latex(math: ElementNode) -> str:
    """The LaTeX of a `math` element.

    Args:
      math: the element, with or without a namespace prefix.
    Returns:
      The annotation in TeX if there is one, else the `data-latex` that MathJax 4 writes, else the `alttext` of LaTeXML
      and Wikipedia, else the tree read out: fractions, roots, scripts, tables, accents and the usual symbols.
    """
    prefix = (math.tag or "").rpartition(":")[0]
    if prefix or len(math.get_elements_by_tag_name("annotation")):  # that one is asked for at a tenth of the price
        for annotation in math.query_selector_all(f"{prefix}\\:annotation" if prefix else "annotation"):
            latex = (annotation.text or "").strip()
            if latex and annotation.getattr("encoding", "").lower() in _LATEX_ENCODINGS:
                return latex
    source = source_in_data(math, "data-latex") or math.getattr("alttext", "").strip()
    return source or _join([_read(child, 0) for child in math.children.values()])


def source_in_data(element: ElementNode, name: str) -> str:
    """The formula in an attribute such as `data-latex`; empty where there is none, or a flag such as "true"."""
    value = element.getattr(name, "").strip()
    return "" if value.lower() in _FLAGS else value


def tag_of(node: ElementNode) -> str:
    """An element's name without a namespace's prefix."""
    return (node.tag or "").rsplit(":", 1)[-1]


def is_command(name: str) -> bool:
    r"""Whether `\NAME` is one of the usual commands of formulas."""
    return name in _COMMANDS


def _read(node: ElementNode, depth: int) -> str:
    tag = tag_of(node)
    if tag in _SKIPPED or depth > _MAX_DEPTH:
        return ""
    if tag in ("mi", "mo", "mn", "mtext", "ms"):
        return _read_token(tag, node)
    if tag == "mspace":
        return r"\ " if node.getattr("width") else ""
    parts = [_read(child, depth + 1) for child in node.children.values()]
    if tag == "mfrac" and len(parts) == 2 and node.getattr("linethickness", "").rstrip("ptxem") == "0":
        return rf"{{{parts[0]} \atop {parts[1]}}}"
    if tag in _STACKS and len(parts) == 2:
        return _STACKS[tag](*parts, _raw_text(node.last_element_child))
    build = _BUILDERS.get(tag)
    if build is not None and len(parts) == build[0]:
        return build[1](*parts)
    if tag == "msqrt":
        return rf"\sqrt{{{_join(parts)}}}"
    if tag == "menclose":
        command = _ENCLOSURES.get(node.getattr("notation", ""))
        return f"{command}{{{_join(parts)}}}" if command else _join(parts)
    if tag == "mfenced":
        return _read_fenced(node, parts)
    if tag == "mtable":
        return r"\begin{matrix}" + r" \\ ".join(parts) + r"\end{matrix}"
    if tag in ("mtr", "mlabeledtr"):
        return " & ".join(parts)
    if tag == "mmultiscripts":
        return _read_multiscripts(node, parts)
    return _join(parts)


def _read_token(tag: str, node: ElementNode) -> str:
    if tag in ("mtext", "ms"):
        return _read_text(node.text or "")
    text = _raw_text(node)
    if tag == "mi" and text in _FUNCTIONS:
        return f"\\{text}"
    latex = _join([_read_character(character) for character in text])
    if tag == "mi" and len(text) > 1:
        latex = rf"\operatorname{{{text}}}" if text.isalpha() and text.isascii() else latex
    variant = _VARIANTS.get(node.getattr("mathvariant", ""))
    return f"{variant}{{{latex}}}" if variant and latex else latex


def _read_text(text: str) -> str:
    r"""`\text{ for all }`: the spaces at its edges are all that parts it from its neighbours."""
    spaced = re.sub(r"\s+", " ", text)
    if not spaced.strip():
        return r"\ " if "\u00a0" in text else ""  # other spaces are the page's layout
    return rf"\text{{{''.join(_SYMBOLS_OF_TEXT.get(character, character) for character in spaced)}}}"


def _raw_text(node: ElementNode) -> str:
    return " ".join((node.text or "").split())


def _read_character(character: str) -> str:
    if not "\U0001d400" <= character <= "\U0001d7ff":  # the mathematical alphabets of Unicode
        return _SYMBOLS.get(character, character)
    plain = unicodedata.normalize("NFKC", character)
    name = unicodedata.name(character, "")
    alphabet = next((latex for style, latex in _ALPHABETS.items() if style in name), None)
    return f"{alphabet}{{{plain}}}" if alphabet and plain.isascii() else _SYMBOLS.get(plain, plain)


def _read_fenced(node: ElementNode, parts: list[str]) -> str:
    marks = node.getattr("open", "("), node.getattr("separators", ",").strip()[:1], node.getattr("close", ")")
    opening, separator, closing = (_SYMBOLS.get(mark, mark) for mark in marks)
    return opening + separator.join(parts) + closing


def _read_multiscripts(node: ElementNode, parts: list[str]) -> str:
    """Pairs of scripts, the lower one first: those behind the base, then, after `mprescripts`, those before it."""
    tags = list(map(tag_of, node.children.values()))
    place = tags.index("mprescripts") if "mprescripts" in tags else len(tags)
    base = parts[0] if place else ""
    before = "".join(f"{{}}{scripts}" for scripts in _read_pairs(parts[place + 1 :]))
    behind = "{}".join(_read_pairs(parts[1:place]))
    return before + (_read_base(base, "_^") if behind else base) + behind


def _read_pairs(parts: list[str]) -> list[str]:
    """`_{i}^{j}` of each pair that is not empty."""
    pairs = itertools.zip_longest(parts[::2], parts[1::2], fillvalue="")
    scripts = [(f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "") for below, above in pairs]
    return [script for script in scripts if script]


def _read_over(base: str, over: str, mark: str) -> str:
    if mark in _ACCENTS:
        return f"{_ACCENTS[mark]}{{{base}}}"
    return f"{base}^{{{over}}}" if base.startswith(_BIG) else rf"\overset{{{over}}}{{{base}}}"


def _read_under(base: str, under: str, mark: str) -> str:
    if mark in ("_", "¯"):
        return rf"\underline{{{base}}}"
    return f"{base}_{{{under}}}" if base.startswith(_BIG) else rf"\underset{{{under}}}{{{base}}}"


def _read_base(base: str, marks: str) -> str:
    """A base in front of scripts, in braces where they would not belong to all of it, or be a second of their kind.

    Args:
      marks: of the scripts, "_", "^" or both.
    """
    if len(base) <= 1 or base.isalnum():
        return base
    own = _own_marks(base) if base.startswith("\\") else set(marks)
    needs_braces = own & set(marks) if base.startswith(_BIG) else own  # the two limits of a sum may come one by one
    return f"{{{base}}}" if needs_braces else base


def _own_marks(latex: str) -> set[str]:
    """The kinds of scripts that stand in it outside of all braces; a prime is an upper one."""
    depth, found = 0, set()
    for mark in _SCRIPT_MARKS.findall(latex):
        depth += (mark == "{") - (mark == "}")
        if depth == 0 and mark in ("_", "^", "'"):
            found.add("^" if mark == "'" else mark)
    return found


def _join(parts: list[str]) -> str:
    """Sets pieces side by side, with a space between a command and a letter that would lengthen its name."""
    pieces, last = [], ""
    for part in filter(None, parts):
        if part[0].isalpha() and _ends_in_command(last):
            pieces.append(" ")
        pieces.append(part)
        last = part
    return "".join(pieces)


def _ends_in_command(latex: str) -> bool:
    stripped = latex.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return len(stripped) < len(latex) and stripped.endswith("\\")


_BIG = (r"\sum", r"\prod", r"\coprod", r"\int", r"\lim", r"\max", r"\min", r"\sup", r"\inf", r"\det", r"\gcd", r"\Pr",
        r"\operatorname", r"\overbrace", r"\underbrace", r"\oint", r"\iint", "⋃", "⋂")  # fmt: skip
_COMMANDS = {
    *_FUNCTIONS,
    *(name for latex in (*_SYMBOLS.values(), *_ACCENTS.values(), *_VARIANTS.values(), *_ENCLOSURES.values())
      for name in re.findall(r"\\([A-Za-z]+)", latex)),
    *("begin", "end", "frac", "dfrac", "tfrac", "binom", "left", "right", "leq", "geq", "neq", "text", "mathrm",
      "operatorname", "quad", "qquad", "dots", "rightarrow", "iff", "implies", "displaystyle"),
}  # fmt: skip
_STACKS = {"mover": _read_over, "munder": _read_under}  # they look at the mark itself, too
_BUILDERS = {
    "mfrac": (2, lambda above, below: rf"\frac{{{above}}}{{{below}}}"),
    "mroot": (2, lambda radicand, index: rf"\sqrt[{index}]{{{radicand}}}"),
    "msup": (2, lambda base, above: f"{_read_base(base, '^')}^{{{above}}}"),
    "msub": (2, lambda base, below: f"{_read_base(base, '_')}_{{{below}}}"),
    "msubsup": (3, lambda base, below, above: f"{_read_base(base, '_^')}_{{{below}}}^{{{above}}}"),
    "munderover": (3, lambda base, below, above: f"{_read_base(base, '_^')}_{{{below}}}^{{{above}}}"),
}
