"""Clusters of near duplicates: bands of MinHash values find candidates, equal values decide, union-find joins.

The union-find works on arrays, in memory or on disk: `link_N[page]` is 1 + a page of the same cluster with a lower
number, 1 + the page itself for a cluster's first page, 0 for a page that was never joined.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_MOST_ASKED = 1000  # members of a bucket that are compared with all others of it
_PAIRS = 2**15  # compared at a time
_ODD = np.uint64(0x9E3779B97F4A7C15)


class Buckets(NamedTuple):
    """Pages that share a key, in groups of two and more.

    Attributes:
      page_M: int64 [M], bucket after bucket.
      size_B: int64 [B], members of each bucket.
    """

    page_M: np.ndarray
    size_B: np.ndarray


def rows_of_band(threshold: float) -> int:
    """Values in a band, such that a pair at the threshold shares one with a probability of 0.98 or more.

    Source: with 256 values in bands of r, the probability at similarity s is 1 - (1 - s^r)^(256 / r).
    """
    if not 0.5 <= threshold <= 1:
        raise ValueError(f"threshold={threshold} is outside [0.5, 1]")
    return 8 if threshold >= 0.775 else 4


def least_matches(threshold: float, num_values: int) -> int:
    """Equal values from which two signatures count as near.

    Values of 8 bits are equal by chance once in 256. Source: Li & König, b-Bit Minwise Hashing (WWW 2010), eq. 5.
    """
    chance = 1 / 256
    return int(np.ceil(num_values * (chance + (1 - chance) * threshold) - 1e-9))


def band_keys(signature_NH: np.ndarray, rows: int) -> np.ndarray:
    """Keys that are equal where two pages agree on a whole band.

    Args:
      signature_NH: uint8 [N pages, H values].
      rows: values in a band, 4 or 8.
    Returns:
      uint64 [N, H / rows], spread evenly; those of different bands never meet but by chance.
    """
    values = np.ascontiguousarray(signature_NH).view(np.uint64 if rows == 8 else np.uint32)
    key_NB = values ^ (np.arange(1, values.shape[1] + 1, dtype=np.uint64) * _ODD)
    return mix(key_NB)


def mix(number: np.ndarray) -> np.ndarray:
    """Spreads uint64 numbers evenly, one to one. Source: the finaliser of MurmurHash3."""
    number = (number ^ (number >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    number = (number ^ (number >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return number ^ (number >> np.uint64(33))


def find_buckets(key_K: np.ndarray, page_K: np.ndarray) -> Buckets:
    """Groups the pages that share a key; pages that share none are left out."""
    order = np.argsort(key_K)
    key_K, page_K = key_K[order], page_K[order]
    start_B = np.flatnonzero(np.concatenate([[True], key_K[1:] != key_K[:-1]])) if len(key_K) else np.zeros(0, int)
    size_B = np.diff(start_B, append=len(key_K))
    return Buckets(page_K[np.repeat(size_B > 1, size_B)], size_B[size_B > 1])


def split_buckets(buckets: Buckets, most_members: int) -> Iterator[Buckets]:
    """The buckets in groups of so many members, or of one larger bucket."""
    end_B = np.cumsum(buckets.size_B)
    first, done = 0, 0
    while first < len(end_B):
        last = max(int(np.searchsorted(end_B, done + most_members, side="right")), first + 1)
        yield Buckets(buckets.page_M[done : end_B[last - 1]], buckets.size_B[first:last])
        first, done = last, end_B[last - 1]


def join_buckets(buckets: Buckets, signature_NH: np.ndarray, link_N: np.ndarray, least: int) -> int:
    """Joins the members of each bucket that are near, transitively; members already joined are not compared.

    In a bucket of up to 1,000 members every pair is decided, so what is joined does not depend on the order of pages
    or buckets. In a larger one (boilerplate) a member is compared with up to 1,000 leaders, the first members that
    are near to none before them: the work grows with the members times the clusters, not with the pairs.

    Args:
      buckets: their pages are rows of `signature_NH`.
      signature_NH: uint8 [N, H].
      link_N: changed in place.
      least: equal values from which two pages are near.
    Returns:
      the members of larger buckets that 1,000 leaders left undecided.
    """
    is_large_B = buckets.size_B > _MOST_ASKED
    is_large_M = np.repeat(is_large_B, buckets.size_B)
    undecided = 0
    large_M, large_B = buckets.page_M[is_large_M], buckets.size_B[is_large_B]
    for page_M in np.split(large_M, np.cumsum(large_B)[:-1]) if len(large_B) else []:
        undecided += _join_leaders(np.sort(page_M), signature_NH, link_N, least)
    small = Buckets(buckets.page_M[~is_large_M], buckets.size_B[~is_large_B])
    asker = 0
    while len(small.size_B):
        _join_with(asker, small, signature_NH, link_N, least)
        asker += 1
        small = _unfinished(asker, small, link_N)
    return undecided


def join(link_N: np.ndarray, first_E: np.ndarray, second_E: np.ndarray) -> None:
    """Joins the clusters of pages along edges; a cluster's lowest page stays its root.

    Args:
      link_N: int64 [N], in memory or on disk; changed in place.
      first_E, second_E: int64 [E], the pages that each edge connects.
    """
    for page_E in (first_E, second_E):
        new_E = page_E[link_N[page_E] == 0]
        link_N[new_E] = new_E + 1
    while len(first_E):
        first_E, second_E = find_roots(link_N, first_E), find_roots(link_N, second_E)
        differs_E = first_E != second_E
        first_E, second_E = first_E[differs_E], second_E[differs_E]
        np.minimum.at(link_N, np.maximum(first_E, second_E), np.minimum(first_E, second_E) + 1)


def find_roots(link_N: np.ndarray, page_E: np.ndarray) -> np.ndarray:
    """The lowest page of each joined page's cluster; halves the ways to it, so that long chains cost a logarithm."""
    while True:
        parent_E = link_N[page_E] - 1
        grandparent_E = link_N[parent_E] - 1
        if np.array_equal(parent_E, grandparent_E):
            return parent_E
        link_N[page_E] = grandparent_E + 1


