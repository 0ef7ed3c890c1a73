"""One notation for answers: unicode, Chinese numerals and LaTeX's layout commands are rewritten to plain LaTeX."""

import re
import unicodedata

from dsmath.reward.languages import rewrite_words

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
_SIGNS = {
    **dict.fromkeys("−–—‐‑﹣", "-"),
    **dict.fromkeys("×✕⨯", "\\times "),
    **dict.fromkeys("·⋅∙•", "\\cdot "),
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    "∶": ":",
    "√": "\\radical ",
    "∛": "\\cuberoot ",
    "∜": "\\fourthroot ",
    "∞": "\\infty ",
    "≤": "\\le ",
    "≥": "\\ge ",
    "⩽": "\\le ",
    "⩾": "\\ge ",
    "≠": "\\ne ",
    "≈": "\\approx ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "°": "\\degree ",
    "∘": "\\degree ",
    "℃": "\\text{C}",
    "¢": "\\text{ cents}",
    "…": "...",
    "∅": "\\emptyset ",
    "ℝ": "\\mathbb{R}",
    "⟨": "(",
    "⟩": ")",
    "〈": "(",
    "〉": ")",
    "、": ",",
    "【": "[",
    "】": "]",
    "´": "'",
    "′": "'",
    "’": "'",
    **dict.fromkeys("¥￥€£₹\u200b\u200c\u200d\ufeff", ""),
}
_GREEK = {
    chr(code): f"\\{name} "
    for code, name in zip(
        (0x3B1, 0x3B2, 0x3B3, 0x3B4, 0x3B5, 0x3B8, 0x3BB, 0x3BC, 0x3C0, 0x3C1, 0x3C3, 0x3C4, 0x3C6, 0x3C9),
        "alpha beta gamma delta epsilon theta lambda mu pi rho sigma tau phi omega".split(),  # noqa: SIM905
        strict=True,
    )
}
_SIGN = re.compile("[" + re.escape("".join(_SIGNS) + "".join(_GREEK)) + "]")

