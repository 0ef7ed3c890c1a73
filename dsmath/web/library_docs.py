"""The demo crawl: real text with no network, the documentation of the packages on this disk as a crawl would find it.

Docstrings and shipped texts become HTML pages with MathJax, one host a package, in WARC files. The hosts are invented:
nothing is asked of them. Which versions are installed decides what the pages say; the seed decides which are shown.
"""

import contextlib
import datetime
import functools
import hashlib
import io
import itertools
import math
import os
import pathlib
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from fastwarc.stream_io import GzipWriter
from fastwarc.warc import WarcRecord, WarcRecordType

from dsmath.runs.progress import Progress
from dsmath.runs.workdir import write_atomically
from dsmath.web.extract import html_to_text
from dsmath.web.library_pages import render_page
from dsmath.web.library_sources import STANDARD_LIBRARY, Source, find_entries
from dsmath.web.pool import Pool

# Hosts under one registered domain belong to one domain, as on the web.
SOURCES = (
    Source("docs.sympy-crawl.org", "sympy", distribution="sympy", default_role="math"),
    Source("www.mpmath-crawl.org", "mpmath", distribution="mpmath", default_role="math"),
    Source("docs.scipy-crawl.org", "scipy", distribution="scipy"),
    Source("www.numpy-crawl.org", "numpy", distribution="numpy"),
    Source("www.networkx-crawl.net", "networkx", distribution="networkx"),
    Source("jax.accelerator-crawl.dev", "jax", distribution="jax"),
    Source("optax.accelerator-crawl.dev", "optax", distribution="optax"),
    Source("flax.accelerator-crawl.dev", "flax", distribution="flax"),
    Source("orbax.accelerator-crawl.dev", "orbax", distribution="orbax-checkpoint", markup="markdown"),
    Source("grain.accelerator-crawl.dev", "grain", distribution="grain", markup="markdown"),
    Source("etils.accelerator-crawl.dev", "etils", distribution="etils", markup="markdown"),
    Source("opt-einsum.tensor-crawl.co.uk", "opt_einsum", distribution="opt_einsum"),
    Source("www.math-verify-crawl.org", "latex2sympy2_extended", distribution="latex2sympy2_extended"),
    Source("docs.python-crawl.org", STANDARD_LIBRARY),
    Source("arrow.columnar-crawl.org", "pyarrow", distribution="pyarrow"),
    Source("docs.daft-crawl.io", "daft", distribution="daft", markup="markdown"),
    Source("docs.requests-crawl.io", "requests", distribution="requests"),
    Source("docs.urllib3-crawl.io", "urllib3", distribution="urllib3", markup="rst"),
    Source("docs.pydantic-crawl.dev", "pydantic", distribution="pydantic", markup="markdown"),
    Source("matplotlib.plots-crawl.org", "matplotlib", distribution="matplotlib"),
    Source("pillow.plots-crawl.org", "PIL", distribution="pillow"),
    Source("fonttools.plots-crawl.org", "fontTools", distribution="fonttools"),
    Source("jinja.templates-crawl.com", "jinja2", distribution="jinja2"),
    Source("markdown-it.templates-crawl.com", "markdown_it", distribution="markdown-it-py"),
    Source("docutils.templates-crawl.com", "docutils", distribution="docutils"),
    Source("www.absl-crawl.com", "absl", distribution="absl-py", markup="markdown"),
    Source("tqdm.terminal-crawl.co.uk", "tqdm", distribution="tqdm"),
    Source("rich.terminal-crawl.co.uk", "rich", distribution="rich", markup="markdown"),
    Source(
        "datasets.tensorflow-crawl.org", "tensorflow_datasets", distribution="tensorflow-datasets", markup="markdown"
    ),
    Source("boards.tensorflow-crawl.org", "tensorboardX", distribution="tensorboardX"),
    Source("docs.fsspec-crawl.net", "fsspec", distribution="fsspec"),
    Source("docs.setuptools-crawl.io", "setuptools", distribution="setuptools"),
    Source("protobuf.google-crawl.com", "google", ("protobuf",), distribution="protobuf", markup="markdown"),
    Source("dateutil.dates-crawl.com", "dateutil", distribution="python-dateutil"),
    Source("docs.psutil-crawl.io", "psutil", distribution="psutil"),
)
# Shares of the seed. NetworkX and the rest of SciPy and NumPy are left for the rounds to find.
_SEED_SHARES = (
    ("sympy", (), 0.4),
    ("mpmath", (), 0.12),
    *(("scipy", (folder,), 0.08) for folder in ("special", "linalg", "stats", "integrate", "optimize")),
    ("numpy", ("linalg", "polynomial"), 0.08),
)
# Packages whose pages may be mathematics: none of the other texts comes from them, but for JAX's compiler and kernels.
_MATHEMATICAL = {"sympy", "mpmath", "scipy", "numpy", "networkx", "jax", "opt_einsum", "latex2sympy2_extended"}
_OTHER_FOLDERS_OF_JAX = ("_src/pallas", "_src/interpreters", "_src/state")
_DATE = datetime.datetime(2024, 2, 6, tzinfo=datetime.UTC)
_ALIAS_SHARE = 0.03  # of the pages were crawled under a second address of the same page
_INDEX_ALIAS_SHARE = 0.3  # of the `/index.html` pages under `/` too
_SCRIPT_HOST_SHARE = 0.3  # of the hosts still have the formulas of MathJax 2
_NEIGHBOURS = 12


