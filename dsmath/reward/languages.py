"""Chinese and English words in answers, rewritten to digits and signs: 三又五分之二, 大于等于2, twenty-five."""

import re

_DIGITS = {**{char: value for value, char in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2, "兩": 2}
_SCALES = {"十": 10, "百": 100, "千": 1000}
_FORMAL = str.maketrans("壹贰叁肆伍陆柒捌玖拾佰仟萬億負點", "一二三四五六七八九十百千万亿负点")
_NUMERAL = "[零〇一二两兩三四五六七八九十百千万亿点]{1,20}"
_NUMBER = rf"(?:\d+(?:\.\d+)?|{_NUMERAL})"
_HAN = "\u4e00-\u9fff"
_IS_HAN = re.compile(f"[{_HAN}]")

_CHINESE = [  # (pattern, replacement), in this order
    (r"^\s*(?:答案|最终答案|结果|答|解|故|所以|因此|即)\s*(?:应该|应)?(?:是|为|等于)?\s*[:,]?\s*", ""),
    (r"^(?:约|大约|共|一共|总共|等于|为|是|有|选)+(?=\s*[\d\\(-])", ""),
    (r"^\s*([A-J]),\s*(?![A-J](?![a-z])|\s)", r"\1. "),
    (rf"第(?={_NUMBER}$)", ""),
    (r"^(\d{1,2})\s*[时点]\s*(\d{1,2})\s*分$", r"\1:\2"),
    (rf"零下(?={_NUMBER})", "-"),
    (r"正负", r"\\pm "),
    (rf"负(?=\s*(?:{_NUMBER}|\\))", "-"),
    (r"一半", r"\\frac{1}{2}"),
    (r"(?:大于或?等于|不小于|不少于|不低于|至少)", r"\\ge "),
    (r"(?:小于或?等于|不大于|不多于|不超过|至多)", r"\\le "),
    (r"(?:大于|多于|超过)", ">"),
    (r"(?:小于|少于|低于)", "<"),
    (r"(?:不等于)", r"\\ne "),
    (r"(?<=[A-Za-z\d)}])\s*(?:等于|[是为])\s*(?=[-\d\\])", "="),
    (r"(?<=\d)\s*比\s*(?=\d)", ":"),
    (r"(?:立方根|三次根号)", r"\\cuberoot "),
    (r"根号", r"\\radical "),
    (r"(上午|下午|晚上|早上|中午)\s*(\d{1,2})\s*[时点:](?:\s*(\d{1,2})\s*分?|整)?", "CLOCK"),
]
_CHINESE = [(re.compile(pattern), replacement) for pattern, replacement in _CHINESE]
_PERCENT = re.compile(rf"(?<![{''.join(_DIGITS)}十])百分之({_NUMBER})")
_FRACTION = re.compile(rf"(?<![\d.])(?:({_NUMBER})又)?({_NUMBER})分之(\\radical )?({_NUMBER})")
_POWERS_OF_TEN = {"万": 4, "亿": 8, "万亿": 12}

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_WORDS = {word: value for value, word in enumerate(_SMALL.split())} | {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)  # noqa: SIM905
}
_LARGE = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10}
_ENGLISH = [
    (r"\b(?:is\s+)?(?:greater|more|larger)\s+than\s+or\s+equal\s+to\b|\bat\s+least\b|\bno\s+less\s+than\b", r"\\ge "),
    (r"\b(?:is\s+)?(?:less|smaller|fewer)\s+than\s+or\s+equal\s+to\b|\bat\s+most\b|\bno\s+more\s+than\b", r"\\le "),
    (r"\b(?:is\s+)?(?:greater|more|larger)\s+than\b", ">"),
    (r"\b(?:is\s+)?(?:less|smaller|fewer)\s+than\b", "<"),
    (r"^(\d+(?:\.\d+)?)\s+(?:to|is\s+to)\s+(\d+(?:\.\d+)?)$", r"\1:\2"),
]
_ENGLISH = [(re.compile(pattern), replacement) for pattern, replacement in _ENGLISH]
_QUANTITY = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*(?:\\text\s*\{)?\s*(thousand|million|billion|trillion)\b\s*\}?")


def rewrite_words(text: str) -> str:
    """Rewrites numbers and comparisons in Chinese or English words; measure words behind a quantity are dropped."""
    if _IS_HAN.search(text):
        return _rewrite_chinese(text)
    if re.search(r"[a-z]{2}", text, re.I):
        return _rewrite_english(text)
    return text


