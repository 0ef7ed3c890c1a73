"""Reading crawls: what is a page, what is skipped and counted, and how damage is stepped over."""

import csv
import gzip
import io
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter

import pytest
from fastwarc.stream_io import BrotliWriter, ZstdWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmath.web.warc import read_pages


def _record(url: str, body: bytes, *, status: str = "200 OK", headers: str = "Content-Type: text/html") -> bytes:
    block = f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body
    return _wrap("response", url, "application/http; msgtype=response", block)


def _wrap(kind: str, url: str, content_type: str, block: bytes) -> bytes:
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{len(block):012}>\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def _read(path: pathlib.Path, **options) -> tuple[list, Counter]:
    skipped: Counter = Counter()
    return list(read_pages(str(path), skipped, **options)), skipped


def _html(number: int) -> bytes:
    return f"<html><body><p>page {number} {random.Random(number).random()}</p></body></html>".encode()


def _compress(writer: type, body: bytes) -> bytes:
    target = io.BytesIO()
    stream = writer(target)
    stream.write(body)
    stream.close()
    return target.getvalue()


def test_pages_come_in_order_and_other_records_are_counted_by_kind(tmp_path):
    chunked = b"5\r\n<html\r\n8\r\n>chunked\r\n0\r\n\r\n"
    records = [
        _record("https://a.org/1", _html(1), headers="Content-Type: text/html; charset=ISO-8859-1"),
        _record("https://a.org/gone", _html(2), status="404 Not Found"),
        _record("https://a.org/s.css", b"p {color: red}", headers="Content-Type: text/css"),
        _record("https://a.org/empty", b"  \n"),
        _record("https://a.org/2", chunked, headers="Content-Type: text/html\r\nTransfer-Encoding: chunked"),
        _record("https://a.org/3", gzip.compress(_html(3)),
                headers="Content-Type: text/html\r\nContent-Encoding: gzip"),
        _record("https://a.org/big", b"<html>" + b"x" * 5000),
        _record("https://a.org/bomb", gzip.compress(b"<html>" + b"x" * 50_000),
                headers="Content-Type: text/html\r\nContent-Encoding: gzip"),
        _record("https://a.org/4", b"<!DOCTYPE html><p>sent as text", headers="Content-Type: text/plain"),
        _wrap("request", "https://a.org/1", "application/http; msgtype=request", b"GET / HTTP/1.1\r\n\r\n"),
    ]  # fmt: skip
    for name, data in {"a.warc": b"".join(records), "a.warc.gz": b"".join(map(gzip.compress, records))}.items():
        (tmp_path / name).write_bytes(data)
        pages, skipped = _read(tmp_path / name, max_bytes=4000)
        assert [page.url[-1] for page in pages] == ["1", "2", "3", "4"]
        assert pages[0].charset in ("cp1252", "windows-1252", "iso-8859-1")
        assert pages[0].html == _html(1)
        assert pages[1].html == b"<html>chunked"
        assert pages[2].html == _html(3)
        assert skipped == {"http_error": 1, "non_html": 1, "empty": 1, "too_large": 2}


def test_wet_records_are_text(tmp_path):
    path = tmp_path / "a.warc.wet.gz"
    path.write_bytes(gzip.compress(_wrap("conversion", "https://a.org/", "text/plain", "等式 x=1".encode())))
    (page,), skipped = _read(path)
    assert (page.html, page.text) == (None, "等式 x=1")
    assert not skipped


def test_damage_costs_the_damaged_records_alone(tmp_path):
    members = [gzip.compress(_record(f"https://a.org/{n}", _html(n) * 50)) for n in range(20)]
    members[7] = members[7][:40] + b"\x55" * 60 + members[7][100:]
    members[12] = members[12][:60]
    members[19] = members[19][:-40]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(members))
    pages, skipped = _read(path)
    numbers = [int(page.url.rsplit("/", 1)[1]) for page in pages]
    assert numbers == [n for n in range(20) if n not in (7, 12, 19)]
    assert skipped["damaged"] == 3


def test_damage_in_a_plain_file_costs_the_damaged_records_alone(tmp_path):
    records = [_record(f"https://a.org/{n}", _html(n)) for n in range(6)]
    records[2] = b"garbage" + records[2][20:]
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(records))
    pages, skipped = _read(path)
    assert [page.url[-1] for page in pages] == ["0", "1", "3", "4", "5"]
    assert skipped == {"damaged": 1}