def render(folder: str | os.PathLike, *, pages_per_host: int, seed: int, num_files: int = 4) -> list[pathlib.Path]:
    """Writes the demo crawl.

    Args:
      folder: where the files go; files that are there already are kept, so that a killed run goes on.
      pages_per_host: the most that one host shows, second addresses aside.
      seed: chooses the pages and their order.
      num_files: number of WARC files.
    Returns:
      The files, `docs-00000.warc.gz` and so on. The same seed and packages give the same bytes.
    """
    paths = [pathlib.Path(folder) / f"docs-{index:05}.warc.gz" for index in range(num_files)]
    missing = {index for index, path in enumerate(paths) if not path.exists()}
    if not missing:
        return paths
    records: dict[int, list[tuple[str, bytes]]] = {index: [] for index in missing}
    tasks = [(source, pages_per_host, seed, num_files, frozenset(missing)) for source in SOURCES]
    for rendered in _map("demo crawl", _render_host, tasks):
        for index, url, record in rendered:
            records[index].append((url, record))
    for index in sorted(missing):
        ordered = sorted(records[index], key=lambda item: _draw(seed, "order", item[0]))
        content = b"".join([_info_record(paths[index].name), *(record for _, record in ordered)])
        write_atomically(paths[index], content)
    return paths


def seed_texts(seed: int, count: int) -> list[tuple[str, str]]:
    """Stand-in for OpenWebMath: texts of mathematics as the web's manuals write it, first positives for any crawl.

    The texts are those of SymPy, mpmath, five parts of SciPy and two of NumPy, in fixed shares, rendered as for the
    crawl; on the embedded crawl, therefore, some pages are in the seed too.

    Args:
      seed: chooses the texts.
      count: the most to give; about 3,000 exist, and parts that hold less than their share give what they hold.
    Returns:
      Texts, each with the host of its package in the crawl.
    """
    sources = {source.package: source for source in SOURCES}
    quotas = [
        (sources[package]._replace(folders=folders), math.ceil(share * count))
        for package, folders, share in _SEED_SHARES
    ]
    return _choose_texts("seed texts", quotas, seed, count, has_documents=False)


def other_texts(seed: int, count: int) -> list[tuple[str, str]]:
    """Texts of the same kind that are not mathematics: documentation of all other subjects, READMEs included.

    Beside `seed_texts` they teach a classifier what is mathematics, and not what is the documentation of a package.

    Args:
      seed: chooses the texts.
      count: the most to give; about 4,000 exist, and no package gives more than
      half again the average.
    Returns:
      Texts, each with the host of its package in the crawl.
    """
    sources = [source for source in SOURCES if source.package not in _MATHEMATICAL]
    sources += [source._replace(folders=_OTHER_FOLDERS_OF_JAX) for source in SOURCES if source.package == "jax"]
    quotas = [(source, math.ceil(1.5 * count / len(sources))) for source in sources]
    return _choose_texts("other texts", quotas, seed, count, has_documents=True)


def _choose_texts(
    label: str, quotas: Sequence[tuple[Source, int]], seed: int, count: int, *, has_documents: bool
) -> list[tuple[str, str]]:
    tasks = [(source, quota, seed, has_documents) for source, quota in quotas]
    texts = list(itertools.chain.from_iterable(_map(label, _render_texts, tasks)))
    return random.Random(f"{seed}/{label}").sample(texts, min(count, len(texts)))


