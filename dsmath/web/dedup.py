"""What tells pages apart: keys of addresses and texts, MinHash signatures of word 5-grams."""

import functools
import hashlib
import itertools
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import rensa

from dsmath.web import characters, clusters

NUM_HASHES = 256
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
_WHITE = b" \t\n\r\f\v"
_NO_BREAK_SPACE = "\u00a0".encode()
_HASH_SEED = 2402
_BATCH = 500  # texts that are hashed together
_PIECE = 2**14  # characters that are hashed together; they fit a core's cache
_BASE = 0x9E3779B97F4A7C15  # odd: it has an inverse modulo 2^64
_POWER, _INVERSE_POWER = (
    np.cumprod(np.r_[1, np.full(_PIECE - 1, base)].astype(np.uint64)) for base in (_BASE, pow(_BASE, -1, 2**64))
)
_BETWEEN, _LETTER, _CJK_LETTER = 0, 1, 2


def normalise_url(url: str) -> str:
    """The address under which two addresses are the same page.

    Drops the scheme, the default port, the fragment, session and campaign fields and the last slash; sorts the
    query; lowers the host; writes every escape alike. The path keeps its case. An address that cannot be parsed is
    its own key.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        name = _host(parts)
    except ValueError:
        return url.strip()
    path = urllib.parse.quote(_ESCAPE.sub(_plain, _SESSION_PATH.sub("", parts.path)), _RESERVED, errors="replace")
    fields = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    kept = sorted(field for field in fields if not _VISIT.fullmatch(field[0]))
    query = urllib.parse.urlencode(kept, errors="replace")
    return f"{name}{path.rstrip('/')}" + (f"?{query}" if query else "")


def host(url: str) -> str:
    """The host of an address as `normalise_url` writes it, with its port where that is not the default one."""
    try:
        return _host(urllib.parse.urlsplit(url.strip()))
    except ValueError:
        return url.strip().partition("/")[0].partition("?")[0]


def url_key(url: str) -> bytes:
    """Sixteen bytes that are equal where two addresses are the same page."""
    return _digest(normalise_url(url).encode(errors="surrogatepass"))


def text_key(text: str) -> bytes:
    """Sixteen bytes that are equal where two texts are equal but for white space."""
    content = text.encode(errors="surrogatepass").replace(_NO_BREAK_SPACE, b"")
    return _digest(content.translate(None, delete=_WHITE))


def has_words(text: str, least: int) -> bool:
    """Whether a text has that many words; reads no further."""
    return least < 1 or next(itertools.islice(_WORD.finditer(text), least - 1, None), None) is not None


def page_signatures(texts: Sequence[str]) -> np.ndarray:
    """MinHash signatures of the texts' word 5-grams; a shorter text is one shingle.

    The lowest 8 bits of each value are kept. The share of equal places estimates the Jaccard similarity of two texts,
    once chance is taken out (`clusters.least_matches`), with a standard deviation of 0.025 at 0.8.

    Returns:
      uint8 [texts, 256]; zeros for a text without a word.
    Source: Broder, On the resemblance and containment of documents (1997); Li & König, b-Bit Minwise Hashing (2010).
    """
    signature_NH = np.zeros((len(texts), NUM_HASHES), np.uint8)
    for start in range(0, len(texts), _BATCH):
        shingles = [_shingles(text) for text in texts[start : start + _BATCH]]
        length_N = np.array([len(shingle) for shingle in shingles])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            np.concatenate(shingles), np.r_[0, np.cumsum(length_N)].astype(np.uint64), NUM_HASHES, _HASH_SEED
        )
        batch_NH = np.array(matrix.to_rows(), np.uint32).astype(np.uint8)
        signature_NH[start : start + _BATCH] = np.where(length_N[:, None] > 0, batch_NH, 0)
    return signature_NH


def near_duplicates(texts: Iterable[str], *, threshold: float = 0.8) -> np.ndarray:
    """Clusters of texts whose word 5-grams have a Jaccard similarity of at least `threshold`, joined transitively.

    Needs 0.6 KB a text besides the texts, which may come from an iterator.

    Args:
      texts: any number of texts.
      threshold: from 0.5 to 1.
    Returns:
      int64 [texts]: the cluster of each text, named by the index of its first member. Texts without a word are alone.
    """
    iterator = iter(texts)
    batches = [page_signatures(batch) for batch in iter(lambda: list(itertools.islice(iterator, _BATCH)), [])]
    return cluster_signatures(np.concatenate([page_signatures([]), *batches]), threshold=threshold)


def cluster_signatures(signature_NH: np.ndarray, *, threshold: float = 0.8) -> np.ndarray:
    """Clusters the rows of `page_signatures`; rows of zeros are alone.

    Returns:
      int64 [N]: the cluster of each row, named by its first one.
    """
    count, num_hashes = signature_NH.shape
    rows = clusters.rows_of_band(threshold)
    link_N = np.zeros(count, np.int64)
    page_K = np.flatnonzero(signature_NH.any(axis=1))
    for band in range(num_hashes // rows):
        key_K = clusters.band_keys(signature_NH[page_K, band * rows : (band + 1) * rows], rows)[:, 0]
        buckets = clusters.find_buckets(key_K, page_K)
        clusters.join_buckets(buckets, signature_NH, link_N, clusters.least_matches(threshold, num_hashes))
    root_N = np.arange(count)
    joined = np.flatnonzero(link_N)
    root_N[joined] = clusters.find_roots(link_N, joined)
    return root_N


def _host(parts: urllib.parse.SplitResult) -> str:
    name = parts.netloc.rpartition("@")[2].lower()
    return name.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ":80")).rstrip(".")


def _plain(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _shingles(text: str) -> np.ndarray:
    """Hashes of the word 5-grams, uint64; all sums and products wrap on purpose."""
    pieces = [_hash_words(piece) for piece in _pieces(text.lower())]
    word_L = clusters.mix(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
    if not len(word_L):
        return word_L
    length = max(len(word_L) - SHINGLE + 1, 1)
    shingle_L = word_L[:length].copy()
    for offset in range(1, min(SHINGLE, len(word_L))):
        shingle_L += word_L[offset : offset + length] * _POWER[offset]
    return shingle_L


def _hash_words(text: str) -> np.ndarray:
    """Hashes of the words of a lower-case text: polynomials of their characters modulo 2^64."""
    code_L = characters.codes(text)
    kind_L = _kinds().take(code_L)
    is_start_L = kind_L.copy()
    is_start_L[1:] &= ~(kind_L[:-1] & _LETTER)  # a letter behind a letter begins no word
    start_W = np.flatnonzero(is_start_L != 0)
    if not len(start_W):
        return np.zeros(0, np.uint64)
    term_L = np.multiply(code_L, kind_L != 0, dtype=np.uint64)
    term_L *= _POWER[: len(term_L)]
    return np.add.reduceat(term_L, start_W) * _INVERSE_POWER.take(start_W)


def _pieces(text: str) -> Iterator[str]:
    """The text cut at white space into pieces of bounded length; a longer word is cut too."""
    start = 0
    while len(text) - start > _PIECE:
        end = max(text.rfind(mark, start, start + _PIECE) for mark in " \n") + 1
        end = end if end > start else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:]


@functools.cache
def _kinds() -> np.ndarray:
    """What each character is to the words; as in `_WORD`."""
    kind = np.where(characters.are_alphanumeric(), _LETTER, _BETWEEN).astype(np.uint8)
    kind[ord("_")] = _LETTER
    kind[characters.are_within(_CJK)] = _CJK_LETTER
    return kind
