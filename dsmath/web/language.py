"""The language of a page."""

import functools
from collections import Counter

import numpy as np
from resiliparse.parse.lang import detect_fast, supported_langs

from dsmath.runs.errors import InputError
from dsmath.web import characters

_START = 4_000  # characters that are read
_HAN, _KANA = "\u3400-\u4dbf\u4e00-\u9fff", "\u3040-\u30ff"
_MIN_CJK_SHARE = 0.05  # of the characters; a Chinese manual is full of Latin commands
_FUNCTION_WORDS = {
    "en": "the of and to is in for this that with",
    "de": "der die und das ist nicht ein mit von zu",
    "es": "el los las que es una para con por del",
    "fr": "le la les des et est une dans pour que",
    "it": "il che di è una per non con gli del",
    "nl": "de het een van en is niet dat op te",
    "pt": "o os não que uma para com do da em",
    "ru": "и в на не что с по для это как",
}
_LANGUAGES_BY_WORD: dict[str, list[str]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_BY_WORD.setdefault(_word, []).append(_language)
_MIN_FUNCTION_WORDS = 3
_UNKNOWN = "unknown"


def detect_language(text: str) -> str:
    """The page's language as a two-letter code, "unknown" where nothing tells.

    Japanese and Chinese are told by their characters, common languages by their most frequent words, others by
    resiliparse, which alone takes pages of code and formulas for Latin or Dutch (right on 86 % of real manuals' pages,
    96 % in this order).
    """
    start = text[:_START]
    if not start.isascii():
        for language, ranges in (("ja", _KANA), ("zh", _HAN)):
            if np.count_nonzero(_are_within(ranges).take(characters.codes(start))) > _MIN_CJK_SHARE * len(start):
                return language
    counts: Counter = Counter()
    for word, count in Counter(filter(_LANGUAGES_BY_WORD.__contains__, start.lower().split())).items():
        for language in _LANGUAGES_BY_WORD[word]:
            counts[language] += count
    count, language = max(((count, language) for language, count in counts.items()), default=(0, _UNKNOWN))
    return language if count >= _MIN_FUNCTION_WORDS else detect_fast(start)[0]


def parse_languages(text: str) -> list[str]:
    """The languages of "en,zh"; none for "".

    Raises:
      InputError: names one that `detect_language` finds on no page.
    """
    languages = [part for part in (part.strip() for part in text.split(",")) if part]
    known = {*supported_langs(), *_FUNCTION_WORDS, "ja", "zh", _UNKNOWN}
    for name in languages:
        if name not in known:
            raise InputError(
                f"config.languages={text!r}: {name!r} is no language that is told; give two-letter codes of "
                f"{', '.join(sorted(known))}"
            )
    return languages


_are_within = functools.cache(characters.are_within)
