"""Finds the files of a crawl, wherever they lie, and brings a remote one to this machine while it is read.

A file is named by a local path or by an address: `https://…`, `s3://BUCKET/KEY`, `gs://BUCKET/KEY`. Where and as whom
buckets are asked, the usual environment variables say:

- S3: AWS_ENDPOINT_URL, AWS_REGION (default us-east-1, where Common Crawl lies), AWS_ACCESS_KEY_ID with
  AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the web identity and container variables of a cluster. Without any of
  them requests are anonymous; AWS_SKIP_SIGNATURE=false asks the machine itself for its role instead.
- GCS: GOOGLE_BASE_URL, GOOGLE_SERVICE_ACCOUNT, GOOGLE_SERVICE_ACCOUNT_KEY, GOOGLE_APPLICATION_CREDENTIALS or
  GOOGLE_BEARER_TOKEN; without any of them anonymous, GOOGLE_SKIP_SIGNATURE=false asks the machine itself.

Remote files pass through the folder for temporary files (TMPDIR), one at a time for each process.
"""

import contextlib
import fnmatch
import glob
import gzip
import hashlib
import os
import pathlib
import re
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import (
    BaseError,
    GenericError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import GCSStore, HTTPStore, ObjectStore, S3Store

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import fingerprint

COMMON_CRAWL = "https://data.commoncrawl.org"
RETRY_SECONDS = 30.0  # without a byte: then a remote file is given up
MAX_RETRIES = 5  # of one request that is refused or broken, some 8 seconds in all
PART_BYTES = 16 * 2**20  # that one request asks for
_PAUSE_SECONDS = 0.2  # before a broken part is asked for again

_CRAWL_NAME = re.compile(r"(CC-MAIN-[\d-]+)(?:/(\w+))?")
_CRAWL_KINDS = ("warc", "wet")
_CRAWL_FILES = tuple(f".{kind}{packing}" for kind in _CRAWL_KINDS for packing in ("", ".gz", ".zst"))
_LISTINGS = (".paths", ".paths.gz")
_WEB, _BUCKETS = ("http", "https"), ("s3", "gs")
_WILDCARDS = re.compile(r"[*?\[]")
_ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "gs": ("GOOGLE_BASE_URL",)}
_CREDENTIALS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
           "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE"),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY",
           "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_BEARER_TOKEN", "GOOGLE_SKIP_SIGNATURE"),
}  # fmt: skip


def find_inputs(pattern: str, *, base_url: str = COMMON_CRAWL, max_files: int = 0) -> list[str]:
    """The files of a crawl, sorted.

    Args:
      pattern: parts, separated by commas, each of them
        a local path or glob (`**` too);
        an address, `https://…`, `s3://…` or `gs://…`, the latter two with wildcards if need be;
        a listing of files, local or remote (`*.paths`, `*.paths.gz`), one a line;
        a crawl's name, `CC-MAIN-2024-22` or `CC-MAIN-2024-22/wet`, whose listing is asked for.
      base_url: where the lines of a listing and the listings of crawls lie; an address or a folder.
      max_files: how many files to take, the first ones; 0 takes all.
    Raises:
      InputError: a part matches nothing or cannot be reached, or all files are empty.
    """
    if max_files < 0:
        raise InputError(f"config.max_files={max_files} must be at least 0; 0 takes all files")
    located = {source for part in _parts(pattern) for source in _locate(part, base_url)}
    found: set[str] = set()
    for source in located:
        found.update(_read_listing(source, base_url) if _is_listing(source) else (source,))
    if not any(is_remote(source) or _local_size(source) for source in found):
        raise InputError(f"config.input: the files of {pattern!r} are empty; give WARC or WET files with records")
    return sorted(found)[: max_files or None]


def find_origins(pattern: str, *, base_url: str = COMMON_CRAWL) -> list[str]:
    """What `identify` is to be asked about for the lineage of a pattern; few names, however large the crawl.

    Returns:
      The files; in place of the files of a listing or of a bucket's pattern, the listing or the pattern itself.
    Raises:
      InputError: as `find_inputs`.
    """
    return sorted(
        {origin for part in _parts(pattern) for origin in ([part] if _is_bucket(part) else _locate(part, base_url))}
    )


