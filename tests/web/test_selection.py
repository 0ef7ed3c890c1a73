"""What a round selects: the exact cut, what is counted by domain, marks; pages are drawn evenly."""

import hashlib
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmath.runs.errors import InputError
from dsmath.web import selection
from dsmath.web.crawl import Crawl, draw_pages, find_pages, read_texts
from dsmath.web.engine import Engine
from dsmath.web.extraction import PAGES
from dsmath.web.pages import write_parquet
from dsmath.web.paths import MarkedPaths
from dsmath.web.scoring import SCORES
from dsmath.web.selection import BYTES_PER_TOKEN, Cut


def _crawl(workdir: pathlib.Path, score_N: list[float], bytes_N: list[int] | None = None, num_files: int = 3) -> Crawl:
    """Pages with these scores on a few hosts, every seventh row a duplicate, in several files."""
    bytes_N = bytes_N or [100] * len(score_N)
    names = [f"crawl-{number}" for number in range(num_files)]
    for number, name in enumerate(names):
        mine = list(range(number, len(score_N), num_files))
        rows = [row for row in range(2 * len(mine) + 7) if row % 7][: len(mine)]  # of the pages that stay
        urls, sizes = [f"https://twin{row}.net/" for row in range(2 * len(mine) + 7)], [1] * (2 * len(mine) + 7)
        for row, page in zip(rows, mine, strict=True):
            urls[row], sizes[row] = f"https://host{page % 4}.example{page % 2}.org/part{page % 3}/{page}", bytes_N[page]
        hosts = [url.split("/")[2] for url in urls]
        keys = [hashlib.md5(url.encode()).digest() for url in urls]
        columns = {
            "url": urls, "url_key": keys, "host": hosts, "domain": [host.split(".", 1)[-1] for host in hosts],
            "language": ["en"] * len(urls), "bytes": sizes, "text_key": keys,
            "text": [f"text of {url}" for url in urls],
        }  # fmt: skip
        write_parquet(workdir / "pages" / f"{name}.parquet", PAGES, [columns])
        write_parquet(workdir / "unique" / f"{name}.parquet", pa.schema([("row", pa.int64())]), [{"row": rows}])
        scores = {
            "url": [urls[row] for row in rows], "host": [hosts[row] for row in rows],
            "score": np.array([score_N[page] for page in mine], np.float32), "round": [1] * len(mine),
        }  # fmt: skip
        write_parquet(workdir / "scores" / f"round-1-{name}.parquet", SCORES, [scores])
    return Crawl(workdir, names, len(score_N), len(score_N), {}, {})


def _collected(crawl: Crawl, **limits: float) -> list[str]:
    """The addresses that a round collects, in the order of the ranking."""
    limits = {"min_score": 0.0, "max_share": 1.0, "max_tokens": 0.0} | limits
    cut = selection.find_cut(crawl, 1, **limits)
    for file in crawl.workdir.glob("selection/*"):
        file.unlink()
    selection.select_pages(crawl, 1, cut, Engine(), math_domain_share=0.1)
    pages = []
    for name in crawl.names:
        scores = pq.read_table(selection.scores_file(crawl, 1, name)).to_pylist()
        chosen = selection.read_collected(crawl, 1, name)
        pages += [(-page["score"], page["url"]) for page, is_in in zip(scores, chosen, strict=True) if is_in]
    return [url for _, url in sorted(pages, key=lambda page: (page[0], _key_number(page[1])))]


def _key_number(url: str) -> int:
    """What decides among equal scores: the beginning of the key that `_crawl` gives the address."""
    return int.from_bytes(hashlib.md5(url.encode()).digest()[:8], "little")


SCORES_WITH_TIES = st.lists(st.sampled_from([0.0, 1e-7, 0.25, 0.5, 0.7, 0.50000006, 0.9, 0.99999994, 1.0]), min_size=1)


@settings(max_examples=25)
@given(score_N=SCORES_WITH_TIES, share=st.floats(0, 0.99), data=st.data())
def test_cut_is_that_of_the_sorted_list(tmp_path_factory, score_N, share, data):
    bytes_N = data.draw(st.lists(st.integers(1, 50), min_size=len(score_N), max_size=len(score_N)))
    crawl = _crawl(tmp_path_factory.mktemp("crawl"), score_N, bytes_N)
    everything = _collected(crawl)
    assert len(everything) == len(score_N)
    size = dict(zip(everything, [bytes_N[int(url.rpartition("/")[2])] for url in everything], strict=True))
    count = round(share * len(score_N))
    if count:
        assert _collected(crawl, max_share=share) == everything[:count]
    budget = share * sum(bytes_N)
    fitting = int((np.cumsum([size[url] for url in everything]) <= budget).sum())
    if fitting:
        assert _collected(crawl, max_tokens=budget / BYTES_PER_TOKEN) == everything[:fitting]
    if count and fitting:
        both = _collected(crawl, max_share=share, max_tokens=budget / BYTES_PER_TOKEN)
        assert both == everything[: min(count, fitting)]


