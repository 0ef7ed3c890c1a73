"""The demo crawl: real pages of installed packages, the same bytes each time, resumed after a kill."""

import hashlib
import pathlib
import re
from collections import Counter

import pytest
import tldextract

from dsmath.web import library_docs
from dsmath.web.extract import html_to_text
from dsmath.web.library_pages import render_page
from dsmath.web.library_sources import Entry, Source, find_entries
from dsmath.web.warc import read_pages


def _digests(paths: list[pathlib.Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> list[pathlib.Path]:
    return library_docs.render(tmp_path_factory.mktemp("crawl"), pages_per_host=4, seed=1, num_files=2)


def test_crawl_is_read_back_without_loss(crawl):
    skipped: Counter = Counter()
    pages = [page for path in crawl for page in read_pages(str(path), skipped)]
    hosts = {page.url.split("/")[2] for page in pages}
    assert not skipped
    assert len(hosts) >= 25
    assert len({page.url for page in pages}) == len(pages) >= 3 * len(hosts)
    assert all(page.charset == "utf-8" for page in pages)
    texts = [html_to_text(page.html, page.charset) for page in pages]
    assert all(len(text.split()) >= 30 for text in texts)
    assert not [text for text in texts if "Built from the sources of" in text or "modules |" in text]


def test_same_seed_gives_same_bytes_and_a_killed_run_goes_on(crawl, tmp_path):
    (tmp_path / crawl[0].name).write_bytes(crawl[0].read_bytes())  # the killed run had finished this one
    before = (tmp_path / crawl[0].name).stat().st_mtime_ns
    resumed = library_docs.render(tmp_path, pages_per_host=4, seed=1, num_files=2)
    assert _digests(resumed) == _digests(crawl)
    assert resumed[0].stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in crawl]


def test_hosts_are_known_to_the_public_suffix_list():
    extract = tldextract.TLDExtract(suffix_list_urls=())  # the list that comes with it
    domains = Counter(extract(source.host).top_domain_under_public_suffix for source in library_docs.SOURCES)
    assert "" not in domains
    assert len({source.host for source in library_docs.SOURCES}) == len(library_docs.SOURCES)
    assert len(domains) >= 15
    assert max(domains.values()) > 1  # some domains have several hosts


def test_another_seed_chooses_other_pages():
    source = library_docs.SOURCES[0]
    first, again, other = (
        [entry.address for entry in find_entries(source, 40, seed)] for seed in (0, 0, 1)
    )  # fmt: skip
    assert first == again
    assert set(first) != set(other)
    assert len(first) == 40


def test_nothing_is_imported(tmp_path, monkeypatch):
    package = tmp_path / "trap_package"
    package.mkdir()
    words = "word " * 60
    (package / "__init__.py").write_text(f'"""{words}"""\nfrom ._inner import shown\nraise SystemExit("imported")\n')
    (package / "_inner.py").write_text(
        f'raise SystemExit("imported")\ndef shown(x, *, y=2):\n    """{words}"""\n'
        f'def _hidden():\n    """{words}"""\ndef short():\n    """Too short."""\n'
        f'class Shown:\n    """{words}"""\n    def method(self):\n        """Does it."""\n'
        f'add_newdoc("trap_package", "added", """{words}""")\n'
    )
    (package / "broken.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = {entry.name: entry for entry in find_entries(Source("a.org", "trap_package"), 100, 0)}
    assert {"trap_package", "trap_package._inner.shown", "trap_package._inner.Shown", "trap_package.added"} <= set(
        entries
    )
    assert not [name for name in entries if name.endswith(("hidden", "short"))]
    assert entries["trap_package._inner.shown"].address == "/trap_package/inner/shown.html"
    assert entries["trap_package._inner.shown"].signature == "(x, *, y=2)"
    assert [member.name for member in entries["trap_package._inner.Shown"].members] == ["method"]
    assert find_entries(Source("a.org", "no_such_package_at_all"), 100, 0) == []


@pytest.mark.parametrize("has_scripts", [False, True])
def test_docstrings_become_pages_with_formulas(has_scripts):
    doc = r"""Solve the :func:`~a.b.linear` problem of order $n$ with :math:`x^2 < 1`, see :unknown:`this` and [1]_.

Parameters
----------
x : float
    The point.

.. math::
   :label: sum

   \sum_{k=1}^n k = \frac{n(n+1)}{2}

.. versionadded:: 1.2
   With options.

.. strange-directive:: here

.. code-block:: python
   :emphasize-lines: 1

   print(1)

References
----------
.. [1] Knuth, The Art.
"""
    entry = Entry("p.solve", "function", "/p/solve.html", "(x)", doc, (), "rst")
    page = render_page(entry, Source("p.org", "p", default_role="math"), [("q", "/p/q.html")], has_scripts=has_scripts)
    assert (b'<script type="math/tex' in page) == has_scripts
    text = html_to_text(page)
    for expected in (r"\sum_{k=1}^n k = \frac{n(n+1)}{2}", "x^2 < 1", "linear", "New in version 1.2", "print(1)",
                     "Knuth, The Art.", "p.solve(x)", ":unknown:`this`"):  # fmt: skip
        assert expected in text, text
    assert "a.b." not in text
    assert "rror" not in text  # docutils' messages
    assert "q" not in text.split()  # the sidebar


def test_seed_texts_are_mathematical_and_repeat():
    texts = library_docs.seed_texts(3, 20)
    assert texts == library_docs.seed_texts(3, 20)
    assert len(set(texts)) == 20
    assert all(re.search("sympy|mpmath|scipy|numpy", text) for text, _ in texts)
    assert all(re.search("sympy|mpmath|scipy|numpy", host) for _, host in texts)
    assert any("\\" in text for text, _ in texts)


def test_other_texts_are_of_many_packages_and_not_mathematical():
    texts = library_docs.other_texts(3, 60)
    assert len(set(texts)) == 60
    assert not [text for text, _ in texts if re.match("(sympy|mpmath|scipy|numpy|networkx)[.]", text)]
    assert len({host for _, host in texts}) >= 15
