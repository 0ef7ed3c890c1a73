"""Cuts text into grams, the units in which pages are compared with benchmarks.

A gram is what is printed as a word, as a number, or as one Chinese character. Case, white space, punctuation, symbols
and LaTeX's commands do not count, apart from commands whose name is printed (`\\sin`, `\\alpha`, which equals the
letter α); numbers count in groups of three digits, so that 1,000 and 1000 are equal. Japanese kana and Korean are cut
into runs, as words are. Source: ours; DeepSeekMath §2.1 does not say what a gram is.
"""

import html
import itertools
import operator
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np

_SPACE, _LETTER, _DIGIT, _OTHER, _CHINESE = range(5)  # what a byte of UTF-8 belongs to
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINER = "\x1f"  # two of them take the place of a hyphen and the end of its line
_INVISIBLE = "\u00ad\u200b-\u200f\u2060\ufeff"
_WORD = re.compile(rf"[{_HAN}]|(?:[^\W_{_HAN}]|['’ʼ\\{_JOINER}{_INVISIBLE}\u0300-\u036f])+")
_BREAK = re.compile(rf"[{_JOINER}{_INVISIBLE}]+")
_PIECE = re.compile(r"\\\\|\\([a-z]+)|([α-ω])|([^\W\d_α-ω]+)|(\d+)")
_SUM = r"[\d\s.,+*/=()%$．，＋＊／＝（）％＄－-]{0,200}"
_UNPRINTED = re.compile(  # each case starts with its own characters: so the search skips what starts none of them
    r"\\(?i:begin|end|hspace|vspace|label|color)\*?\s*\{[^{}]{0,80}\}(?:\{[clrCLR|@{}\s]{0,40}\})?"
    rf"|<<{_SUM}>>|&lt;&lt;{_SUM}&gt;&gt;|＜＜{_SUM}＞＞"  # GSM8K's calculations
    r"|</?(?:[abipsu]|br|code|div|em|font|h[1-6]|hr|img|li|ol|pre|span|strong|su[bp]|t[dhr]|table|ul)"
    r"(?:\s[a-z-]+=[^<>]{0,300}+)?\s*/?>"
    r"|&(?:\w{2,31}|#\d{1,7}|#[xX][\da-fA-F]{1,6});"
)
_GREEK = {chr(code): unicodedata.name(chr(code)).split()[-1].lower() for code in range(ord("α"), ord("ω") + 1)}
_GREEK["λ"] = "lambda"  # Unicode's name has no b
_PRINTED = {"bmod": "mod", "pmod": "mod", "ell": "l"}  # commands that print letters
_PRINTED |= {prefix + name: name for name in _GREEK.values() for prefix in ("", "var")}
_PRINTED |= {
    name: name
    for name in (
        *("arccos", "arcsin", "arctan", "arg", "cos", "cosh", "cot", "coth", "csc", "deg", "det", "dim", "exp", "gcd"),
        *("hom", "inf", "ker", "lcm", "lg", "lim", "liminf", "limsup", "ln", "log", "max", "min", "mod", "pr", "sec"),
        *("sin", "sinh", "sup", "tan", "tanh"),
    )
}
_REMEMBERED, _LONGEST_REMEMBERED = 2**18, 32  # words, their bytes
_MULTIPLIERS = (0xD1342543DE82EF95, 0xAF251AF3B0F025B5)  # odd, so that a gram's value depends on every byte
_FIRST_BYTES = np.array([256**count - 1 for count in range(9)], np.uint64)  # masks


def _kind(byte: int) -> int:
    if byte >= 128:  # 0xE4 to 0xE9 begin U+4000 to U+9FFF
        return _CHINESE if 0xE4 <= byte <= 0xE9 else _OTHER
    character = chr(byte)
    if character.isalnum():
        return _DIGIT if character.isdigit() else _LETTER
    return _OTHER if character in rf"'\{_JOINER}" else _SPACE


_KINDS = bytes(map(_kind, range(256)))


