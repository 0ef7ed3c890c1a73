"""Reads the pages of a crawl: WARC, WARC.gz and WET files; damage is counted and stepped over."""

import io
import mmap
import os
import pathlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from fastwarc.stream_io import BrotliReader, ChunkedReader, GzipReader, WarcReader, ZstdReader
from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord, WarcRecordType
from resiliparse.parse.encoding import map_encoding_to_html5

MAX_PAGE_BYTES = 8 * 2**20
_PAGES = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion | WarcRecordType.revisit
_HTML_TYPES = ("text/html", "application/xhtml+xml")
# A body under another type is a page all the same where it begins like one and nobody vouches for the type.
_VAGUE_TYPES = ("", "text/plain", "application/octet-stream", "text/xml", "application/xml", "unknown/unknown")
_HTML_START = re.compile(  # what was read is never read again in another way: a page of comments would take for ever
    rb"\s*+(?:<\?xml[^>]*+>\s*+)?+(?:<!--(?>.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
# A body under the type of a page is none where it begins like a file of another kind.
_OTHER_STARTS = (b"%PDF-", b"%!PS", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"PK\x03\x04", b"\x1f\x8b", b"wOF")
_SNIFFED_BYTES = 1024
_PIECE_BYTES = 2**16
_CHUNK_START = re.compile(rb"\s*[0-9a-fA-F]{1,8}[ \t]*(?:;[^\r\n]*)?\r?\n")
_ARC_START = b"filedesc:"
# What a record begins with, in a plain file and in compressed ones: where reading goes on behind a damaged stretch.
_PLAIN_START = b"WARC/1."
_RECORD_STARTS = (_PLAIN_START, b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")
_COUNTED_BYTES = 2**20  # in which the most frequent of them tells the kind of file, damaged or not


class Page(NamedTuple):
    """One page of a crawl: exactly one of `html` and `text` is given.

    Attributes:
      url: the address that was fetched.
      html: the body, chunking and compression undone; None in a WET file.
      charset: what the server declared, None where it declared nothing that a browser knows.
      text: the plain text of a WET file's record; None in a WARC file.
    """

    url: str
    html: bytes | None
    charset: str | None
    text: str | None = None


def read_pages(
    path: str | os.PathLike, skipped: Counter | None = None, *, max_bytes: int = MAX_PAGE_BYTES
) -> Iterator[Page]:
    """Yields the pages of one file in its order; never raises for what the file holds.

    Args:
      path: a WARC or WET file, plain or compressed record by record (gzip, Zstandard).
      skipped: counts what is left out, by kind: `non_html`, `http_error`, `empty`, `too_large`, `revisit`, `no_url`,
        `damaged` (a record whose block is cut or cannot be decoded, or a stretch of the file that holds no record),
        `arc` (a file in ARC, the format before WARC, which is left out whole).
      max_bytes: pages above it, before or after decompression, are left out.
    """
    skipped = Counter() if skipped is None else skipped
    for record, expected, block in _read_records(path, skipped, max_bytes):
        if len(block) < expected:
            skipped["too_large" if expected > max_bytes else "damaged"] += 1
            continue
        page = _open_page(record, block, max_bytes)
        if isinstance(page, Page):
            yield page
        else:
            skipped[page] += 1


def _open_page(record: WarcRecord, block: bytes, max_bytes: int) -> Page | str:
    """The page of a record, or the kind under which it is left out."""
    url = (record.headers.get("WARC-Target-URI") or "").strip().strip("<>")
    if not url:
        return "no_url"
    if record.record_type == WarcRecordType.revisit:
        return "revisit"
    if record.record_type == WarcRecordType.conversion:
        text = block.decode("utf-8", "replace").strip()
        return Page(url, None, None, text) if text else "empty"
    content_type, charset, body = record.headers.get("Content-Type") or "", None, block
    if record.is_http:
        record.set_bytes_content(block)
        try:
            record.parse_http()
            body = record.reader.read()
        except (OSError, ValueError):
            return "damaged"
        if not 200 <= (record.http_headers.status_code or 0) < 300:
            return "http_error"
        content_type, charset = record.http_headers.get("Content-Type") or "", record.http_charset
        decoded = _decode(body, record.http_headers, max_bytes)
        if body and not decoded:
            return "damaged"
        body = decoded
    if len(body) > max_bytes:
        return "too_large"
    if not body.strip():
        return "empty"
    if not _is_html(content_type, body):
        return "non_html"
    return Page(url, body, charset and map_encoding_to_html5(charset, fallback_utf8=False))


def _is_html(content_type: str, body: bytes) -> bool:
    kind = content_type.split(";")[0].strip().lower()
    start = body[:_SNIFFED_BYTES].removeprefix(b"\xef\xbb\xbf")
    if kind in _HTML_TYPES:
        return not start.startswith(_OTHER_STARTS)
    return kind in _VAGUE_TYPES and _HTML_START.match(start) is not None


def _decode(body: bytes, headers: HeaderMap, max_bytes: int) -> bytes:
    """Undoes the encodings of a body; at most a byte more than `max_bytes`, and as far as they are undamaged.

    What is declared and is not the case, as where an archive keeps the header of a body that it decoded, is left.
    """
    names = f"{headers.get('Content-Encoding') or ''},{headers.get('Transfer-Encoding') or ''}"
    for name in reversed([name.strip().lower() for name in names.split(",")]):
        reader = _open_encoding(name, body, max_bytes)
        if reader is not None:
            body = _read_up_to(reader, max_bytes + 1)
    if body.startswith(b"\x1f\x8b\x08"):  # compressed, and nobody says so
        body = _read_up_to(GzipReader(io.BytesIO(body)), max_bytes + 1)
    return body


def _open_encoding(name: str, body: bytes, max_bytes: int) -> WarcReader | io.BytesIO | None:
    """A reader that undoes an encoding; None where there is none."""
    is_html = _HTML_START.match(body[:_SNIFFED_BYTES]) is not None
    if name == "chunked" and _CHUNK_START.match(body):
        return ChunkedReader(io.BytesIO(body))
    if name in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
        return GzipReader(io.BytesIO(body))
    if name == "br" and not is_html:
        return BrotliReader(io.BytesIO(body))
    if name == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
        return ZstdReader(io.BytesIO(body))
    if name == "deflate" and not is_html:
        if body[:1] == b"\x78" and int.from_bytes(body[:2]) % 31 == 0:  # RFC 1950, section 2.2
            return GzipReader(io.BytesIO(body), zlib=True)
        try:  # the format without a header, which some servers send
            return io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, max_bytes + 1))
        except zlib.error:
            return io.BytesIO()
    return None


