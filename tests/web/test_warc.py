"""Reading crawls: what is a page, what is skipped and counted, and how damage is stepped over."""

import csv
import gzip
import pathlib
import random
from collections import Counter

import pytest

from dsmath.runs.errors import InputError
from dsmath.web.warc import find_inputs, read_pages


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


def test_inputs_are_found_by_globs_and_named_where_absent(tmp_path):
    for name in ("b.warc.gz", "a.warc.gz", "c.wet"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.warc").touch()
    pattern = f"{tmp_path}/*.warc.gz, {tmp_path}/c.wet,{tmp_path}/a.warc.gz"
    assert [pathlib.Path(path).name for path in find_inputs(pattern)] == ["a.warc.gz", "b.warc.gz", "c.wet"]
    for bad in ("", f"{tmp_path}/*.nothing", str(tmp_path), f"{tmp_path}/empty.warc"):
        with pytest.raises(InputError, match=r"config\.input"):
            find_inputs(bad)


def test_real_crawl_files_are_read_whole(shared_data):
    web = shared_data / "web"
    with open(web / "labels.tsv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["warc"] == "dev-00007.warc.gz"]
    kinds = Counter(row["kind"] for row in rows)
    pages, skipped = _read(web / "dev-00007.warc.gz")
    assert skipped == {
        "damaged": 1,  # the last gzip member is cut
        "http_error": kinds["http-error"],
        "empty": kinds["empty"],
        "non_html": kinds["non-html"],
    }
    assert len(pages) == len(rows) - skipped.total()


def test_odd_files_of_other_tools_are_read_or_counted(shared_data):
    results = {path.name: _read(path) for path in sorted((shared_data / "web" / "warc-fixtures").iterdir())}
    assert len(results["resiliparse-warcfile.warc.gz"][0]) == 16
    assert results["resiliparse-clipped.warc.gz"] == ([], {"damaged": 1})
    assert results["warcio-example-trunc.warc"][1] == {"damaged": 1}
    assert len(results["warcio-example-iana.org-chunked.warc"][0]) == 1
    assert results["warcio-example.warc.gz"][1] == {"revisit": 1}
    assert all(page.url.startswith("http") for pages, _ in results.values() for page in pages)
    pages, _ = _read(shared_data / "web" / "commoncrawl-sample" / "whirlwind.warc.wet.gz")
    assert len(pages) == 1
    assert len(pages[0].text) > 1000
