"""The documents of dedup.py: made by their numbers, with planted near duplicates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsmath.runs.workdir import replacing
from dsmath.web import dedup

PER_FILE = 20_000
_SEED = 2402
_VOCABULARY, _LENGTHS = 50_000, (120, 201)
_PLANTED, _SIZES, _CHAINS, _COPIES, _LETTERS = 0.2, (2, 6), 1 / 3, 0.05, 0.05
_SIMILARITIES = (0.6, 1.0)


class WriteDocuments:
    """Worker: writes documents as extraction does, and the planted pairs whose first document is among them."""

    def __init__(self, count: int):
        self._count = count
        ranks = np.arange(1, _VOCABULARY + 1)
        self._cumulative = np.cumsum(1 / ranks) / np.sum(1 / ranks)
        self._vocabulary = np.array([np.base_repr(rank, 36).lower() for rank in ranks], dtype=object)
        self._cluster_N, self._member_N, self._pages = plant(count)

    def run(self, task: Mapping[str, Any]) -> None:
        """Writes `task["output"]`, and before it `task["signatures"]` and `task["truth"]`."""
        numbers = range(task["start"], min(task["start"] + PER_FILE, self._count))
        texts = [self._text(number) for number in numbers]
        urls = [url(number) for number in numbers]
        pages = {
            "url": urls,
            "url_key": pa.array([dedup.url_key(one) for one in urls], pa.binary(16)),
            "text_key": pa.array([dedup.text_key(text) for text in texts], pa.binary(16)),
        }
        with replacing(task["signatures"]) as path, open(path, "wb") as file:
            np.save(file, dedup.page_signatures(texts))
        with replacing(task["truth"]) as path:
            pq.write_table(self._pairs(numbers), path)
        with replacing(task["output"]) as path:
            pq.write_table(pa.table(pages), path)

    def _text(self, number: int) -> str:
        cluster, member = int(self._cluster_N[number]), int(self._member_N[number])
        if cluster < 0:
            return self._spell(self._draw(np.random.default_rng((_SEED, 0, number))))
        documents, letters = self._variants(cluster, member + 1)
        text = self._spell(documents[member])
        return text.upper() if letters[member] else text

    def _variants(self, cluster: int, count: int) -> tuple[list[np.ndarray], list[bool]]:
        """The first documents of a cluster, and which of them are in other letters."""
        rng = np.random.default_rng((_SEED, 1, cluster))
        documents, letters = [self._draw(rng)], [False]
        is_chain = rng.random() < _CHAINS
        while len(documents) < count:
            lot = rng.random()
            parent = documents[-1 if is_chain else 0]
            documents.append(parent if lot < _COPIES + _LETTERS else self._edit(parent, rng))
            letters.append(_COPIES <= lot < _COPIES + _LETTERS)
        return documents, letters

    def _edit(self, words_L: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        similarity, kind = rng.uniform(*_SIMILARITIES), rng.integers(4)
        shingles = len(words_L) - dedup.SHINGLE + 1
        # Replacing changes as many 5-grams on both sides; what is put in or cut off is on one side only.
        replaced = round(shingles * (1 - similarity) / (1 + similarity))
        changed = words_L.copy()
        if kind == 0:
            places = rng.choice(len(words_L), max(replaced // dedup.SHINGLE, 1), replace=False)
            changed[places] = self._draw(rng)[: len(places)]
        elif kind == 1:
            length = max(replaced - dedup.SHINGLE + 1, 1)
            start = rng.integers(len(words_L) - length)
            changed[start : start + length] = self._draw(rng)[:length]
        elif kind == 2:
            length = max(round(shingles * (1 / similarity - 1)) - dedup.SHINGLE + 1, 1)
            changed = np.insert(words_L, rng.integers(len(words_L)), self._draw(rng)[:length])
        else:
            changed = words_L[: len(words_L) - max(round(shingles * (1 - similarity)), 1)]
        return changed

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        return np.searchsorted(self._cumulative, rng.random(rng.integers(*_LENGTHS)))

    def _spell(self, words_L: np.ndarray) -> str:
        return " ".join(self._vocabulary[np.minimum(words_L, _VOCABULARY - 1)])

    def _pairs(self, numbers: range) -> pa.Table:
        rows: dict[str, list] = {"first": [], "second": [], "similarity": []}
        for number in numbers:
            if self._member_N[number] or self._cluster_N[number] < 0:
                continue
            pages = self._pages[self._cluster_N[number]]
            documents, _ = self._variants(int(self._cluster_N[number]), len(pages))
            sets = [_shingles(words_L) for words_L in documents]
            for second in range(1, len(pages)):
                for first in range(second):
                    rows["first"].append(pages[first])
                    rows["second"].append(pages[second])
                    rows["similarity"].append(len(sets[first] & sets[second]) / len(sets[first] | sets[second]))
        return pa.table(rows, pa.schema([("first", pa.int64()), ("second", pa.int64()), ("similarity", pa.float64())]))


def plant(count: int) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Where the planted clusters lie.

    Returns:
      int64 [count], the cluster of each document, -1 for none; int64 [count], its place among the members; the
      documents of each cluster.
    """
    rng = np.random.default_rng(_SEED)
    sizes = rng.integers(*_SIZES, size=int(count * _PLANTED / np.mean(range(*_SIZES))))
    chosen = rng.permutation(count)[: sizes.sum()]
    pages = [part.tolist() for part in np.split(chosen, np.cumsum(sizes)[:-1])]
    cluster_N, member_N = np.full(count, -1), np.zeros(count, np.int64)
    cluster_N[chosen] = np.repeat(np.arange(len(sizes)), sizes)
    member_N[chosen] = np.concatenate([np.arange(size) for size in sizes])
    return cluster_N, member_N, pages


def url(number: int) -> str:
    """The address of a document; it ends with its number."""
    return f"https://host-{number % 997}.example/{'archive/' * (number % 3)}{number}"


def _shingles(words_L: np.ndarray) -> set[bytes]:
    windows = np.lib.stride_tricks.sliding_window_view(words_L, dedup.SHINGLE)
    return {window.tobytes() for window in windows}
