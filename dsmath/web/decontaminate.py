"""Removes from pages the text that benchmarks hold.

A gram is a word or a number (a run of letters or digits) or one Chinese character; case, white space and punctuation
do not count, and full-width letters and digits equal the usual ones. Source: DeepSeekMath §2.1; what a gram is there
the paper does not say.
"""

import glob
import itertools
import json
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dsmath.runs.errors import InputError

NGRAM = 10  # §2.1
SHORTEST = 3  # §2.1: benchmark texts of 3 to 9 grams are matched whole; shorter ones not at all
FIELDS = ("question", "problem", "answer", "solution", "passage", "informal_statement")
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_GRAM = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['’][^\W_{_CJK}]+)*")
_CHUNK = re.compile(r"\w+(?:['’]\w+)*")  # holds whole grams; found faster than these
_REMEMBERED = 2**20  # chunks
_PIECE = re.compile(rf"[{_CJK}]|[^\s{_CJK}]*[^\W_{_CJK}][^\s{_CJK}]*")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that a window's hash modulo 2**64 depends on every gram


class Segment(NamedTuple):
    """A part of a page that holds benchmark text.

    Attributes:
      start: its first character in the page's text.
      end: the character behind it; a segment is made of whole lines, or of the whole page where a benchmark text of
        3 to 9 grams was found.
      benchmark: the benchmark's name.
      ngram: the first grams that matched, with spaces between them unless they are Chinese.
    """

    start: int
    end: int
    benchmark: str
    ngram: str


class Decontaminator:
    """Finds benchmark text in pages; it can be sent to other processes.

    Args:
      benchmark_texts: texts (questions, answers) by the benchmark's name, as `read_benchmarks` gives them, or just
        texts, whose benchmark is then called "benchmark".
    """

    def __init__(self, benchmark_texts: Mapping[str, Iterable[str]] | Iterable[str]):
        by_name = benchmark_texts if isinstance(benchmark_texts, Mapping) else {"benchmark": benchmark_texts}
        self._names = list(by_name)
        self._ids: dict[str, int] = {}  # 0 is kept for grams that no benchmark holds
        windows: dict[int, list[tuple[np.ndarray, np.ndarray, int]]] = {}
        for number, texts in enumerate(by_name.values()):
            for text in texts:
                grams = [_normalize(gram) for gram in _GRAM.findall(text)]
                ids = np.array([self._ids.setdefault(gram, len(self._ids) + 1) for gram in grams], np.int64)
                length = min(len(ids), NGRAM)
                # `\frac{1}{2}` alone has three grams, but it is one piece of text: pages may well hold it.
                if length == NGRAM or (length >= SHORTEST and len(_PIECE.findall(text)) >= SHORTEST):
                    windows.setdefault(length, []).append((ids, _hash_windows(_mix(ids), length), number))
        self._values = _mix(np.arange(len(self._ids) + 1))
        self._chunks = _ChunkIds(self._ids)
        self._tables = {length: _build_table(found, len(self._ids) + 1) for length, found in sorted(windows.items())}

    def contaminated_segments(self, text: str) -> list[Segment]:
        """The segments of a page that hold benchmark text, in order, without overlap."""
        chunks = map(self._chunks.__getitem__, _CHUNK.findall(text))
        ids = np.fromiter(itertools.chain.from_iterable(chunks), np.int64)
        values = self._values[ids]
        unknown = np.concatenate([[0], np.cumsum(ids == 0)])  # grams that no benchmark holds, up to each place
        matches: list[tuple[int, int]] = []  # position, benchmark
        for length, (hashes, numbers, is_first) in self._tables.items():
            count = max(len(ids) - length + 1, 0)
            starts = np.flatnonzero(is_first[ids[:count]] & (unknown[length:] == unknown[:count]))
            found = _find(values, starts, length, hashes)
            if len(found) and length < NGRAM:
                position, row = found[0]
                grams = _GRAM.findall(text)[position : position + length]
                return [Segment(0, len(text), self._names[numbers[row]], _join(grams))]
            matches += [(int(position), int(numbers[row])) for position, row in found]
        return self._merge(text, matches) if matches else []

    def clean(self, text: str) -> tuple[str, list[Segment]]:
        """A page without its contaminated segments.

        Returns:
          What remains ("" where the whole page goes; the same text where nothing was found), and what was removed.
        """
        segments = self.contaminated_segments(text)
        kept, position = [], 0
        for segment in segments:
            kept.append(text[position : segment.start])
            position = segment.end
        kept.append(text[position:])
        return "".join(kept) if segments else text, segments

    def _merge(self, text: str, matches: list[tuple[int, int]]) -> list[Segment]:
        """Whole lines around the matches; overlapping ones become one, named after its first match."""
        found = list(_GRAM.finditer(text))
        segments: list[Segment] = []
        for position, number in matches:
            start = text.rfind("\n", 0, found[position].start()) + 1
            line_end = text.find("\n", found[position + NGRAM - 1].end())
            end = len(text) if line_end < 0 else line_end + 1
            if segments and start < segments[-1].end:
                segments[-1] = segments[-1]._replace(end=max(end, segments[-1].end))
            else:
                ngram = _join([match[0] for match in found[position : position + NGRAM]])
                segments.append(Segment(start, end, self._names[number], ngram))
        return segments


def read_benchmarks(pattern: str) -> dict[str, list[str]]:
    """The texts of benchmark files by name: of each record its question, problem, answer, solution and the like.

    Args:
      pattern: folders (all `.jsonl` files below them), files or globs, separated by commas.
    Returns:
      Texts by "folder/file", such as "gsm8k/test"; nothing where the pattern is empty.
    Raises:
      InputError: a part matches no file, a line is no JSON object, or a file holds no such field.
    """
    texts: dict[str, list[str]] = {}
    for path in _find_files(pattern):
        name = f"{path.parent.name}/{path.stem}"
        texts.setdefault(name, []).extend(_read_file(path))
    return texts


def _find_files(pattern: str) -> list[pathlib.Path]:
    found: set[pathlib.Path] = set()
    for part in filter(None, (part.strip() for part in pattern.split(","))):
        folder = pathlib.Path(part)
        matches = folder.rglob("*.jsonl") if folder.is_dir() else map(pathlib.Path, glob.glob(part, recursive=True))
        files = {path for path in matches if path.is_file()}
        if not files:
            raise InputError(f"config.benchmarks: {part!r} matches no file; give JSON-lines files or their folder")
        found |= files
    return sorted(found)


def _read_file(path: pathlib.Path) -> Iterator[str]:
    is_useful = False
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):  # not splitlines: U+2028
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            values = [record.get(field) for field in FIELDS]
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path}:{number}: not a JSON object; config.benchmarks takes JSON-lines files") from error
        for value in values:
            if isinstance(value, str):
                is_useful = True
                yield value
    if not is_useful:
        raise InputError(
            f"{path}: no record has a text in any of {', '.join(FIELDS)}; leave it out of config.benchmarks"
        )


