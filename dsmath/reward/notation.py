"""One notation for answers: unicode, Chinese numerals and LaTeX's layout commands are rewritten to plain LaTeX."""

import re
import unicodedata

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

_LAYOUT = [  # (pattern, replacement), in this order
    (r"\\(?:left|right)\s*\\([{}|])", r"\\\1"),
    (r"\\(?:left|right)\s*(?=[()\[\]|.<>]|\\)", ""),
    (r"\\(?:[bB]igg?[lrm]?)(?![A-Za-z])", ""),
    (r"\\!|\\(?:displaystyle|textstyle|limits|nolimits|bf|rm|it|centering)(?![A-Za-z])", ""),
    (r"(?<!\\)\\(?:q?quad|,|;|:|>)(?![A-Za-z])|(?<!\\)\\ |~|\\(?:phantom|hspace|vspace)\{[^{}]*\}", " "),
    (r"\{\s*,\s*\}", ","),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
    (r"\\(?:text(?:normal|rm|bf|it|up|sf|tt)?|mbox|hbox|textmd)\s*\{", r"\\text{"),
    (r"\\(?:mathbf|boldsymbol|mathit|mathsf|bm|mathcal|vec|mathord)(?![A-Za-z])", ""),
    (r"\\(?:mathrm|operatorname\*?|rm)\s*\{~?\s*([A-Za-z])\s*\}", r"\1"),
    (r"\\(?:mathrm|operatorname\*?)\s*\{", r"\\text{"),
    (r"\\(?:textcircled|circled)\s*\{?(\d{1,2})\}?", r"\\circled{\1}"),
    (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![A-Za-z])|\\circ(?![A-Za-z])", r"\\degree "),
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
    (r"\*\*(?=\s*[-+\w({\\])", "^"),
    (r"\\%", "%"),
    (r"\\[$#]", " "),
    (r"(?<!\\)\\[()\[\]]", " "),
    (r"\\pounds|\\euro|\\yen|\\text\{\s*(?:\\?\$|Rs\.?|USD)\s*\}", " "),
    (r"\$", " "),
    (r"\\tfrac", r"\\frac"),
    (r"\b(?:np|math|numpy|sympy)\.(?=[a-z])", ""),
    (r"\\(?:sqrt)\s*\[\s*\]", r"\\sqrt"),
]
_LAYOUT = [(re.compile(pattern), replacement) for pattern, replacement in _LAYOUT]

_PLAIN = re.compile(r"[-+\d\s.,/]*|[A-Za-z\s]*")  # what no pattern of the layout changes
_REPEATING = re.compile(r"(\d+)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d+)\}")

_DIGITS = {**{char: value for value, char in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2, "兩": 2}
_SCALES = {"十": 10, "百": 100, "千": 1000}
_NUMERAL = "[零〇一二两兩三四五六七八九十百千万亿点]{1,20}"
_NUMBER = rf"(?:\d+(?:\.\d+)?|{_NUMERAL})"
_HAN = "\u4e00-\u9fff"


def clean(text: str) -> str:
    """Rewrites an answer to plain LaTeX without layout commands, currency signs and full-width characters.

    Args:
      text: an answer in any of the notations that models write.
    """
    text = _rewrite_unicode(text)
    text = _REPEATING.sub(_write_repeating, text)
    if not _PLAIN.fullmatch(text):
        for pattern, replacement in _LAYOUT:
            text = pattern.sub(replacement, text)
    if re.search(f"[{_HAN}]", text):
        text = _rewrite_chinese(text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.lstrip(" ,;:").rstrip(" .,;:。?").strip()


def _rewrite_unicode(text: str) -> str:
    if text.isascii():
        return text
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉₊₋]+", lambda found: f"_{{{found[0].translate(_SUBSCRIPTS)}}}", text)
    text = re.sub(r"[①-⑳]", lambda found: f"\\circled{{{ord(found[0]) - 0x245F}}}", text)
    text = re.sub(r"[\u00bc-\u00be\u2150-\u215e]", _write_fraction, text)
    text = _SIGN.sub(lambda found: _SIGNS.get(found[0]) or _GREEK.get(found[0], ""), text)
    return unicodedata.normalize("NFKC", text)


def _write_repeating(found: re.Match) -> str:
    """0.1\\overline{6} as a fraction."""
    whole, start, period = found.groups()
    top = int(whole + start + period) - int(whole + start)
    return f"\\frac{{{top}}}{{{'9' * len(period)}{'0' * len(start)}}}"


def _write_fraction(found: re.Match) -> str:
    top, bottom = unicodedata.normalize("NFKC", found[0]).split("⁄")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _rewrite_chinese(text: str) -> str:
    """Chinese numbers to digits, separators to commas and words, measure words dropped."""
    text = re.sub(r"^(?:约|大约|共|一共|总共|等于|为|是)(?=\s*[\d\\(-])", "", text)
    text = re.sub(rf"负(?=\s*{_NUMBER})", "-", text)
    text = re.sub(rf"百分之({_NUMBER})", lambda found: f"{_digits(found[1])}%", text)
    text = re.sub(
        rf"(?:({_NUMBER})又)?({_NUMBER})分之({_NUMBER})",
        lambda found: f"{_digits(found[1]) if found[1] else ''}\\frac{{{_digits(found[3])}}}{{{_digits(found[2])}}}",
        text,
    )
    text = re.sub(r"(\d)\s*又\s*(?=\d|\\frac)", r"\1 ", text)
    if re.fullmatch(rf"-?\s*{_NUMERAL}\s*[^\d\\=]{{0,4}}", text):
        text = re.sub(rf"^(-?)\s*({_NUMERAL})", lambda found: found[1] + _digits(found[2]), text)
    text = re.sub(
        r"(\d+(?:\.\d+)?)\s*(万亿|万|亿)",
        lambda found: f"{found[1]}*10^{{{ {'万': 4, '亿': 8, '万亿': 12}[found[2]] }}}",
        text,
    )
    text = re.sub(r"\s*(?:或者|或)\s*", r" \\text{ or } ", text)
    text = re.sub(r"(?<=[\d)}\]A-Za-z%])\s*(?:以及|和|与|且|及)\s*(?=[\d(\\A-Za-z-])", ", ", text)
    # The measure word after a quantity: 24米, 60千米/时, 15平方厘米, 8个苹果.
    return re.sub(rf"(?<=[\d)}}\]A-Za-z%])\s*(?:/?[{_HAN}]+)+(?:/[A-Za-z{_HAN}]+)?\s*\.?(?=$|,|;|\\text)", "", text)


def _digits(numeral: str) -> str:
    """Digits of a Chinese numeral, 二十四 as 24, 三点五 as 3.5, 二〇二四 as 2024; digits stay as they are."""
    if numeral[0].isdigit() and numeral[0] not in _DIGITS:
        return numeral
    whole, _, decimals = numeral.partition("点")
    if not any(char in "十百千万亿" for char in whole):
        value = "".join(str(_DIGITS[char]) for char in whole)
    else:
        value = str(_integer(whole))
    return value + ("." + "".join(str(_DIGITS.get(char, 0)) for char in decimals) if decimals else "")


def _integer(numeral: str) -> int:
    total = section = digit = 0
    for char in numeral:
        if char in _DIGITS:
            digit = _DIGITS[char]
        elif char in _SCALES:
            section += (digit or 1) * _SCALES[char]
            digit = 0
        else:  # 万 and 亿 scale all that stands before them
            scale = 10**4 if char == "万" else 10**8
            total = (total + section + digit) * scale if char == "亿" else total + (section + digit) * scale
            section = digit = 0
    return total + section + digit