@pytest.mark.parametrize("data", [b"", random.Random(0).randbytes(200_000), b"\x1f\x8b" + bytes(100), b"text\n" * 99])
def test_a_file_that_is_no_warc_is_damaged_and_not_fatal(tmp_path, data):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(data)
    assert _read(path) == ([], {"damaged": 1})


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("gzip", lambda body: body),  # the header was kept, the body decoded
        ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("deflate", lambda body: body),
        ("br", lambda body: _compress(BrotliWriter, body)),
        ("zstd", lambda body: _compress(ZstdWriter, body)),
        ("utf-8", lambda body: body),
        ("", gzip.compress),  # and nobody says so
    ],
)
@pytest.mark.parametrize("transfer", ["plain", "chunked", "said to be chunked"])
def test_encodings_are_undone_and_a_wrong_one_is_seen_through(tmp_path, name, encode, transfer):
    body = encode(_html(1))
    headers = f"Content-Type: text/html\r\nContent-Encoding: {name}"
    if transfer != "plain":
        headers += "\r\nTransfer-Encoding: chunked"
    if transfer == "chunked":
        pieces = [body[start : start + 20] for start in range(0, len(body), 20)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    path = tmp_path / "a.warc"
    path.write_bytes(_record("https://a.org/1", body, headers=headers) + _record("https://a.org/2", _html(2)))
    pages, skipped = _read(path)
    assert [page.html for page in pages] == [_html(1), _html(2)]
    assert not skipped


@pytest.mark.parametrize("name", ["br", "zstd", "deflate", "gzip"])
def test_a_body_that_cannot_be_decoded_costs_that_record_alone(tmp_path, name):
    body = {"zstd": b"\x28\xb5\x2f\xfd", "gzip": b"\x1f\x8b"}.get(name, b"") + b"\xff\xfe garbage"
    headers = f"Content-Type: text/html\r\nContent-Encoding: {name}"
    path = tmp_path / "a.warc"
    path.write_bytes(_record("https://a.org/1", body, headers=headers) + _record("https://a.org/2", _html(2)))
    pages, skipped = _read(path)
    assert [page.url[-1] for page in pages] == ["2"]
    assert skipped == {"damaged": 1}


def test_a_cut_body_is_kept_as_far_as_it_goes(tmp_path):
    text = b"".join(map(_html, range(300)))
    body = gzip.compress(text)[:-200]
    path = tmp_path / "a.warc"
    path.write_bytes(_record("https://a.org/1", body, headers="Content-Type: text/html\r\nContent-Encoding: gzip"))
    (page,), _ = _read(path)
    assert len(page.html) > len(text) // 2
    assert text.startswith(page.html)


@pytest.mark.parametrize(
    ("content_type", "body", "is_page"),
    [
        ("text/plain", b'<?xml version="1.0"?>\n<!-- made by hand -->\n<!DOCTYPE html>\n<p>x', True),
        ("application/octet-stream", b"\xef\xbb\xbf <HTML><p>x", True),
        ("", b"<html lang=en><p>x", True),
        ("text/plain", b"a <html> b", False),
        ("application/xml", b"<?xml version='1.0'?><feed/>", False),
        ("text/html", b"%PDF-1.7 ...", False),
        ("text/html", b"\x89PNG\r\n", False),
        ("application/json", b"<html>", False),
        ("text/xml", b"<!-- a --> <!----><!-- b\n-->\n<html><p>x", True),
        ("text/plain", b"<!---->" * 100 + b"x", False),  # where trying every pairing took for ever
        ("", b"<!--" * 250 + b"<html>", False),
    ],
)
def test_what_is_html_is_told_by_type_and_beginning(tmp_path, content_type, body, is_page):
    path = tmp_path / "a.warc"
    path.write_bytes(_record("https://a.org/1", body, headers=f"Content-Type: {content_type}"))
    pages, skipped = _read(path)
    assert (len(pages), skipped["non_html"]) == ((1, 0) if is_page else (0, 1))


@pytest.mark.parametrize("start", [b"<!---->" * 2**17, b"<!--" * 2**18, b"<?xml>" + b" " * 2**20, b"<!-- --> " * 2**17])
def test_the_beginning_of_a_body_that_may_be_compressed_is_read_once(tmp_path, start):
    path = tmp_path / "a.warc"
    path.write_bytes(_record("https://a.org/1", start, headers="Content-Type: text/plain\r\nContent-Encoding: br"))
    begun = time.process_time()
    assert _read(path) == ([], {"damaged": 1})
    assert time.process_time() - begun < 5


def test_bombs_take_no_more_memory_than_a_page_may(tmp_path):
    bomb = gzip.compress(b"<html>" + bytes(200 * 2**20), 1)
    members = [
        _record("https://a.org/1", bomb, headers="Content-Type: text/html\r\nContent-Encoding: gzip"),
        _record("https://a.org/2", b"<html>" + bytes(200 * 2**20)),
        b"WARC/1.1\r\nWARC-Type: response\r\nX: " + bytes(200 * 2**20),
        _record("https://a.org/3", _html(3)),
    ]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(gzip.compress(member, 1) for member in members))
    del members, bomb
    probe = (
        "import sys; from collections import Counter; from dsmath.web.warc import read_pages\n"
        "skipped = Counter(); pages = list(read_pages(sys.argv[1], skipped))\n"
        "peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(len(pages), skipped['too_large'], skipped['damaged'], peak // 1024)"
    )
    found = subprocess.run([sys.executable, "-c", probe, path], capture_output=True, text=True, check=True).stdout
    *counts, megabytes = map(int, found.split())
    assert counts == [1, 2, 1]
    assert megabytes < 100