def identify(source: str) -> str:
    """A short text that changes when a source does.

    Args:
      source: one of `find_origins`.
    Returns:
      Of a local file its SHA-256's beginning; of a remote one its size with its ETag or time of change; of a
      bucket's pattern the SHA-256's beginning of that of all the objects that match.
    Raises:
      InputError: the source cannot be reached.
    """
    if not is_remote(source):
        return fingerprint(source)
    if _WILDCARDS.search(source) and _is_bucket(source):
        lines = sorted(f"{meta['path']} {_version(meta)}" for meta in _list_bucket(source))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return _version(_ask(source))


@contextlib.contextmanager
def open_local(source: str) -> Iterator[pathlib.Path]:
    """Gives a source as a local file: itself, or a copy that goes away with the block, and with the process.

    The copy has no name, so that a killed process leaves nothing behind; its path is that of the open file.

    Raises:
      InputError: the source cannot be reached, changes meanwhile, or is longer than the temporary folder has room.
    """
    if not is_remote(source):
        yield pathlib.Path(source)
        return
    with tempfile.TemporaryFile(buffering=0) as copy:
        try:
            _download(source, copy)
        except OSError as error:
            raise InputError(
                f"config.input: {source!r} cannot be kept in {tempfile.gettempdir()} ({error.strerror}); "
                "make room there or set TMPDIR to another folder"
            ) from error
        yield pathlib.Path(f"/dev/fd/{copy.fileno()}")


def _parts(pattern: str) -> list[str]:
    parts = [part.strip() for part in pattern.split(",") if part.strip()]
    if not parts:
        raise InputError("config.input is empty; give paths, addresses or a crawl's name")
    return parts


def _locate(part: str, base_url: str) -> list[str]:
    """The files and listings that a part of the pattern names."""
    crawl = _CRAWL_NAME.fullmatch(part)
    if crawl:
        name, kind = crawl[1], crawl[2] or "warc"
        if kind not in _CRAWL_KINDS:
            raise InputError(f"config.input: {part!r} holds no pages; write {name} or {name}/wet")
        return [f"{base_url.rstrip('/')}/crawl-data/{name}/{kind}.paths.gz"]
    scheme = _scheme(part)
    if not scheme:
        return _locate_local(part)
    if scheme not in (*_WEB, *_BUCKETS):
        raise InputError(
            f"config.input: {part!r} begins with none of https://, http://, s3://, gs://; give one, or a path"
        )
    if _is_bucket(part) and _WILDCARDS.search(part):
        found = [f"{part.split('/')[0]}//{_bucket_and_key(part)[0]}/{meta['path']}" for meta in _list_bucket(part)]
        if not found:
            raise InputError(f"config.input: {part!r} matches no object; check bucket and pattern")
        return found
    if "*" in part:
        raise InputError(f"config.input: {part!r}: a web server lists no files; give a listing (*.paths) instead")
    if not _is_listing(part):  # that one is asked for in any case
        _ask(part)
    return [part]


def _locate_local(part: str) -> list[str]:
    matches = [path for path in glob.glob(part, recursive=True) if pathlib.Path(path).is_file()]
    if not matches:
        hint = f"write {part.rstrip('/')}/*.warc.gz" if pathlib.Path(part).is_dir() else "give WARC or WET files"
        raise InputError(f"config.input: {part!r} matches no file; {hint}")
    return matches


def _read_listing(source: str, base_url: str) -> Iterator[str]:
    """The files that a listing names: addresses and absolute paths as they are, others below `base_url`."""
    with open_local(source) as path:
        try:
            content = path.read_bytes()
            text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode()
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise InputError(f"config.input: {source!r} is no listing ({error}); give one path a line") from error
    lines = list(filter(None, map(str.strip, text.splitlines())))
    bad = next((line for line in lines if not line.endswith(_CRAWL_FILES)), None) if lines else "nothing"
    if bad is not None:
        raise InputError(f"config.input: {source!r} lists {bad!r}, which is no WARC or WET file; give another listing")
    for line in lines:
        yield line if _scheme(line) or line.startswith("/") else f"{base_url.rstrip('/')}/{line}"


def _scheme(source: str) -> str:
    return source.partition("://")[0].lower() if "://" in source else ""


def is_remote(source: str) -> bool:
    """Whether a source is an address, and no path."""
    return bool(_scheme(source))


def _is_bucket(source: str) -> bool:
    return _scheme(source) in _BUCKETS


def _is_listing(source: str) -> bool:
    return (source.partition("?")[0] if _scheme(source) in _WEB else source).endswith(_LISTINGS)


