"""Downloads from a server on loopback: gone on with, refused, and checked."""

import hashlib
import http.server
import re
import threading

import pytest
import requests

from dsmath.data.benchmarks import catalog, download
from dsmath.data.benchmarks.download import Origin
from dsmath.runs.errors import InputError

_DATA = b'{"grade": 1, "question": "1+1=?", "golden": "2"}\n' * 5000


class _Handler(http.server.BaseHTTPRequestHandler):
    """Files; `server.faults` is used up request by request: a status, or "cut" for half of the body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.server.requests.append(self.headers.get("Range"))
        fault = self.server.faults.pop(0) if self.server.faults else None
        start = int(wanted[1]) if wanted and self.server.has_ranges else 0
        body = self.server.files.get(self.path, b"")[start:]
        status = (
            fault if isinstance(fault, int) else 404 if self.path not in self.server.files else 206 if start else 200
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    httpd.files, httpd.faults, httpd.requests, httpd.has_ranges = {"/cmath.jsonl": _DATA}, [], [], True
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/cmath.jsonl"
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def origins(server, monkeypatch):
    """(sha256) -> CMATH comes from the server."""

    def place(sha256=None):
        monkeypatch.setitem(download.ORIGINS, "cmath", {"test.jsonl": Origin(server.url, sha256)})

    place()
    return place


def test_what_is_missing_is_fetched_once(server, origins, tmp_path):
    (path,) = download.download("cmath", tmp_path)
    assert path == tmp_path / "cmath" / "test.jsonl" and path.read_bytes() == _DATA
    assert download.download("cmath", tmp_path) == [] and len(server.requests) == 1
    assert len(catalog.read("cmath", tmp_path)) == 5000


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_broken_connection_is_gone_on_with(server, has_ranges):
    server.has_ranges, server.faults = has_ranges, ["cut", 503, None]
    assert download.fetch(Origin(server.url, hashlib.sha256(_DATA).hexdigest())) == _DATA
    assert server.requests[0] is None and re.fullmatch(r"bytes=\d+-", server.requests[1])


def test_a_refusal_names_the_address(server, tmp_path, origins):
    server.files.clear()
    with pytest.raises(InputError, match=r"cmath\.jsonl: the server answers 404; put the file there by hand"):
        download.download("cmath", tmp_path)
    assert not (tmp_path / "cmath").exists()


def test_a_server_that_fails_for_ever_is_given_up(server):
    server.faults = [500] * download.MAX_TRIES
    with pytest.raises(InputError, match=r"cannot be fetched \(status 500\); check the connection"):
        download.fetch(Origin(server.url))
    with pytest.raises(InputError, match="cannot be fetched"):
        download.fetch(Origin("http://127.0.0.1:9/none"))


def test_other_content_is_refused_and_never_lies_there(origins, tmp_path):
    origins("0" * 64)
    with pytest.raises(InputError, match=r"its SHA-256 is [0-9a-f]{64}, not 0{64}; it was damaged or"):
        download.download("cmath", tmp_path)
    assert not (tmp_path / "cmath").exists()


def test_what_is_known_of_a_file_is_told(origins, tmp_path):
    (path,) = download.download("cmath", tmp_path)
    assert download.check_content("cmath", path) == "unknown"
    origins(hashlib.sha256(_DATA).hexdigest())
    assert download.check_content("cmath", path) == "upstream's"
    path.write_bytes(_DATA[:50])
    assert download.check_content("cmath", path) == "not upstream's"


def test_what_has_no_address_says_so(tmp_path):
    with pytest.raises(
        InputError, match=r"MATH \(test\) has no lasting address of single files; put them there by hand"
    ):
        download.download("math", tmp_path)


def test_every_address_belongs_to_a_split_and_names_a_commit():
    for name, files in download.ORIGINS.items():
        patterns = {pattern for patterns in catalog.BENCHMARKS[name].files.values() for pattern in patterns}
        for file, origin in files.items():
            assert file in patterns or (name == "bbh" and "*.json" in patterns)
            assert re.match(r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/", origin.url)
            assert requests.Request("GET", origin.url).prepare().url == origin.url
    assert len(download.ORIGINS["bbh"]) == 27


def test_whole_files_have_upstreams_checksum(shared_data):
    folder = shared_data / "benchmarks"
    for name, split in (("gsm8k", "train"), ("minif2f", "validation"), ("bbh", "test"), ("humaneval", "test")):
        for path in catalog.find_files(name, folder, split):
            assert download.check_content(name, path) == "upstream's"
    assert download.check_content("gsm8k", folder / "gsm8k" / "test.jsonl") == "not upstream's"