def test_arc_files_are_named_and_left_out(tmp_path):
    content = b"filedesc://a.arc.gz 0.0.0.0 20080101000000 text/plain 76\n1 0 Alexa\nURL IP-address\n"
    for name, data in {"a.arc": content, "a.arc.gz": gzip.compress(content)}.items():
        (tmp_path / name).write_bytes(data)
        assert _read(tmp_path / name) == ([], {"arc": 1})


@pytest.mark.parametrize("mark", [b"\x1f\x8b\x08", b"WARC/1.1\r\n"])
def test_a_file_of_nothing_but_starts_ends_soon(tmp_path, mark):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(mark * 300_000)
    assert _read(path) == ([], {"damaged": 1})


_PAGES = [_record(f"https://a.org/{number}", _html(number)) for number in range(8)]


@settings(max_examples=150)
@given(
    is_compressed=st.booleans(),
    place=st.floats(0, 1),
    taken=st.integers(0, 400),
    given_=st.binary(max_size=400),
    at=st.integers(0, 7),
)
def test_any_damage_costs_no_more_than_the_records_that_it_touches(is_compressed, place, taken, given_, at):
    parts = [gzip.compress(record, mtime=0) for record in _PAGES] if is_compressed else list(_PAGES)
    start = int(place * len(parts[at]))
    touched = {at, at + 1} if start + taken >= len(parts[at]) else {at}
    touched |= {at - 1} if start == 0 else set()  # what stands there belongs to no record, or to the one before
    content = b"".join(parts)
    start += sum(map(len, parts[:at]))
    with tempfile.NamedTemporaryFile(suffix=".warc") as file:
        file.write(content[:start] + given_ + content[start + taken :])
        file.flush()
        pages, _ = _read(pathlib.Path(file.name))
    whole = {page.url for page in pages}
    lost = {number for number in range(8) if f"https://a.org/{number}" not in whole}
    assert len(lost - touched) <= taken // min(map(len, parts)) + 1


@pytest.mark.parametrize("number", range(8))
def test_real_crawl_files_give_what_was_planted(shared_data, number):
    name = f"dev-0000{number}.warc.gz"
    with open(shared_data / "web" / "labels.tsv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["warc"] == name]
    kinds = {"http-error": "http_error", "empty": "empty", "non-html": "non_html", "truncated-member": "damaged"}
    planted = Counter(kinds[row["kind"]] for row in rows if row["kind"] in kinds)
    urls = Counter(row["url"] for row in rows if row["kind"] not in kinds)  # wrong types and charsets are pages
    pages, skipped = _read(shared_data / "web" / name)
    assert skipped == planted
    assert Counter(page.url for page in pages) == urls


_FIXTURES = {
    "warc-fixtures/jwarc-cc.warc.gz": (1, {}),
    "warc-fixtures/jwarc-gzip_extra_sl.warc.gz": (0, {}),  # a warcinfo record alone
    "warc-fixtures/resiliparse-clipped.warc.gz": (0, {"damaged": 1}),
    "warc-fixtures/resiliparse-warcfile.warc.gz": (16, {}),
    # One gzip member for all records, which other readers refuse.
    "warc-fixtures/warcio-example-bad-non-chunked.warc.gz": (1, {"revisit": 1}),
    "warc-fixtures/warcio-example-digest.warc": (0, {}),  # requests alone
    "warc-fixtures/warcio-example-iana.org-chunked.warc": (1, {}),
    "warc-fixtures/warcio-example-resource.warc.gz": (1, {}),
    "warc-fixtures/warcio-example-space-in-target-uri.warc.gz": (0, {"non_html": 1}),
    "warc-fixtures/warcio-example-trunc.warc": (1, {"damaged": 1}),
    "warc-fixtures/warcio-example-wget-bad-target-uri.warc.gz": (1, {"non_html": 2}),
    "warc-fixtures/warcio-example-wrong-chunks.warc.gz": (1, {}),  # members that end elsewhere than records
    "warc-fixtures/warcio-example.warc.gz": (1, {"revisit": 1}),
    "warc-fixtures/warcio-post-test.warc.gz": (0, {"non_html": 3}),  # JSON
    "commoncrawl-sample/whirlwind.warc.gz": (1, {}),
    "commoncrawl-sample/whirlwind.warc.wat.gz": (0, {}),  # metadata
    "commoncrawl-sample/whirlwind.warc.wet.gz": (1, {}),
    "commoncrawl-sample/CC-MAIN-2024-22.warc.paths.gz": (0, {"damaged": 1}),  # a listing
}


def test_odd_files_of_other_tools_are_read_or_counted(shared_data):
    web = shared_data / "web"
    names = {f"{folder}/{path.name}" for folder in ("warc-fixtures", "commoncrawl-sample")
             for path in (web / folder).iterdir()}  # fmt: skip
    assert names == _FIXTURES.keys()
    results = {name: _read(web / name) for name in names}
    assert {name: (len(pages), dict(skipped)) for name, (pages, skipped) in results.items()} == _FIXTURES
    assert all(
        page.url.startswith("http") and (page.html or page.text) for pages, _ in results.values() for page in pages
    )