class _ChunkIds(dict):
    """The ids of the grams in a chunk of text, remembered by chunk: most chunks are one gram, and seen before."""

    def __init__(self, ids: dict[str, int]):
        super().__init__()
        self._ids = ids

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        found = tuple(self._ids.get(_normalize(gram), 0) for gram in _GRAM.findall(chunk))
        if len(self) < _REMEMBERED:
            self[chunk] = found
        return found

    def __reduce__(self):
        return _ChunkIds, (self._ids,)


def _normalize(gram: str) -> str:
    return unicodedata.normalize("NFKC", gram).casefold().replace("'", "").replace("’", "")


def _join(grams: list[str]) -> str:
    grams = [_normalize(gram) for gram in grams]
    return "".join(
        gram if not index or (_is_cjk(gram) and _is_cjk(grams[index - 1])) else f" {gram}"
        for index, gram in enumerate(grams)
    )


def _is_cjk(gram: str) -> bool:
    return len(gram) == 1 and re.match(f"[{_CJK}]", gram) is not None


def _hash_windows(values: np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of every window of `length` values: uint64 [len(values) - length + 1]."""
    return _hash_at(values, np.arange(len(values) - length + 1), length)


def _hash_at(values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    hashes = np.zeros(len(starts), np.uint64)
    for offset in range(length):
        hashes = hashes * _MULTIPLIER + values[starts + offset]
    return hashes


def _mix(ids: np.ndarray) -> np.ndarray:
    """Spreads small numbers over 64 bits: uint64 of the same shape. Source: Steele et al. 2014, SplitMix64."""
    mixed = (ids.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _build_table(
    found: list[tuple[np.ndarray, np.ndarray, int]], num_ids: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted hashes without repeats, the benchmark of each, and which ids a window can start with."""
    is_first = np.zeros(num_ids, bool)
    for ids, hashes, _ in found:
        is_first[ids[: len(hashes)]] = True
    hashes = np.concatenate([hashes for _, hashes, _ in found])
    numbers = np.concatenate([np.full(len(hashes), number, np.uint16) for _, hashes, number in found])
    unique, first = np.unique(hashes, return_index=True)
    return unique, numbers[first], is_first


def _find(values: np.ndarray, starts: np.ndarray, length: int, table: np.ndarray) -> np.ndarray:
    """Pairs of a window's position and its row in the table: int64 [matches, 2]."""
    hashes = _hash_at(values, starts, length)
    rows = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
    is_found = table[rows] == hashes
    return np.stack([starts[is_found], rows[is_found]], axis=1)