def test_least_score_bounds_the_ranking(tmp_path):
    crawl = _crawl(tmp_path, [0.2, 0.9, 0.5, 0.5, 0.7])
    assert len(_collected(crawl, min_score=0.5)) == 4
    assert len(_collected(crawl, min_score=0.5, max_share=0.4)) == 2
    assert len(_collected(crawl, min_score=0.7)) == 2
    assert len(_collected(crawl, min_score=0.7, max_share=0.2)) == 1
    assert selection.find_cut(crawl, 1, min_score=0.5, max_share=1.0, max_tokens=0.0) == Cut(0.5, None)


@pytest.mark.parametrize("limits", [{"min_score": 0.95}, {"max_share": 0.001}, {"max_tokens": 0.1}])
def test_cut_that_leaves_nothing_is_refused(tmp_path, limits):
    crawl = _crawl(tmp_path, [0.2, 0.9, 0.5])
    with pytest.raises(InputError, match=r"nothing was collected; the best of 3 pages scores 0\.9"):
        selection.find_cut(crawl, 1, **({"min_score": 0.0, "max_share": 1.0, "max_tokens": 0.0} | limits))


def test_domains_are_counted_over_the_whole_crawl(tmp_path):
    crawl = _crawl(tmp_path, [0.9, 0.1, 0.8, 0.2, 0.3, 0.1, 0.7, 0.1])
    selected = selection.select_pages(crawl, 1, Cut(0.5, None), Engine(), math_domain_share=0.5)
    assert selected.collected == 3 and selected.already is None
    even, odd = selected.domains
    assert (even.domain, even.pages, even.collected, even.share, even.is_math) == ("example0.org", 4, 3, 0.75, True)
    assert (odd.domain, odd.collected, odd.is_math) == ("example1.org", 0, False)
    assert even.gain == pytest.approx(0.3) and odd.gain == pytest.approx(0.5)


def test_marked_pages_that_were_missed_become_positives_once(tmp_path):
    crawl = _crawl(tmp_path, [0.9, 0.1, 0.8, 0.2, 0.3, 0.1, 0.1, 0.1])
    domains = selection.select_pages(crawl, 1, Cut(0.5, None), Engine(), math_domain_share=0.2).domains
    marked = MarkedPaths(["host0.example0.org/part1", "host1.example1.org"])  # the second is no domain of mathematics
    assert selection.mark_pages(crawl, 1, domains, marked, Engine()) == 1
    chosen = list(find_pages(crawl, lambda name: selection.read_positives(crawl, 1, name)))
    assert list(read_texts(crawl, chosen)) == ["text of https://host0.example0.org/part1/4"]
    for name in crawl.names:
        (tmp_path / "selection" / f"round-2-{name}.parquet").write_bytes(
            (tmp_path / "selection" / f"round-1-{name}.parquet").read_bytes()
        )
    assert selection.mark_pages(crawl, 2, domains, marked, Engine()) == 0
    assert len(list(find_pages(crawl, lambda name: selection.read_positives(crawl, 2, name)))) == 1


def test_pages_are_drawn_evenly_and_again_the_same(tmp_path):
    crawl = _crawl(tmp_path, [0.5] * 90)
    everything = lambda name: np.ones(30, bool)  # noqa: E731
    drawn = draw_pages(crawl, everything, count=20, max_per_host=0, seed=0)
    assert len(drawn) == len(set(drawn)) == 20
    assert drawn == draw_pages(crawl, everything, count=20, max_per_host=0, seed=0)
    assert drawn != draw_pages(crawl, everything, count=20, max_per_host=0, seed=1)
    assert {page.name for page in drawn} == set(crawl.names)
    assert set(draw_pages(crawl, everything, count=10, max_per_host=0, seed=0)) <= set(drawn)
    capped = draw_pages(crawl, everything, count=60, max_per_host=5, seed=0)
    assert sorted([page.host for page in capped]) == sorted(5 * [f"host{n}.example{n % 2}.org" for n in range(4)])
    unlike = draw_pages(crawl, lambda name: np.arange(30) < 2, count=60, max_per_host=0, seed=0)
    assert [(page.name, page.place) for page in unlike] == [(name, place) for name in crawl.names for place in (0, 1)]
