"""How the released evaluation cleans an answer before it compares texts and values.

Source: deepseek-ai/DeepSeek-Math, `evaluation/data_processing/answer_extraction.py`, written anew. The OCW rule is that
of Minerva (Lewkowycz et al. 2022, appendix D).
"""

import re

from dsmath.reward.expressions import MAX_LENGTH

_BEFORE_UNITS = [
    (r"\n|\\!", ""),
    (r"^\\text\{(.*)\}$", r"\1"),
    (r"[tdc]frac", "frac"),
    (r"\\left|\\right", ""),
]
_AFTER_UNITS = [
    (r"\^\{\\circ\}|\^\\circ", ""),
    (r"\{[cm]?m\}(?:\^[23])?", ""),
    (r"p\.m\.$", ""),
    (r"(\d)\s*t$", r"\1"),
    (r"\\?\$|x\\in", ""),
    (r"\\%", "%"),
    (r" \.", " 0."),
    (r"\{\.", "{0."),
    (r"\\cdot", ""),
    (r"infinity", r"\\infty"),
]
_AT_LAST = [
    (r"\\mathbf|\\mathrm|\\mbox\{.*?\}", ""),
    (r"(\d+)\.0+(?!\d)", r"\1"),
]
_BEFORE_UNITS, _AFTER_UNITS, _AT_LAST = (
    [(re.compile(pattern), replacement) for pattern, replacement in rules]
    for rules in (_BEFORE_UNITS, _AFTER_UNITS, _AT_LAST)
)
_OCW_REPLACED = (  # a text and what stands for it, in this order
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"),
    (",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
_OCW_REMOVED = (
    "square ways integers dollars mph inches ft hours km units \\ldots sue points feet minutes digits cents degrees cm "
    "gm pounds meters meals edges students childrentickets multiples \\text{s} \\text{.} \\text{}^2 \\text{}^3 "
    '\\text{} \\mathrm{th} ^\\circ ^{\\circ} \\; ,\\! {,} " \\dots'
)


def clean(text: str) -> str:
    """An answer without layout, units, degree signs, currency and spaces, its fractions in braces; longer ones stay."""
    if len(text) > MAX_LENGTH:
        return text
    text = _apply(_BEFORE_UNITS, text.strip().rstrip("."))
    without_unit = re.sub(r"\\text\{.*?\}$", "", text).strip()
    text = _apply(_AFTER_UNITS, without_unit or text)
    if "\\infty" not in text:
        text = text.replace("inf", "\\infty")
    text = _apply(_AT_LAST, text)
    if "j" in text and "i" not in text:
        text = text.replace("j", "i")
    text = "0" + text if text.startswith(".") else text
    for name in ("sqrt", "tan"):
        text = re.sub(rf"\\{name}(-?[0-9.a-zA-Z]+)|\\{name}\s+(\w+)$", rf"\\{name}{{\1\2}}", text)
    text = re.sub(r"\\frac(?:([^{])([^{])|([^{])(?=\{))", _brace_fraction, text.replace(" ", ""))
    return re.sub(r"[\\,.]+$", "", _slash_to_fraction(text))


def clean_expression(text: str) -> str:
    """An OCW answer by Minerva's rules; only the text behind the last "=" counts."""
    text = text.split("=")[-1]
    for old, new in _OCW_REPLACED:
        text = text.replace(old, new)
    for removed in _OCW_REMOVED.split(" "):
        text = text.replace(removed, "")
    text = re.sub(r"(.*?)(\$)(.*?)(\$)(.*)", r"$\3$", text)
    text = re.sub(r"\\(?:text|textbf|overline)\{(.*?)\}", r"\1", text)
    text = re.sub(r"\\boxed\{(.*)\}", r"\1", text)
    text = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", text)
    text = re.sub(r"sqrt([^{])", r"sqrt{\1}", text).replace("$", "")
    digits = text.replace(",", "")
    return digits if digits.isdigit() else text


def _apply(rules: list[tuple[re.Pattern, str]], text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text).strip()
    return text


def _brace_fraction(found: re.Match) -> str:
    return f"\\frac{{{found[1]}}}{{{found[2]}}}" if found[1] else f"\\frac{{{found[3]}}}"


def _slash_to_fraction(text: str) -> str:
    top, slash, bottom = text.partition("/")
    is_simple = all("sqrt" in part or re.fullmatch(r"0|-?[1-9]\d*", part) for part in (top, bottom))
    return f"\\frac{{{top}}}{{{bottom}}}" if slash and is_simple and "/" not in bottom else text
