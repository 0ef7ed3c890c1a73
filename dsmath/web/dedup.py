"""Finds pages that say the same: by address, by exact text, and nearly (MinHash over word 5-grams)."""

import hashlib
import re
import urllib.parse
from collections.abc import Sequence

import numpy as np
import rensa

SHINGLE = 5  # words; a Chinese, Japanese or Korean character counts as a word
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(f"[{_CJK}]|[^\\W{_CJK}]+")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# Query fields that name the visit, not the page.
_VISIT = re.compile(r"utm_\w+|gclid|fbclid|msclkid|mc_[ce]id|phpsessid|jsessionid|sid|session_?id", re.IGNORECASE)
_SESSION_PATH = re.compile(r";jsessionid=[^/?]*", re.IGNORECASE)
_ESCAPE = re.compile("%[0-9a-fA-F]{2}")
_UNRESERVED = re.compile("[A-Za-z0-9._~-]")  # these alone mean the same escaped and plain. Source: RFC 3986 §2.3
_RESERVED = "!$&'()*+,;=:@/%"  # kept as they are; a "%" begins an escape
_HASH_SEED = 2402


def normalise_url(url: str) -> str:
    """The key under which two addresses are the same page.

    Drops the scheme, the default port, the fragment, session and campaign fields and the last slash; sorts the
    query; lowers the host; writes every escape alike. The path keeps its case. An address that cannot be parsed is
    its own key.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        host = parts.netloc.rpartition("@")[2].lower().removesuffix(_DEFAULT_PORTS.get(parts.scheme, ":80")).rstrip(".")
    except ValueError:
        return url.strip()
    path = urllib.parse.quote(_ESCAPE.sub(_plain, _SESSION_PATH.sub("", parts.path)), _RESERVED, errors="replace")
    fields = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    kept = sorted(field for field in fields if not _VISIT.fullmatch(field[0]))
    query = urllib.parse.urlencode(kept, errors="replace")
    return f"{host}{path.rstrip('/')}" + (f"?{query}" if query else "")


def words(text: str) -> list[str]:
    """Lower-case words; each CJK character is one."""
    return _WORD.findall(text.lower())


def text_key(text: str) -> bytes:
    """Sixteen bytes that are equal where two texts are equal but for white space."""
    return hashlib.blake2b(" ".join(text.split()).encode(errors="surrogatepass"), digest_size=16).digest()


def signatures(texts: Sequence[str], *, num_hashes: int = 256) -> np.ndarray:
    """MinHash signatures of the texts' word 5-grams; a shorter text is one shingle.

    Returns:
      uint32 [texts, num_hashes]. The share of equal places estimates the Jaccard similarity of two texts, with a
      standard deviation of 0.025 at 0.8 and 256 hashes.
    """
    shingles = [_shingles(hashes) for hashes in rensa.RMinHash.hash_token_sets([words(text) for text in texts])]
    if not shingles:
        return np.zeros((0, num_hashes), np.uint32)
    matrix = rensa.RMinHash.digest_matrix_from_token_hash_sets(shingles, num_hashes, _HASH_SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def near_duplicates(
    texts: Sequence[str], *, threshold: float = 0.8, num_hashes: int = 256, num_bands: int = 32
) -> np.ndarray:
    """Clusters of texts whose word 5-grams have a Jaccard similarity of at least `threshold`, joined transitively.

    Returns:
      int64 [texts]: the cluster of each text, named by the index of its first member. Texts without a word are alone.
    """
    cluster = cluster_signatures(signatures(texts, num_hashes=num_hashes), threshold=threshold, num_bands=num_bands)
    wordless = np.array([_WORD.search(text) is None for text in texts], dtype=bool)
    return np.where(wordless, np.arange(len(texts)), cluster)


def cluster_signatures(signatures_NH: np.ndarray, *, threshold: float = 0.8, num_bands: int = 32) -> np.ndarray:
    """Clusters MinHash signatures: banded LSH finds candidates, equal places decide, union-find joins.

    With 256 hashes in 32 bands of 8, a pair at 0.8 becomes a candidate with probability 0.997, a pair at 0.5 with
    0.12. The work grows with the pages times the clusters of a bucket, not with the pairs of a bucket.

    Args:
      signatures_NH: uint32 [N texts, H hashes]; H must be a multiple of `num_bands`.
      threshold: least share of equal places.
      num_bands: bands of H / num_bands hashes.
    Returns:
      int64 [N]: the cluster of each text, named by the index of its first member.
    """
    count, num_hashes = signatures_NH.shape
    if num_hashes % num_bands:
        raise ValueError(f"{num_hashes} hashes do not divide into {num_bands} bands")
    cluster = np.arange(count)
    for band_NR in np.split(signatures_NH, num_bands, axis=1):
        edges = [edge for bucket in _buckets(band_NR) for edge in _join(bucket, signatures_NH, cluster, threshold)]
        cluster = _union(cluster, edges)
    return cluster


def find_duplicates(
    url_N: Sequence[str],
    url_key_N: Sequence[str],
    text_key_N: Sequence[bytes],
    signatures_NH: np.ndarray,
    *,
    threshold: float = 0.8,
) -> tuple[np.ndarray, np.ndarray]:
    """Decides for every page which page stays in its place, cheapest test first.

    Of pages with one address the first stays; of equal or nearly equal texts the one with the shortest address, the
    alphabet deciding.

    Args:
      url_N: addresses, in the crawl's order.
      url_key_N: of `normalise_url`.
      text_key_N: of `text_key`.
      signatures_NH: of `signatures`.
      threshold: the Jaccard similarity from which texts are near duplicates.
    Returns:
      int64 [N], the page that stays (itself where it stays), and object [N], the kind: "url", "exact", "near" or "".
    """
    kept_N, kind_N = np.arange(len(url_N)), np.full(len(url_N), "", dtype=object)
    by_crawl, by_url = range(len(url_N)), [(len(url), url, number) for number, url in enumerate(url_N)]

    def drop(kind: str, left: np.ndarray, keys: Sequence, rank: Sequence) -> np.ndarray:
        best: dict[object, int] = {}
        for number, key in zip(left.tolist(), keys, strict=True):
            best[key] = min(best.get(key, number), number, key=rank.__getitem__)
        kept_N[left] = [best[key] for key in keys]
        kind_N[left[kept_N[left] != left]] = kind
        return left[kept_N[left] == left]

    left = drop("url", kept_N.copy(), url_key_N, by_crawl)
    left = drop("exact", left, [text_key_N[number] for number in left], by_url)
    cluster = cluster_signatures(signatures_NH[left], threshold=threshold)
    drop("near", left, cluster.tolist(), by_url)
    # The page that stays for an address may itself be dropped as an exact duplicate, and that one as a near one.
    return kept_N[kept_N[kept_N]], kind_N


def _plain(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def _shingles(hashes: Sequence[int]) -> np.ndarray:
    """Hashes of the word 5-grams from the hashes of the words; uint64, wrapping on purpose."""
    word_L = np.array(hashes, dtype=np.uint64)
    length = max(len(word_L) - SHINGLE + 1, 1)
    mixed_L = np.zeros(length, dtype=np.uint64)
    for offset in range(min(SHINGLE, len(word_L))):
        mixed_L = (mixed_L ^ word_L[offset : offset + length]) * np.uint64(0x9E3779B97F4A7C15)
        mixed_L ^= mixed_L >> np.uint64(29)
    return mixed_L


def _buckets(band_NR: np.ndarray) -> list[np.ndarray]:
    """Indices of the rows that are equal, in groups of two and more."""
    key_N = np.ascontiguousarray(band_NR).view(np.dtype((np.void, band_NR.shape[1] * band_NR.itemsize))).ravel()
    _, group_N = np.unique(key_N, return_inverse=True)
    order_N = np.argsort(group_N, kind="stable")
    groups = np.split(order_N, np.flatnonzero(np.diff(group_N[order_N])) + 1)
    return [group for group in groups if len(group) > 1]


def _join(bucket: np.ndarray, signatures_NH: np.ndarray, cluster: np.ndarray, threshold: float) -> list:
    """Edges that connect the bucket's members as far as their similarity does; joined members are not asked again."""
    edges = []
    left = bucket
    while len(left) > 1:
        frontier, left = [left[0]], left[1:]
        while frontier and len(left):
            member = frontier.pop()
            same_M = cluster[left] == cluster[member]
            near_M = same_M.copy()
            new = left[~same_M]
            near_M[~same_M] = (signatures_NH[new] == signatures_NH[member]).mean(axis=1) >= threshold
            edges.extend((member, other) for other in left[near_M & ~same_M])
            frontier.extend(left[near_M])
            left = left[~near_M]
    return edges


def _union(cluster: np.ndarray, edges: list[tuple[int, int]]) -> np.ndarray:
    """Union-find: joins clusters along the edges; a cluster keeps the name of its first member."""
    parent = cluster.tolist()

    def root(page: int) -> int:
        while parent[page] != page:
            parent[page] = page = parent[parent[page]]
        return page

    for first, second in edges:
        low, high = sorted((root(int(first)), root(int(second))))
        parent[high] = low
    return np.array([root(page) for page in range(len(parent))])