def _local_size(source: str) -> int:
    try:
        return pathlib.Path(source).stat().st_size
    except OSError as error:  # a line of a listing
        raise InputError(f"config.input: {source!r} is listed and cannot be read ({error.strerror})") from error


def _bucket_and_key(source: str) -> tuple[str, str]:
    bucket, _, key = source.partition("://")[2].partition("/")
    return bucket, key


def _list_bucket(source: str) -> Iterator[Mapping[str, Any]]:
    """The objects that match an address with wildcards; `*` stops at a slash, `**` does not."""
    pattern = _bucket_and_key(source)[1]
    folder = _WILDCARDS.split(pattern)[0].rpartition("/")[0]
    store, _ = _open_store(source)
    with _explained(source):
        for batch in obstore.list(store, folder or None, chunk_size=1000):
            yield from (meta for meta in batch if _matches(meta["path"].split("/"), pattern.split("/")))


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_matches(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def _open_store(source: str) -> tuple[ObjectStore, str]:
    """Whom to ask for a source, and under which name."""
    settings = {
        "client_options": {
            "allow_http": True,  # where the address says so
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=RETRY_SECONDS),
            "timeout": timedelta(minutes=10),  # of a part
        },
        "retry_config": {
            "max_retries": MAX_RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    }
    scheme = _scheme(source)
    with _explained(source):
        if scheme in _WEB:
            return HTTPStore(source, **settings), ""
        for name in _ENDPOINTS[scheme]:
            if os.environ.get(name) and _scheme(os.environ[name]) not in _WEB:
                raise InputError(f"{name}={os.environ[name]!r} must begin with https:// or http://")
        if not any(os.environ.get(name) for name in _CREDENTIALS[scheme]):
            settings["skip_signature"] = True
        bucket, key = _bucket_and_key(source)
        return (S3Store if scheme == "s3" else GCSStore)(bucket, **settings), key


def _ask(source: str) -> Mapping[str, Any]:
    """Size and version of a remote file.

    A GET whose body is left unread: HEAD is refused where an address is signed for GET.
    """
    store, path = _open_store(source)
    with _explained(source):
        return obstore.get(store, path).meta


def _version(meta: Mapping[str, Any]) -> str:
    return f"{meta['size']}-{(meta['e_tag'] or meta['last_modified'].isoformat()).strip(chr(34))}"


def _download(source: str, copy: BinaryIO) -> None:
    """Copies a remote file part by part; a broken part is gone on with at the byte where it broke."""
    store, path = _open_store(source)
    meta = _ask(source)
    position, has_ranges, last_byte = 0, True, time.monotonic()
    while position < meta["size"]:
        if not has_ranges:
            position = copy.seek(0)
        wanted = (position, min(position + PART_BYTES, meta["size"]))
        with _explained(source):
            try:
                result = obstore.get(store, path, options={"range": wanted} if has_ranges else None)
                if _version(result.meta) != _version(meta):
                    raise InputError(f"config.input: {source!r} changed while it was read; run again")
                for chunk in result.stream(min_chunk_size=1):
                    written = 0
                    while written < len(chunk):  # less than asked for where the disk is nearly full
                        written += copy.write(chunk[written:])
                    position += len(chunk)
                    if has_ranges:
                        last_byte = time.monotonic()
            except NotSupportedError:  # the server knows no ranges: all of it in one go
                has_ranges = False
            except GenericError:
                if time.monotonic() - last_byte > RETRY_SECONDS:
                    raise
                time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Says what a failed request means for the user."""
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"config.input: {source!r}: {'; '.join(_cause_and_remedy(source, error))}") from error


def _cause_and_remedy(source: str, error: Exception) -> tuple[str, str]:
    scheme = _scheme(source)
    if isinstance(error, FileNotFoundError):
        return "there is no such file (404)", "check the address"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        remedy = {"s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "set GOOGLE_APPLICATION_CREDENTIALS"}
        return "access is refused (403)", remedy.get(scheme, "check that everybody may read it, or try later")
    cause = str(error).partition("\n")[0].rpartition(" - ")[2].strip(" :")
    root = re.search(r'(?:message|error): "([^"]+)"', str(error))
    remedy = {"s3": ", AWS_ENDPOINT_URL and AWS_REGION", "gs": " and GOOGLE_BASE_URL"}.get(scheme, "")
    return f"{cause} ({root[1]})" if root else cause, f"check the address and the network{remedy}, then run again"
