"""Finding and fetching the files of a crawl, against a server on loopback that breaks in the ways that servers do."""

import contextlib
import email.utils
import errno
import gzip
import http.server
import random
import re
import threading
import time
import urllib.parse
from collections import Counter
from xml.sax.saxutils import escape

import pytest

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import fingerprint
from dsmath.web import sources
from dsmath.web.sources import find_inputs, find_origins, identify, open_local

_DATA = random.Random(0).randbytes(300_000)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Files with ranges, and the lists that S3 and GCS give; `server.faults[path]` is used up request by request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(url.path), dict(urllib.parse.parse_qsl(url.query))
        self.server.requests.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
        faults = self.server.faults.get(path, [])
        fault = faults.pop(0) if faults else None
        if isinstance(fault, int):
            self._answer(fault, b"")
        elif query.get("list-type") == "2":
            self._answer(200, self._list(path.strip("/"), query.get("prefix", "")))
        elif path not in self.server.files:
            self._answer(404, b"")
        else:
            self._answer_file(self.server.files[path], fault)

    def _answer_file(self, data: bytes, fault: str | None):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted or not self.server.has_ranges:
            return self._answer(200, data, fault)
        start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
        return self._answer(206, data[start:end], fault, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})

    def _answer(self, status: int, body: bytes, fault: str | None = None, headers: dict | None = None):
        self.send_response(status)
        headers = {"Content-Length": len(body), "Last-Modified": email.utils.formatdate(0, usegmt=True)} | (
            headers or {}
        )
        for name, value in headers.items():
            self.send_header(name, str(value))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.end_headers()
        with contextlib.suppress(OSError):  # a reader that wants the headers alone
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = self.close_connection or fault == "cut"

    def _list(self, bucket: str, prefix: str) -> bytes:
        keys = [
            path.removeprefix(f"/{bucket}/") for path in self.server.files if path.startswith(f"/{bucket}/{prefix}")
        ]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.files[f'/{bucket}/{key}'])}</Size>"
            f'<LastModified>2024-06-01T00:00:00.000Z</LastModified><ETag>"{key}"</ETag></Contents>'
            for key in sorted(keys)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on loopback with `files`, `faults` and `requests`; no variable of the environment is in its way."""
    for name in (*sum(sources._ENDPOINTS.values(), ()), *sum(sources._CREDENTIALS.values(), ()), "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sources, "MAX_RETRIES", 2)
    monkeypatch.setattr(sources, "RETRY_SECONDS", 1.0)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    httpd.files, httpd.faults, httpd.requests, httpd.has_ranges, httpd.tag = {}, {}, [], True, '"one"'
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def _fetch(source: str) -> bytes:
    with open_local(source) as path:
        return path.read_bytes()


def test_local_inputs_are_found_by_globs_and_named_where_absent(tmp_path):
    for name in ("b.warc.gz", "a.warc.gz", "c.wet"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.warc").touch()
    pattern = f"{tmp_path}/*.warc.gz, {tmp_path}/c.wet,{tmp_path}/a.warc.gz"
    names = ["a.warc.gz", "b.warc.gz", "c.wet"]
    assert find_inputs(pattern) == [str(tmp_path / name) for name in names]
    assert find_inputs(pattern, max_files=2) == [str(tmp_path / name) for name in names[:2]]
    for bad in ("", " , ", f"{tmp_path}/*.nothing", str(tmp_path), f"{tmp_path}/empty.warc", "ftp://a.org/b.warc"):
        with pytest.raises(InputError, match=r"config\.input"):
            find_inputs(bad)
    with pytest.raises(InputError, match="max_files"):
        find_inputs(pattern, max_files=-1)


def test_a_local_file_is_read_in_place(tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(b"x")
    with open_local(str(path)) as local:
        assert local == path
    assert identify(str(path)) == fingerprint(path)


def test_a_remote_file_is_fetched_in_parts_and_gone_afterwards(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PART_BYTES", 100_000)
    monkeypatch.setattr(sources.tempfile, "tempdir", str(tmp_path))
    server.files["/a/x.warc.gz"] = _DATA
    source = f"{server.url}/a/x.warc.gz"
    assert find_inputs(source) == [source]
    with open_local(source) as path:
        assert path.stat().st_size == len(_DATA)
        assert path.read_bytes() == _DATA
        assert not list(tmp_path.iterdir())  # a killed process leaves nothing either
    ranges = [wanted for _, wanted, _ in server.requests if wanted]
    assert ranges == ["bytes=0-99999", "bytes=100000-199999", "bytes=200000-299999"]


@pytest.mark.parametrize("tag", ['"one"', None])
def test_a_broken_connection_goes_on_at_the_byte_where_it_broke(server, tag):
    server.files["/x.warc.gz"], server.tag = _DATA, tag
    server.faults["/x.warc.gz"] = [None, "cut", "cut"]
    assert _fetch(f"{server.url}/x.warc.gz") == _DATA
    starts = [int(re.search(r"\d+", wanted)[0]) for _, wanted, _ in server.requests if wanted]
    assert starts == [0, 150_000, 225_000]


def test_a_server_that_fails_twice_is_asked_again(server):
    server.files["/x.warc.gz"] = _DATA
    server.faults["/x.warc.gz"] = [500, 503, None, 429, 500]
    assert _fetch(f"{server.url}/x.warc.gz") == _DATA


def test_a_server_without_ranges_is_read_in_one_go(server):
    server.files |= {"/x.warc.gz": _DATA, "/empty.warc.gz": b""}
    server.has_ranges = False
    server.faults["/x.warc.gz"] = [None, None, "cut"]
    assert _fetch(f"{server.url}/x.warc.gz") == _DATA
    assert _fetch(f"{server.url}/empty.warc.gz") == b""


def test_addresses_keep_their_query_and_their_escapes(server):
    server.files["/a b/x.warc.gz"] = _DATA
    assert _fetch(f"{server.url}/a%20b/x.warc.gz?signature=a%2Fb") == _DATA


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_buckets_are_listed_and_read(server, monkeypatch, scheme):
    monkeypatch.setenv({"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL"}[scheme], server.url)
    for key in ("one/a.warc.gz", "one/b.warc.gz", "one/deep/c.warc.gz", "one/d.txt", "two/e.warc.gz"):
        server.files[f"/crawls/{key}"] = key.encode()
    bucket = f"{scheme}://crawls"
    assert find_inputs(f"{bucket}/one/*.warc.gz") == [f"{bucket}/one/{name}.warc.gz" for name in "ab"]
    assert len(find_inputs(f"{bucket}/**/*.warc.gz")) == 4
    assert find_inputs(f"{bucket}/two/e.warc.gz") == [f"{bucket}/two/e.warc.gz"]
    assert _fetch(f"{bucket}/one/deep/c.warc.gz") == b"one/deep/c.warc.gz"
    assert not any(authorization for _, _, authorization in server.requests)
    with pytest.raises(InputError, match="matches no object"):
        find_inputs(f"{bucket}/three/*.warc.gz")
    with pytest.raises(InputError, match="404"):
        find_inputs(f"{bucket}/three.warc.gz")
    server.faults["/crawls/one/a.warc.gz"] = [403]
    with pytest.raises(InputError, match=r"403.*set (AWS|GOOGLE)"):
        find_inputs(f"{bucket}/one/a.warc.gz")


def test_requests_are_signed_where_the_environment_holds_credentials(server, monkeypatch):
    server.files["/crawls/a.warc.gz"] = _DATA
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    assert _fetch("s3://crawls/a.warc.gz") == _DATA
    monkeypatch.setenv("GOOGLE_BASE_URL", server.url)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token")
    assert _fetch("gs://crawls/a.warc.gz") == _DATA
    kinds = Counter((authorization or "none").split()[0] for _, _, authorization in server.requests)
    assert kinds.keys() == {"AWS4-HMAC-SHA256", "Bearer"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.removeprefix("http://"))
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL"):
        find_inputs("s3://crawls/a.warc.gz")


def test_listings_and_crawl_names_give_their_files(server, tmp_path):
    lines = [f"crawl-data/CC-MAIN-2024-22/segments/{n}/warc/{n}.warc.gz" for n in (2, 1, 3)]
    wet = "crawl-data/CC-MAIN-2024-22/segments/1/wet/1.warc.wet.gz"
    folder = "/crawl-data/CC-MAIN-2024-22"
    server.files[f"{folder}/warc.paths.gz"] = gzip.compress("\n".join(lines).encode() + b"\n")
    server.files[f"{folder}/wet.paths.gz"] = gzip.compress(wet.encode())
    found = [f"{server.url}/{line}" for line in sorted(lines)]
    assert find_inputs("CC-MAIN-2024-22", base_url=server.url) == found
    assert find_inputs("CC-MAIN-2024-22", base_url=f"{server.url}/", max_files=1) == found[:1]
    assert find_inputs("CC-MAIN-2024-22/wet", base_url=server.url) == [f"{server.url}/{wet}"]
    assert len(server.requests) == 6  # the listings alone
    local = tmp_path / "mine.paths"
    local.write_text(f"{lines[0]}\ns3://mine/a.warc.gz\n", encoding="utf-8")
    assert find_inputs(str(local), base_url=server.url) == [f"{server.url}/{lines[0]}", "s3://mine/a.warc.gz"]
    assert find_origins(f"{local},CC-MAIN-2024-22", base_url=server.url) == sorted(
        [str(local), f"{server.url}{folder}/warc.paths.gz"]
    )


@pytest.mark.parametrize("content", [b"", b"\n", b"a/b.parquet\n", b"\x1f\x8b garbage", b"\xff\xfe\x00"])
def test_a_listing_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "bad.paths.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.paths\.gz"):
        find_inputs(str(path))


def test_a_listing_of_other_files_under_a_crawls_name_is_refused(server, shared_data):
    """The sample's listing names the Parquet files of an index."""
    listing = shared_data / "web" / "commoncrawl-sample" / "CC-MAIN-2024-22.warc.paths.gz"
    server.files["/crawl-data/CC-MAIN-2024-22/warc.paths.gz"] = listing.read_bytes()
    with pytest.raises(InputError, match="parquet"):
        find_inputs("CC-MAIN-2024-22", base_url=server.url)
    with pytest.raises(InputError, match="holds no pages"):
        find_inputs("CC-MAIN-2024-22/wat", base_url=server.url)
    with pytest.raises(InputError, match="404"):
        find_inputs("CC-MAIN-1999-01", base_url=server.url)