class GramCutter:
    """Cuts text into grams: slowly with their places, or quickly into their values, in the same order.

    Args:
      known: the words of benchmarks: a word that is broken at a line's end is put together where it is known.
    """

    def __init__(self, known: Iterable[str] = ()):
        self.known = frozenset(known)
        self._remembered: dict[bytes, tuple[int, ...]] = {}

    def __reduce__(self):
        return GramCutter, (self.known,)

    def grams(self, text: str) -> tuple[list[str], list[int], list[int]]:
        """The grams, and where the word of each starts and ends."""
        grams, starts, ends = [], [], []
        for word in _WORD.finditer(_blank_unprinted(text)):
            found = _split_word(word[0], self.known)
            grams += found
            starts += [word.start()] * len(found)
            ends += [word.end()] * len(found)
        return grams, starts, ends

    def values(self, text: str) -> np.ndarray:
        """A 64-bit number for each gram: uint64 [N].

        Plain words, short numbers and Chinese characters (T tokens, of B bytes in all) are cut and hashed as arrays.
        Where commands, apostrophes, other scripts, above 3 digits or 16 letters occur, the whole word is odd and cut as
        `grams` does.
        """
        content = f" {_blank_unprinted(text)}{16 * ' '}".encode("utf-8", "surrogatepass")
        kind_B, start_T, end_T = _cut_tokens(content)
        kind_T, length_T = kind_B[start_T], end_T - start_T
        # The 8 bytes from each place of the page on.
        number_B = np.ndarray(len(content) - 7, "<u8", content.lower(), strides=(1,))
        value_T = (number_B[start_T] & _FIRST_BYTES[length_T.clip(max=8)]) * np.uint64(_MULTIPLIERS[0])
        long = np.flatnonzero(length_T > 8)
        rest = number_B[start_T[long] + 8] & _FIRST_BYTES[(length_T[long] - 8).clip(max=8)]
        value_T[long] += rest * np.uint64(_MULTIPLIERS[1])
        odd = np.flatnonzero((kind_T == _OTHER) | ((kind_T == _DIGIT) & (length_T > 3)) | (length_T > 16))
        if not len(odd):
            return value_T
        is_first_T = np.append(True, (start_T[1:] != end_T[:-1]) | (kind_T[1:] == _CHINESE) | (kind_T[:-1] == _CHINESE))
        word_T = np.cumsum(is_first_T) - 1
        is_odd_W = np.zeros(word_T[-1] + 1, bool)
        is_odd_W[word_T[odd]] = True
        is_odd_T = is_odd_W[word_T]
        first = np.flatnonzero(is_first_T & is_odd_T)
        last = np.flatnonzero(np.append(is_first_T[1:], True) & is_odd_T)
        words = [content[start:end] for start, end in zip(start_T[first].tolist(), end_T[last].tolist(), strict=True)]
        found = list(map(self._odd_values, words))
        count_T = (~is_odd_T).astype(np.int64)
        count_T[first] = list(map(len, found))
        is_odd_N = np.repeat(is_odd_T, count_T)
        value_N = np.empty(len(is_odd_N), np.uint64)
        value_N[~is_odd_N] = value_T[~is_odd_T]
        value_N[is_odd_N] = np.fromiter(itertools.chain.from_iterable(found), np.uint64)
        return value_N

    def _odd_values(self, content: bytes) -> tuple[int, ...]:
        values = self._remembered.get(content)
        if values is None:
            words = _WORD.findall(content.decode("utf-8", "surrogatepass"))
            values = tuple(gram_value(gram) for word in words for gram in _split_word(word, self.known))
            if len(self._remembered) < _REMEMBERED and len(content) <= _LONGEST_REMEMBERED:
                self._remembered[content] = values
        return values


def _cut_tokens(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kind of each byte, and where each run of one kind starts and ends: uint8 [B], int64 [T], int64 [T].

    Space is no token; each Chinese character is one, of three bytes.
    """
    kinds = content.translate(_KINDS)
    kind_B = np.frombuffer(kinds, np.uint8)
    lead = np.flatnonzero(kind_B == _CHINESE) if _CHINESE in kinds else np.zeros(0, np.int64)
    if len(lead):
        kind_B = kind_B.copy()
        content_B = np.frombuffer(content, np.uint8)
        is_hexagram = (content_B[lead] == 0xE4) & (content_B[lead + 1] == 0xB7)  # U+4DC0 to U+4DFF: symbols among them
        kind_B[lead[is_hexagram]] = _OTHER
        lead = lead[~is_hexagram]
        kind_B[lead + 1] = kind_B[lead + 2] = _CHINESE
    is_cut_B = kind_B[1:] != kind_B[:-1]
    is_cut_B[lead - 1] = True
    is_text_B = kind_B != _SPACE
    return kind_B, np.flatnonzero(is_cut_B & is_text_B[1:]) + 1, np.flatnonzero(is_cut_B & is_text_B[:-1]) + 1


def gram_value(gram: str) -> int:
    """The number of a gram: the sum of its groups of 8 bytes, each times its place's multiplier, modulo 2**64."""
    content = gram.encode("utf-8", "surrogatepass")
    groups = [int.from_bytes(content[start : start + 8], "little") for start in range(0, len(content), 8)]
    return sum(map(operator.mul, groups, itertools.cycle(_MULTIPLIERS))) % 2**64


def _blank_unprinted(text: str) -> str:
    """The text, equally long, with joiners for hyphens at the ends of lines, and without HTML's and LaTeX's frames."""
    if "<" in text or "&" in text or "\\" in text or "＜" in text:
        text = _UNPRINTED.sub(_blank, text)
    return text.replace("-\n", 2 * _JOINER)


def _blank(match: re.Match) -> str:
    found = match[0]
    character = html.unescape(found)
    if len(character) == 1 and (character.isalnum() or character in "'’"):
        return character + "\u00ad" * (len(found) - 1)
    return found if found[0] == character[:1] == "&" and len(character) > 1 else " " * len(found)


def _split_word(word: str, known: Collection[str]) -> list[str]:
    """The grams of a word as it is spelt, which may hold digits, commands and breaks."""
    if word.isascii() and word.isalpha():
        return [word.lower()]
    plain = re.sub("['’ʼ]", "", unicodedata.normalize("NFKC", word)).casefold()
    pieces = [piece for piece in _BREAK.split(plain) if piece]
    whole = "".join(pieces)
    if len(pieces) > 1 and (whole not in known or (_JOINER in plain and min(map(len, pieces)) < 2)):
        whole = " ".join(pieces)  # a compound or a difference, no broken word
    grams: list[str] = []
    for command, greek, letters, digits in _PIECE.findall(whole):
        if digits:
            head = len(digits) % 3
            grams += [digits[:head]] if head else []
            grams += [digits[start : start + 3] for start in range(head, len(digits), 3)]
        elif command:
            grams += [_PRINTED[command]] if command in _PRINTED else []
        elif greek or letters:
            grams.append(_GREEK[greek] if greek else letters)
    return grams


def is_word(gram: str) -> bool:
    """Whether a gram is a Chinese character or a word of at least two letters."""
    return (len(gram) > 1 and not gram[0].isdigit()) or re.match(f"[{_HAN}]", gram) is not None


def join_grams(grams: Sequence[str]) -> str:
    """Grams as text: with spaces between them, unless they are Chinese."""
    return re.sub(rf"(?<=[{_HAN}]) (?=[{_HAN}])", "", " ".join(grams))