def _rewrite_chinese(text: str) -> str:
    text = text.translate(_FORMAL).strip().rstrip("。.!！")
    for pattern, replacement in _CHINESE:
        text = pattern.sub(_write_clock if replacement == "CLOCK" else replacement, text)
    text = _PERCENT.sub(lambda found: f"{_digits(found[1])}%", text)
    text = _FRACTION.sub(_write_fraction, text)
    text = re.sub(rf"(\\(?:radical|cuberoot) )({_NUMERAL})", lambda found: found[1] + _digits(found[2]), text)
    text = re.sub(rf"^({_NUMBER})成$", lambda found: f"{_digits(found[1])}0%", text)
    text = re.sub(r"(\d)\s*又\s*(?=\d|\\frac)", r"\1 ", text)
    if re.fullmatch(rf"-?\s*{_NUMERAL}\s*[^\d\\=]{{0,4}}", text):
        text = re.sub(rf"^(-?)\s*({_NUMERAL})", lambda found: found[1] + _digits(found[2]), text)
    text = re.sub(
        r"(?<![\d.])(\d+(?:\.\d+)?)\s*(万亿|万|亿)", lambda found: f"{found[1]}*10^{{{_POWERS_OF_TEN[found[2]]}}}", text
    )
    text = re.sub(r"\s*(?:或者|或)\s*", r" \\text{ or } ", text)
    text = re.sub(r"\s*(?:并且|而且|且)\s*", r" \\text{ and } ", text)
    text = re.sub(r"(?<=[\d)}\]A-Za-z%])\s*(?:以及|和|与|及)\s*(?=[\d(\\A-Za-z-])", ", ", text)
    text = re.sub(rf"(?<=[\d)}}\]A-Za-z%])\s*\(\s*[{_HAN}A-Za-z/]+\s*\)\s*$", "", text)
    # The measure word after a quantity: 24米, 60千米/时, 15平方厘米, 8个苹果.
    text = re.sub(
        rf"(?<=[\d)}}\]A-Za-z%])\s*/?[{_HAN}]{{1,20}}(?:/[A-Za-z{_HAN}]{{1,10}})?\s*\.?(?=$|,|;|\\text)", "", text
    )
    return text if not _IS_HAN.search(text) else _only_number(text)


def _only_number(text: str) -> str:
    """Of a Chinese sentence with one number, such as "一共有24个", that number."""
    body = re.sub(r"^\s*[^\d\\]*[:,]\s*", "", text)
    found = re.fullmatch(rf"[{_HAN},.\s]+(-?\d+(?:\.\d+)?(?:/\d+)?%?|-?\\frac\{{\d+\}}\{{\d+\}})[{_HAN}.\s]*", body)
    return found[1] if found else text


def _write_fraction(found: re.Match) -> str:
    whole, bottom, radical, top = found.groups()
    return f"{_digits(whole) if whole else ''}\\frac{{{radical or ''}{_digits(top)}}}{{{_digits(bottom)}}}"


def _write_clock(found: re.Match) -> str:
    half = "am" if found[1] in ("上午", "早上") else "pm"
    return f"{found[2]}:{int(found[3] or 0):02d} {half}"


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


def _rewrite_english(text: str) -> str:
    if len(text) < 80:
        bare = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip(" .,!\n").lower()
        number = _spelled_number(bare) if re.fullmatch(r"[a-z\s-]+", bare) else None
        if number is not None:
            return number
    text = _QUANTITY.sub(lambda found: f"{found[1]}*10^{{{_LARGE[found[2]]}}}", text)
    for pattern, replacement in _ENGLISH:
        text = pattern.sub(replacement, text)
    return text


def _spelled_number(text: str) -> str | None:
    """Digits of "twenty-five", "one hundred and five", "two thirds", "minus three"; None for other words."""
    minus = re.match(r"(?:minus|negative)\s+", text)
    words = [word for word in re.split(r"[\s-]+", text[minus.end() :] if minus else text) if word]
    if not words:
        return None
    sign = "-" if minus else ""
    if words[-1].removesuffix("s") in _PARTS or words[-1] in _PARTS:
        bottom = _PARTS.get(words[-1]) or _PARTS[words[-1].removesuffix("s")]
        top = 1 if words[:-1] in (["a"], []) else _count(words[:-1])
        return f"{sign}\\frac{{{top}}}{{{bottom}}}" if top is not None and words[:-1] else None
    value = _count(words)
    return None if value is None else f"{sign}{value}"


def _count(words: list[str]) -> int | None:
    total = section = 0
    for index, word in enumerate(words):
        if word in _WORDS:
            section += _WORDS[word]
        elif word == "hundred" and index:
            section *= 100
        elif word in _LARGE and index:
            total, section = total + section * 10 ** _LARGE[word], 0
        elif word != "and" or not index:
            return None
    return total + section