def _join_with(asker: int, buckets: Buckets, signature_NH: np.ndarray, link_N: np.ndarray, least: int) -> None:
    """Compares the member number `asker` of every bucket with those behind it."""
    end_B = np.cumsum(buckets.size_B)
    others_B = buckets.size_B - asker - 1
    place_P = np.repeat(end_B - np.cumsum(others_B), others_B) + np.arange(others_B.sum())
    first_P = np.repeat(buckets.page_M[end_B - buckets.size_B + asker], others_B)
    second_P = buckets.page_M[place_P]
    for start in range(0, len(first_P), _PAIRS):
        first, second = first_P[start : start + _PAIRS], second_P[start : start + _PAIRS]
        apart = _roots_or_pages(link_N, first) != _roots_or_pages(link_N, second)
        first, second = first[apart], second[apart]
        near = _count_matches(signature_NH, first, second) >= least
        join(link_N, first[near], second[near])


def _unfinished(asker: int, buckets: Buckets, link_N: np.ndarray) -> Buckets:
    """The buckets whose members from number `asker` on are two at least and not all joined with all the others."""
    start_B = np.cumsum(buckets.size_B) - buckets.size_B
    root_M = _roots_or_pages(link_N, buckets.page_M)
    is_apart_B = np.minimum.reduceat(root_M, start_B) != np.maximum.reduceat(root_M, start_B)
    left_B = is_apart_B & (buckets.size_B > asker + 1)
    return Buckets(buckets.page_M[np.repeat(left_B, buckets.size_B)], buckets.size_B[left_B])


def _join_leaders(page_M: np.ndarray, signature_NH: np.ndarray, link_N: np.ndarray, least: int) -> int:
    for _ in range(_MOST_ASKED):
        leader, page_M = page_M[0], page_M[1:]
        near_M = np.zeros(len(page_M), bool)
        for start in range(0, len(page_M), _PAIRS):
            second = page_M[start : start + _PAIRS]
            matches = _count_matches(signature_NH, np.full(len(second), leader), second)
            near_M[start : start + _PAIRS] = matches >= least
        join(link_N, np.full(near_M.sum(), leader), page_M[near_M])
        page_M = page_M[~near_M]
        if not len(page_M):
            break
    return len(page_M)


def _roots_or_pages(link_N: np.ndarray, page_E: np.ndarray) -> np.ndarray:
    root_E = page_E.copy()
    joined_E = link_N[page_E] > 0
    root_E[joined_E] = find_roots(link_N, page_E[joined_E])
    return root_E


def _count_matches(signature_NH: np.ndarray, first_P: np.ndarray, second_P: np.ndarray) -> np.ndarray:
    """Equal values of each pair of pages."""
    equal_PH = signature_NH[first_P] == signature_NH[second_P]
    # Eight values at a time, as bytes of one number: H / 8 of them stay below 256.
    sum_P8 = equal_PH.view(np.uint64).sum(axis=1, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    return sum_P8.sum(axis=1, dtype=np.int64)