_BASES = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}
_LAYOUT = [  # (pattern, replacement), in this order
    (r"\\(?:left|right)\s*\\([{}|])", r"\\\1"),
    (r"\\(?:left|right)\s*(?=[()\[\]|.<>]|\\)", ""),
    (r"\\(?:[bB]igg?[lrm]?)(?![A-Za-z])", ""),
    (r"\\!|\\(?:displaystyle|textstyle|limits|nolimits|bf|rm|it|centering)(?![A-Za-z])", ""),
    (r"(?<!\\)\\(?:q?quad|,|;|:|>)(?![A-Za-z])|(?<!\\)\\ |~|\\(?:phantom|hspace|vspace)\{[^{}]*\}", " "),
    (r"\{\s*,\s*\}", ","),
    (r"\{\s*([-+])\s*\}", r"\1"),
    (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:underline|mathbin|mathrel)(?![A-Za-z])", ""),
    (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r"^([^{}]*)\\over(?![A-Za-z])([^{}]*)$", r"\\frac{\1}{\2}"),
    (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"\\(?:text(?:normal|rm|bf|it|up|sf|tt)?|mbox|hbox|textmd)\s*\{", r"\\text{"),
    (r"\\(?:mathbf|boldsymbol|bm|vec|mathcal)\s*\{\s*([A-Za-z])\s*\}", r"\1 "),
    (r"\\(?:mathbf|boldsymbol|mathit|mathsf|bm|mathcal|vec|mathord)(?![A-Za-z])", ""),
    (r"\\(?:mathrm|operatorname\*?|rm)\s*\{~?\s*([A-Za-z])\s*\}", r" \1 "),
    (r"\\(?:mathrm|operatorname\*?)\s*\{", r"\\text{"),
    (r"\\(?:textcircled|circled)\s*\{?(\d{1,2})\}?", r"\\circled{\1}"),
    (
        r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|\\degree(?![A-Za-z])|\\circ(?![A-Za-z])",
        r"\\degree ",
    ),
    (r"\\lbrace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
    (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
    (r"\\(?:lbrack)(?![A-Za-z])", "["),
    (r"\\(?:rbrack)(?![A-Za-z])", "]"),
    (r"\\(?:[lr]?vert|\|)(?![A-Za-z])", "|"),
    (r"\\(?:leq|leqslant|le)(?![A-Za-z])|<=", r"\\le "),
    (r"\\(?:geq|geqslant|ge)(?![A-Za-z])|>=", r"\\ge "),
    (r"\\(?:neq|ne)(?![A-Za-z])|!=|\\not\s*=", r"\\ne "),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\(?:varnothing|emptyset)(?![A-Za-z])", r"\\emptyset "),
    (r"\\(?:simeq|doteq|approxeq)(?![A-Za-z])", r"\\approx "),
    (r"\\(?:cdot|times|ast)(?![A-Za-z])", "*"),
    (r"\\div(?![A-Za-z])", "/"),
    (r"\\colon(?![A-Za-z])", ":"),
    (r"\\(?:land|wedge)(?![A-Za-z])", r"\\text{ and }"),
    (r"\\(?:lor|vee)(?![A-Za-z])", r"\\text{ or }"),
    (r"\\(?:var(?=epsilon|phi|theta|rho))", r"\\"),
    (r"\\(?:text)\{\s*\}", " "),
    (r"_\s*\{\s*\\text\{\s*(\w+)\s*\}\s*\}", r"_{\1}"),
    (r"\\text\{(\s*[-+\d][-+\d\s.,/]*|\s*[(\[][-+\d\s.,/]*[)\]]\s*)\}", r"\1"),
    (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
    (r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))", "*"),
    (r"_\s*\{\s*\(\s*(\d+)\s*\)\s*\}", r"_{\1}"),
    *((rf"(?<=\d)_\s*\{{?\s*(?:\\text\{{)?\s*{word}\s*\}}?\s*\}}?", f"_{{{base}}}") for base, word in _BASES.items()),
    (r"(?<![A-Za-z\\])oo(?![A-Za-z])", r"\\infty "),
    (r"\b(?:US|HK|AU|CA|A|C)\s*\\?\$(?=\s*\.?\d)|\\?\$|\b(?:USD|RMB|CNY|EUR|GBP)(?![A-Za-z])", " "),
    (r"\*\*(?=\s*[-+\w({\\])", "^"),
    (r"\\%", "%"),
    (r"\\#", " "),
    (r"(?<!\\)\\[()\[\]]", " "),
    (r"\\pounds|\\euro|\\yen|\\text\{\s*(?:\\?\$|Rs\.?|USD)\s*\}", " "),
    (r"\b(?:np|math|numpy|sympy)\.(?=[a-z])", ""),
    (r"\\(?:sqrt)\s*\[\s*\]", r"\\sqrt"),
    (r"(?<=\d)\s*\(\s*(?:[kcdm]?m|k?g|mL|L|min)(?:\s*\^\s*\{?\d\}?)?\s*\)\s*$", ""),
    (r"(?<![A-Za-z])log(2|10)\s*(?=\()", r"\\log_{\1}"),
]
_LAYOUT = [(re.compile(pattern), replacement) for pattern, replacement in _LAYOUT]

_MARKDOWN = re.compile(r"^(\*\*|\*|`|\"|\u201c)(?!\s)([^*`\"]+)(?:\1|\u201d)$", re.S)
_PLAIN = re.compile(r"[-+\d\s.,/]*|[A-Za-z\s]*")  # what no pattern of the layout changes
_REPEATING = re.compile(
    r"(?<!\d)(?P<whole>\d*)\.(?P<start>\d*)(?:\\(?:overline|bar|dot)\s*\{(?P<period>\d+)\}(?!\d*\\dot)"
    r"|\\(?:overline|bar|dot)\s*(?P<digit>\d)(?!\d*\\dot)"
    r"|\\dot\s*\{?(?P<first>\d)\}?(?P<middle>\d{0,9})\\dot\s*\{?(?P<last>\d)\}?)"
)
_DOTS = re.compile(
    r"(?<!\d)(?P<whole>\d*)\.(?P<start>\d{0,6}?)(?P<period>\d{1,6}?)(?P=period){2,}\s*(?:\.\.\.|\\[lc]?dots(?![A-Za-z]))"
)
_LETTER_DIGITS = re.compile(
    r"^\$?(?:\\(?:text|mathrm)\s*\{)?(?=[0-9A-F]*[A-F])([0-9A-F]{1,60})\}?\s*_\s*\{?(1[1-6])\}?\$?\.?$"
)


def clean(text: str) -> str:
    """Rewrites an answer to plain LaTeX without layout commands, currency signs and full-width characters.

    Args:
      text: an answer in any of the notations that models write.
    """
    text = _rewrite_unicode(re.sub(r"\s+", " ", text))  # long runs stall the patterns
    text = _MARKDOWN.sub(r"\2", text.strip())
    text = _REPEATING.sub(_write_repeating, text)
    text = _DOTS.sub(_write_repeating, text)
    text = _LETTER_DIGITS.sub(_write_base, text)
    if not _PLAIN.fullmatch(text):
        for pattern, replacement in _LAYOUT:
            text = pattern.sub(replacement, text)
    text = rewrite_words(text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.lstrip(" ,;:").rstrip(" .,;:。?").strip()


def _rewrite_unicode(text: str) -> str:
    if text.isascii():
        return text
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉₊₋]+", lambda found: f"_{{{found[0].translate(_SUBSCRIPTS)}}}", text)
    text = re.sub(r"^\s*([A-J])、\s*(?![A-J\s])", r"\1. ", text)
    text = re.sub(r"[①-⑳]", lambda found: f"\\circled{{{ord(found[0]) - 0x245F}}}", text)
    text = re.sub(r"[\u00bc-\u00be\u2150-\u215e]", _write_fraction, text)
    text = _SIGN.sub(lambda found: _SIGNS.get(found[0]) or _GREEK.get(found[0], ""), text)
    return unicodedata.normalize("NFKC", text)


def _write_repeating(found: re.Match) -> str:
    """0.1\\overline{6}, 0.1\\dot{6} and 0.1666... as a fraction."""
    parts = found.groupdict()
    whole, start = parts["whole"] or "0", parts["start"]
    period = parts["period"] or parts.get("digit") or parts["first"] + parts["middle"] + parts["last"]
    top = int(whole + start + period) - int(whole + start)
    return f"\\frac{{{top}}}{{{'9' * len(period)}{'0' * len(start)}}}"


def _write_base(found: re.Match) -> str:
    """A number whose digits go beyond 9, such as 1A_{16}, in the base of ten."""
    try:
        return str(int(found[1], int(found[2])))
    except ValueError:
        return found[0]


def _write_fraction(found: re.Match) -> str:
    top, bottom = unicodedata.normalize("NFKC", found[0]).split("⁄")
    return f"\\frac{{{top}}}{{{bottom}}}"
