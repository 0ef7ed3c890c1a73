"""Removes from pages the text that benchmarks hold. Source: DeepSeekMath §2.1."""

import itertools
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import replacing
from dsmath.web.benchmark_texts import BenchmarkText
from dsmath.web.grams import GramCutter, gram_value, is_word, join_grams

NGRAM = 10  # §2.1
SHORTEST = 3  # §2.1: benchmark texts of 3 to 9 grams are matched whole; shorter ones not at all
MIN_WORDS = 2  # ours: words and Chinese characters of a run that counts; `1 2 3 4 5 …` and `x y x y …` have none
MIN_DISTINCT = 4  # ours: different grams of a run that counts
REACH = 500  # characters of a line on either side of a match that go with it
_AUDITED = 500  # characters of a segment that are kept for people

CONTAMINATED_SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("benchmark", pa.string()),
        ("item", pa.string()),
        ("ngram", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.string()),
        ("dropped", pa.bool_()),
    ]
)

_GRAM_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that a run's hash modulo 2**64 depends on every gram
_FILTER_BITS, _SHORT_FILTER_BITS = 26, 20
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？；]")


class Segment(NamedTuple):
    """A part of a page that holds benchmark text.

    Attributes:
      start: its first character in the page's text.
      end: the character behind it. A segment is made of whole lines; where a line reaches more than 500 characters
        beyond the match, the segment ends with the match's sentence, or within these characters. It is the whole page
        where a benchmark text of 3 to 9 grams was found.
      benchmark: the benchmark's name.
      ngram: the first grams that matched, with spaces between them unless they are Chinese.
      item: the benchmark's item that most of the matches belong to.
      text: its first 500 characters.
      dropped: whether the whole page goes.
    """

    start: int
    end: int
    benchmark: str
    ngram: str
    item: str
    text: str
    dropped: bool = False


class Cleaned(NamedTuple):
    """A page without its contaminated segments.

    Attributes:
      text: what remains, "" where the whole page goes; the page itself where nothing was found.
      segments: what was removed, in order, without overlap, at its places in the page.
    """

    text: str
    segments: list[Segment]