@pytest.mark.parametrize(
    ("status", "message"), [(404, "404.*check the address"), (403, "403.*refused|refused.*403"), (500, "500 Internal")]
)
def test_a_refusal_names_source_cause_and_remedy(server, tmp_path, monkeypatch, status, message):
    monkeypatch.setattr(sources.tempfile, "tempdir", str(tmp_path))
    server.files["/x.warc.gz"] = _DATA
    source = f"{server.url}/x.warc.gz"
    for use in (find_inputs, _fetch, identify):
        server.faults["/x.warc.gz"] = [status] * 50
        with pytest.raises(InputError, match=message) as caught:
            use(source)
        assert source in str(caught.value)
        assert "\n" not in str(caught.value)
    server.faults["/x.warc.gz"] = [None, *[status] * 50]  # once the work has begun
    with pytest.raises(InputError, match=message):
        _fetch(source)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_reached_is_given_up_soon(server):
    server.shutdown()
    server.server_close()
    begun = time.monotonic()
    for source in (f"{server.url}/x.warc.gz", "https://no-such-host.invalid/x.warc.gz"):
        with pytest.raises(InputError, match=r"check the address and the network"):
            find_inputs(source)
    for source in ("http://[bad/x.warc.gz", "https://a.org/*.warc.gz"):
        with pytest.raises(InputError, match=r"config\.input"):
            find_inputs(source)
    assert time.monotonic() - begun < 60