def _read_up_to(reader: WarcReader | io.BytesIO, size: int) -> bytes:
    """The beginning of a stream: `size` bytes, or those before its end or its damage."""
    content = bytearray()
    while len(content) < size:
        try:
            piece = reader.read(min(_PIECE_BYTES, size - len(content)))
        except (OSError, ValueError):
            break
        if not piece:
            break
        content += piece
    return bytes(content)


def _read_records(path: str | os.PathLike, skipped: Counter, max_bytes: int) -> Iterator[tuple[WarcRecord, int, bytes]]:
    """The records that can hold pages, the length of their blocks as declared, and the blocks; too long ones unread.

    Behind a damaged stretch, which is counted once, reading goes on at the next record's start.
    """
    if not pathlib.Path(path).stat().st_size:
        skipped["damaged"] += 1
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start_mark = max(_RECORD_STARTS, key=content[:_COUNTED_BYTES].count)
        if _begins_as_arc(content):
            skipped["arc"] += 1
            return
        position, failures, has_records, is_at_end, damaged = 0, 0, False, False, skipped["damaged"]
        while position >= 0:
            file.seek(position)
            try:
                for record in ArchiveIterator(file, parse_http=False):
                    if is_at_end:  # it was not: a damaged member had swallowed what follows
                        skipped["damaged"] += 1
                    expected = record.content_length
                    if record.record_type & _PAGES:
                        # fastwarc 2.0 ends the iteration without an error where it decodes a chunked body in place,
                        # so the block is taken out whole and decoded by itself.
                        yield record, expected, record.reader.read() if expected <= max_bytes else b""
                    position, failures, has_records, is_at_end = record.stream_pos, 0, True, False
                if start_mark == _PLAIN_START:
                    break
                is_at_end = True
            except OSError:
                if not failures and not is_at_end:
                    skipped["damaged"] += 1
            failures += 1
            # Ever farther, so that a file made of nothing but starts does not take its length times the work of one.
            position = content.find(start_mark, position + failures**2)
        if not has_records and skipped["damaged"] == damaged:  # the whole file went by as one endless header
            skipped["damaged"] += 1


def _begins_as_arc(content: mmap.mmap) -> bool:
    start = content[:_SNIFFED_BYTES]
    if start.startswith(b"\x1f\x8b"):
        start = _read_up_to(GzipReader(io.BytesIO(start)), len(_ARC_START))
    return start.startswith(_ARC_START)