def _render_texts(source: Source, quota: int, seed: int, has_documents: bool) -> list[tuple[str, str]]:
    """The texts of one source; under a host of its own, which makes the choice another one than the crawl's."""
    host, source = source.host, source._replace(host=f"seed.{source.host}")
    entries = find_entries(source, quota, seed, has_documents=has_documents)
    return [(html_to_text(render_page(entry, source, [], has_scripts=False)), host) for entry in entries]


def _map(label: str, function: Callable[..., Any], tasks: Sequence[tuple]) -> list[Any]:
    """[function(*task) for task in tasks], in processes, one task a host."""
    answers: dict[int, Any] = {}
    pool = Pool(os.cpu_count() or 1)
    with Progress(len(tasks), label, "host") as progress, contextlib.closing(pool):
        for place, answer in pool.run(functools.partial(_numbered, function), list(enumerate(tasks))):
            answers[place] = answer
            progress.advance()
    return [answers[place] for place in range(len(tasks))]


def _numbered(function: Callable[..., Any]) -> Callable[[tuple[int, tuple]], tuple[int, Any]]:
    return lambda task: (task[0], function(*task[1]))


def _render_host(
    source: Source, limit: int, seed: int, num_files: int, wanted: frozenset[int]
) -> list[tuple[int, str, bytes]]:
    """The records of one host that belong to the wanted files: (file, URL, compressed record)."""
    entries = find_entries(source, limit, seed)
    names = [(entry.name.rsplit(".", 1)[-1], entry.address) for entry in sorted(entries, key=lambda e: e.address)]
    place = {address: index for index, (_, address) in enumerate(names)}
    has_scripts = _draw(seed, "scripts", source.host) < _SCRIPT_HOST_SHARE
    records = []
    for entry in entries:
        urls = _addresses(source.host, entry.address, seed)
        files = [int(_draw(seed, "file", url) * num_files) for url in urls]
        if not wanted.intersection(files):
            continue
        start = max(0, place[entry.address] - _NEIGHBOURS // 2)
        page = render_page(entry, source, names[start : start + _NEIGHBOURS], has_scripts=has_scripts)
        records += [
            (index, url, _page_record(url, page)) for index, url in zip(files, urls, strict=True) if index in wanted
        ]
    return records


def _addresses(host: str, address: str, seed: int) -> list[str]:
    """The URLs under which a page was crawled: one, and for some pages another one that means the same."""
    url = f"https://{host}{address}"
    draw = _draw(seed, "alias", url)
    if address.endswith("/index.html"):
        return [url, url.removesuffix("index.html")] if draw < _INDEX_ALIAS_SHARE else [url]
    if draw >= _ALIAS_SHARE:
        return [url]
    name = address.rsplit("/", 1)[-1].removesuffix(".html")
    others = (f"{url}#{name}", f"{url}?utm_source=search&utm_medium=organic", url.replace("https:", "http:"))
    return [url, others[int(draw / _ALIAS_SHARE * len(others))]]


def _draw(seed: int, purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{text}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _page_record(url: str, page: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(page)}\r\n\r\n"
    headers = {"WARC-Target-URI": url, "Content-Type": "application/http; msgtype=response"}
    return _record(WarcRecordType.response, url, headers, head.encode() + page)


def _info_record(name: str) -> bytes:
    headers = {"WARC-Filename": name, "Content-Type": "application/warc-fields"}
    content = b"software: dsmath\r\ndescription: documentation of installed packages under invented hosts\r\n"
    return _record(WarcRecordType.warcinfo, name, headers, content)


def _record(kind: WarcRecordType, name: str, headers: dict[str, str], content: bytes) -> bytes:
    """One record as a gzip member of its own, which is what lets a reader step over damage."""
    record = WarcRecord()
    record.init_headers(kind, f"uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}".encode(), content_length=len(content))
    record.record_date = _DATE
    for key, value in headers.items():
        record.headers[key] = value
    record.set_bytes_content(content)
    buffer = io.BytesIO()
    writer = GzipWriter(buffer)  # fastwarc 2 wants a new one for each record
    record.write(writer)
    writer.close()
    return buffer.getvalue()