class Decontaminator:
    """Finds benchmark text in pages; it can be sent to other processes, or saved for them.

    A page is compared with every run of 10 grams of every benchmark text, by hashes of 64 bits. Ours: a run with fewer
    than 2 words tells nothing and does not count, unless its text has no others, nor does one with fewer than 4
    different grams; texts of 3 to 9 grams are matched where they ask something and hold a word, for answers and options
    of that length ("all of these") stand on one page in ten.

    Args:
      benchmark_texts: texts by the benchmark's name, as `read_benchmarks` gives them or plain strings (each counts as a
        question), or just texts, whose benchmark is then called "benchmark".
      max_removed: a page that would lose more than this share of its characters goes whole.
    """

    def __init__(
        self,
        benchmark_texts: Mapping[str, Iterable[BenchmarkText | str]] | Iterable[BenchmarkText | str],
        *,
        max_removed: float = 0.5,
    ):
        if not 0 <= max_removed <= 1:
            raise InputError(f"max_removed={max_removed}: is no share of a page; give a number from 0 to 1")
        by_name = benchmark_texts if isinstance(benchmark_texts, Mapping) else {"benchmark": benchmark_texts}
        self._max_removed = max_removed
        self._items: list[tuple[str, str]] = []  # benchmark, item
        self._short_items: dict[tuple[int, ...], int] = {}  # the grams' values -> item
        vocabulary: dict[str, int] = {}
        ids, owners = [], []
        cutter = GramCutter()
        for text in self._number_texts(by_name):
            grams = cutter.grams(text.text)[0]
            if len(grams) >= NGRAM:
                ids.append([vocabulary.setdefault(gram, len(vocabulary)) for gram in grams])
                owners.append(len(self._items) - 1)
            elif text.is_question and len(grams) >= SHORTEST and any(map(is_word, grams)):
                self._short_items.setdefault(tuple(map(gram_value, grams)), len(self._items) - 1)
        self._cutter = GramCutter(vocabulary)
        self._hash_W, self._item_W = _tabulate(ids, owners, list(vocabulary))
        self._filter = _make_filter(self._hash_W, _FILTER_BITS)
        self._make_short_filter()

    def _number_texts(self, by_name: Mapping[str, Iterable[BenchmarkText | str]]) -> Iterator[BenchmarkText]:
        """The texts one by one; the last of `self._items` is always the text's own."""
        for name, texts in by_name.items():
            if isinstance(texts, str):
                raise TypeError(f"benchmark_texts: {name!r} has a text; give a list of texts")
            for number, text in enumerate(texts, 1):
                text = BenchmarkText(str(number), text, is_question=True) if isinstance(text, str) else text
                if not self._items or self._items[-1] != (name, text.item):
                    self._items.append((name, text.item))
                yield text

    def _make_short_filter(self) -> None:
        value_SG = np.array([values[:SHORTEST] for values in self._short_items], np.uint64).reshape(-1, SHORTEST)
        self._short_filter = _make_filter(_hash_runs(value_SG.T, SHORTEST)[0], _SHORT_FILTER_BITS)

    def save(self, path: str | os.PathLike) -> None:
        """Writes one file, atomically; to load it is quicker than to read the benchmarks again."""
        shorts = list(self._short_items.items())
        texts = {"items": self._items, "known": sorted(self._cutter.known), "shorts": shorts}
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                hashes=self._hash_W,
                items=self._item_W,
                filter=self._filter,  # to make it takes as long as to read all the rest
                max_removed=self._max_removed,
                texts=np.frombuffer(json.dumps(texts).encode(), np.uint8),
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Decontaminator":
        """Reads the file that `save` wrote.

        Raises:
          InputError: absent or damaged.
        """
        self = cls.__new__(cls)
        try:
            with np.load(path) as arrays:
                texts = json.loads(arrays["texts"].tobytes())
                self._hash_W, self._item_W, self._filter = arrays["hashes"], arrays["items"], arrays["filter"]
                self._max_removed = float(arrays["max_removed"])
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; run the stage that writes it first") from error
        except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: no saved Decontaminator ({error}); remove it and run its stage again") from error
        self._items = [tuple(item) for item in texts["items"]]
        self._cutter = GramCutter(texts["known"])
        self._short_items = {tuple(values): item for values, item in texts["shorts"]}
        self._make_short_filter()
        return self

    def contaminated_segments(self, text: str) -> list[Segment]:
        """The segments of a page that hold benchmark text, in order, without overlap."""
        value_N = self._cutter.values(text)
        short = self._find_short(value_N)
        if short is not None:
            start, end, item = short
            return [self._segment(text, 0, len(text), item, self._cutter.grams(text)[0][start:end], dropped=True)]
        position_M, item_M = self._find_runs(value_N)
        return self._cut_segments(text, position_M, item_M) if len(position_M) else []

    def clean(self, text: str) -> Cleaned:
        """Removes the contaminated segments, until what remains holds no benchmark text."""
        segments = self.contaminated_segments(text)
        rest = text
        while segments:
            kept = _between(segments, len(text))
            rest = "".join(text[start:end] for start, end in kept)
            removed = 1 - len(rest) / len(text)
            if segments[0].dropped or removed > self._max_removed or not rest.strip():
                return Cleaned("", [segment._replace(dropped=True) for segment in segments])
            found = self.contaminated_segments(rest)  # what was apart may read on
            if not found:
                break
            segments = _add_segments(text, segments, found, kept)
        return Cleaned(rest, segments)

    def _find_short(self, value_N: np.ndarray) -> tuple[int, int, int] | None:
        """The first whole text of 3 to 9 grams: its first gram, the gram behind it, its item."""
        for start in _filter(self._short_filter, _hash_runs(value_N, SHORTEST)).tolist():
            values = value_N[start : start + NGRAM - 1].tolist()
            for length in range(SHORTEST, len(values) + 1):
                item = self._short_items.get(tuple(values[:length]))
                if item is not None:
                    return start, start + length, item
        return None

    def _find_runs(self, value_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the runs of 10 grams that benchmarks hold, and their items: int64 [M], uint32 [M]."""
        hash_N = _hash_runs(value_N, NGRAM)
        position_M = _filter(self._filter, hash_N)
        row_M = np.minimum(np.searchsorted(self._hash_W, hash_N[position_M]), len(self._hash_W) - 1)
        is_found_M = self._hash_W[row_M] == hash_N[position_M]
        return position_M[is_found_M], self._item_W[row_M[is_found_M]]

    def _cut_segments(self, text: str, position_M: np.ndarray, item_M: np.ndarray) -> list[Segment]:
        grams, starts, ends = self._cutter.grams(text)
        # Less than a run between two matches is a scrap: it goes with them.
        breaks = np.flatnonzero(np.diff(position_M) >= 2 * NGRAM) + 1
        spans: list[list[int]] = []  # start, end, first match, match behind the last
        for first, last in itertools.pairwise([0, *breaks.tolist(), len(position_M)]):
            start, end = _widen(text, starts[position_M[first]], ends[position_M[last - 1] + NGRAM - 1])
            if spans and start < spans[-1][1]:
                spans[-1][1], spans[-1][3] = max(end, spans[-1][1]), last
            else:
                spans.append([start, end, first, last])
        segments = []
        for start, end, first, last in spans:
            items = item_M[first:last].tolist()
            item = Counter(items).most_common(1)[0][0]
            position = position_M[first + items.index(item)]
            segments.append(self._segment(text, start, end, item, grams[position : position + NGRAM]))
        return segments

    def _segment(
        self, text: str, start: int, end: int, item: int, grams: Sequence[str], *, dropped: bool = False
    ) -> Segment:
        benchmark, name = self._items[item]
        return Segment(start, end, benchmark, join_grams(grams), name, _excerpt(text, start, end), dropped)


def audit_table(found: Iterable[tuple[str, Segment]]) -> pa.Table:
    """The rows of `contaminated.parquet`.

    Args:
      found: removed segments, each with its page's address.
    """
    rows = [{"url": url, **segment._asdict()} for url, segment in found]
    return pa.Table.from_pylist(rows, schema=CONTAMINATED_SCHEMA)


def _excerpt(text: str, start: int, end: int) -> str:
    return text[start : min(end, start + _AUDITED)]


def _widen(text: str, start: int, end: int) -> tuple[int, int]:
    """The lines around a match; where they reach far beyond it, its sentences, or what lies near."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end) + 1 or len(text)
    if start - line_start > REACH:
        near = start - REACH
        sentence_ends = [found.end() for found in _SENTENCE_END.finditer(text, near, start)]
        line_start = sentence_ends[-1] if sentence_ends else text.find(" ", near, start) + 1 or near
    if line_end - end > REACH:
        near = end + REACH
        sentence_end = _SENTENCE_END.search(text, end, near)
        space = text.rfind(" ", end, near)
        line_end = sentence_end.end() if sentence_end else (space if space >= 0 else near)
    return line_start, line_end


def _between(segments: Sequence[Segment], length: int) -> list[tuple[int, int]]:
    """The places of a text of this length that no segment covers."""
    starts = [0, *(segment.end for segment in segments)]
    ends = [*(segment.start for segment in segments), length]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def _add_segments(
    text: str, segments: Sequence[Segment], found: Sequence[Segment], kept: Sequence[tuple[int, int]]
) -> list[Segment]:
    """The segments together with those that were found where the kept parts had been joined.

    One that spans a removed segment becomes part of it.
    """
    ends = np.cumsum([end - start for start, end in kept])
    shifts = np.array([end for _, end in kept]) - ends
    for segment in found:
        first, last = np.searchsorted(ends, [segment.start, segment.end - 1], side="right")
        start, end = int(segment.start + shifts[first]), int(segment.end + shifts[last])
        spanned = [one for one in segments if start < one.end and one.start < end]
        if spanned:
            start, end = min(start, spanned[0].start), max(end, spanned[-1].end)
        name = spanned[0] if spanned else segment
        added = name._replace(start=start, end=end, text=_excerpt(text, start, end), dropped=segment.dropped)
        segments = sorted([*(one for one in segments if one not in spanned), added])
    return list(segments)


def _hash_runs(value_N: np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of every run of `length` values: uint64 [max(N - length + 1, 0)]."""
    if length == 1:
        return value_N
    if length % 2:
        return _hash_runs(value_N[:-1], length - 1) * np.uint64(_GRAM_MULTIPLIER) + value_N[length - 1 :]
    half = length // 2
    hash_N = _hash_runs(value_N, half)
    return hash_N[:-half] * np.uint64(pow(_GRAM_MULTIPLIER, half, 2**64)) + hash_N[half:]


def _make_filter(hashes: np.ndarray, num_bits: int) -> np.ndarray:
    """2**num_bits bits of which each hash sets the one that its first bits name: uint8 [2**num_bits / 8]."""
    bit_W = hashes >> np.uint64(64 - num_bits)
    bits = np.zeros(2**num_bits // 8, np.uint8)
    np.bitwise_or.at(bits, bit_W >> np.uint64(3), np.uint8(1) << (bit_W & np.uint64(7)).astype(np.uint8))
    return bits


def _filter(bits: np.ndarray, hash_N: np.ndarray) -> np.ndarray:
    """Positions of the hashes that may be among those that made the filter: int64."""
    num_bits = len(bits).bit_length() + 2
    place_N = (hash_N >> np.uint64(64 - num_bits)).view(np.int64)
    return np.flatnonzero((bits[place_N >> 3] >> (place_N & 7).astype(np.uint8)) & 1)


def _tabulate(
    ids: Sequence[Sequence[int]], owners: Sequence[int], vocabulary: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all runs that count, ascending without repeats, and the first item of each: uint64, uint32 [W].

    Args:
      ids: of each text its grams, as places in the vocabulary.
      owners: of each text its item.
      vocabulary: the grams.
    """
    if not ids:
        return np.zeros(1, np.uint64), np.zeros(1, np.uint32)
    id_N = np.concatenate([np.array(found, np.int64) for found in ids])
    text_N = np.repeat(np.arange(len(ids)), [len(found) for found in ids])
    words = np.cumsum(np.append(0, np.array([is_word(gram) for gram in vocabulary])[id_N]))
    order = np.argsort(id_N, kind="stable")
    before_N = np.full(len(id_N), -1)  # the last place of the same gram
    is_same = id_N[order[1:]] == id_N[order[:-1]]
    before_N[order[1:][is_same]] = order[:-1][is_same]
    place_W = np.arange(len(id_N) - NGRAM + 1)
    distinct_W = sum((before_N[place_W + offset] < place_W).astype(np.int8) for offset in range(NGRAM))
    is_run_W = (text_N[place_W] == text_N[place_W + NGRAM - 1]) & (distinct_W >= MIN_DISTINCT)
    is_telling_W = is_run_W & (words[place_W + NGRAM] - words[place_W] >= MIN_WORDS)
    is_formula_T = np.ones(len(ids), bool)
    is_formula_T[text_N[place_W[is_telling_W]]] = False
    place_W = np.flatnonzero(is_telling_W | (is_run_W & is_formula_T[text_N[place_W]]))
    value_V = np.array([gram_value(gram) for gram in vocabulary], np.uint64)
    hash_W, first_W = np.unique(_hash_runs(value_V[id_N], NGRAM)[place_W], return_index=True)
    return hash_W, np.array(owners, np.uint32)[text_N[place_W[first_W]]]
