"""Reads the pages of a crawl: WARC, WARC.gz and WET files; damage is counted and stepped over."""

import glob
import mmap
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.parse.encoding import map_encoding_to_html5

from dsmath.runs.errors import InputError

MAX_PAGE_BYTES = 8 * 2**20
_PAGES = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion | WarcRecordType.revisit
_HTML_TYPES = ("text/html", "application/xhtml+xml")
# A body under another type is a page all the same where it begins like one and nobody vouches for the type.
_VAGUE_TYPES = ("", "text/plain", "application/octet-stream", "text/xml", "application/xml", "unknown/unknown")
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body")
# What a record begins with, by what the file begins with: where reading goes on behind a damaged stretch.
_RECORD_STARTS = {b"\x1f\x8b": b"\x1f\x8b\x08", b"\x28\xb5": b"\x28\xb5\x2f\xfd"}
_PLAIN_RECORD_START = b"WARC/1."


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


def find_inputs(pattern: str) -> list[str]:
    """The files of a crawl, sorted.

    Args:
      pattern: paths or globs (`**` too), separated by commas.
    Raises:
      InputError: a part matches no file, or all files are empty.
    """
    found: set[str] = set()
    for part in filter(None, (part.strip() for part in pattern.split(","))):
        matches = [path for path in glob.glob(part, recursive=True) if pathlib.Path(path).is_file()]
        if not matches:
            hint = f"write {part.rstrip('/')}/*.warc.gz" if pathlib.Path(part).is_dir() else "give WARC or WET files"
            raise InputError(f"config.input: {part!r} matches no file; {hint}")
        found.update(matches)
    if not found:
        raise InputError("config.input is empty; give paths or globs of WARC or WET files")
    if not any(pathlib.Path(path).stat().st_size for path in found):
        raise InputError(f"config.input: the files of {pattern!r} are empty; give WARC or WET files with records")
    return sorted(found)


def read_pages(path: str, skipped: Counter | None = None, *, max_bytes: int = MAX_PAGE_BYTES) -> Iterator[Page]:
    """Yields the pages of one file in its order; never raises for what the file holds.

    Args:
      path: a WARC or WET file, plain or compressed record by record (gzip, Zstandard).
      skipped: counts what is left out, by kind: `non_html`, `http_error`, `empty`, `too_large`, `revisit`, `no_url`,
        `damaged` (a record whose block is cut or cannot be decoded, or a stretch of the file that holds no record).
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
            record.parse_http(auto_decode="all")
            body = record.reader.read(max_bytes + 1)
        except (OSError, ValueError):
            return "damaged"
        if not 200 <= (record.http_headers.status_code or 0) < 300:
            return "http_error"
        content_type, charset = record.http_headers.get("Content-Type") or "", record.http_charset
    if len(body) > max_bytes:
        return "too_large"
    if not body.strip():
        return "empty"
    if not _is_html(content_type, body):
        return "non_html"
    return Page(url, body, charset and map_encoding_to_html5(charset, fallback_utf8=False))


def _is_html(content_type: str, body: bytes) -> bool:
    kind = content_type.split(";")[0].strip().lower()
    start = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return kind in _HTML_TYPES or (kind in _VAGUE_TYPES and start.startswith(_HTML_STARTS))


def _read_records(path: str, skipped: Counter, max_bytes: int) -> Iterator[tuple[WarcRecord, int, bytes]]:
    """The records that can hold pages, the length of their blocks as declared, and the blocks; too long ones unread.

    Behind a damaged stretch, which is counted once, reading goes on at the next record's start.
    """
    if not pathlib.Path(path).stat().st_size:
        skipped["damaged"] += 1
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start_mark = _RECORD_STARTS.get(content[:2], _PLAIN_RECORD_START)
        position, is_counted = 0, False
        while position >= 0:
            file.seek(position)
            try:
                for record in ArchiveIterator(file, parse_http=False):
                    expected = record.content_length
                    if record.record_type & _PAGES:
                        # fastwarc 2.0 ends the iteration without an error where it decodes a chunked body in place,
                        # so the block is taken out whole and decoded by itself.
                        yield record, expected, record.reader.read() if expected <= max_bytes else b""
                    position, is_counted = record.stream_pos, False
                return
            except OSError:
                if not is_counted:
                    skipped["damaged"] += 1
                is_counted = True
            position = content.find(start_mark, position + 1)