def test_a_connection_that_breaks_for_ever_is_given_up(server):
    server.files["/x.warc.gz"] = _DATA
    server.has_ranges = False
    server.faults["/x.warc.gz"] = [None, *["cut"] * 1000]
    with pytest.raises(InputError, match=r"[Rr]ange|body"):
        _fetch(f"{server.url}/x.warc.gz")


def test_a_file_that_changes_while_it_is_read_is_refused(server, monkeypatch):
    server.files["/x.warc.gz"] = _DATA
    monkeypatch.setattr(sources, "_ask", lambda source: {"size": len(_DATA), "e_tag": '"older"', "last_modified": None})
    with pytest.raises(InputError, match="changed while it was read"):
        _fetch(f"{server.url}/x.warc.gz")


def test_a_full_disk_is_named(server, monkeypatch):
    server.files["/x.warc.gz"] = _DATA

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "_download", refuse)
    with pytest.raises(InputError, match=r"No space left on device.*TMPDIR"):
        _fetch(f"{server.url}/x.warc.gz")


def test_identity_changes_with_the_source(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.files |= {"/crawls/a.warc.gz": b"a", "/crawls/b.warc.gz": b"b"}
    names = ["s3://crawls/a.warc.gz", f"{server.url}/crawls/a.warc.gz", "s3://crawls/*.warc.gz"]
    assert find_origins(",".join(names)) == sorted(names)
    before = [identify(name) for name in names]
    assert [identify(name) for name in names] == before
    server.files["/crawls/a.warc.gz"] = b"longer"
    assert not set(before) & {identify(name) for name in names}
    server.tag = None
    assert "1970" in identify(names[1])
