"""What the tests of mining share."""

import json
import pathlib
from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsmath.web.offers import OFFERS


@pytest.fixture(scope="session")
def make_mining_workdir():
    """(folder, pages of (domain, url, score, text), round_number) -> the folder, as mining leaves it after a round.

    Pages with a score of 0.5 and more are collected.
    """
    return _make_mining_workdir


def _make_mining_workdir(
    folder: pathlib.Path, pages: Iterable[tuple[str, str, float, str]], round_number: int = 1
) -> pathlib.Path:
    for name in ("pages", "offers", "domains"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows, texts, by_domain = [], [], defaultdict(list)
    for row, (domain, url, score, text) in enumerate(pages):
        texts.append({"url": url, "domain": domain, "text": text})
        rows.append(
            {"domain": domain, "url": url, "host": url.split("/")[2], "score": score, "collected": score >= 0.5,
             "file": "crawl-00000", "row": row}
        )  # fmt: skip
        by_domain[domain].append(rows[-1])
    domains = []
    for domain, its in sorted(by_domain.items()):
        collected = sum(row["collected"] for row in its)
        gain = sum(row["score"] for row in its if not row["collected"])
        domains.append(
            {"domain": domain, "pages": len(its), "collected": collected, "share": collected / len(its),
             "is_math": True, "gain": gain}
        )  # fmt: skip
    domains.append(
        {"domain": "news.example", "pages": 9, "collected": 0, "share": 0.0, "is_math": False, "gain": 0.1}
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(texts), folder / "pages" / "crawl-00000.parquet", row_group_size=3)
    rows.sort(key=lambda row: (row["domain"], row["url"]))
    name = f"round-{round_number}.parquet"
    pq.write_table(pa.Table.from_pylist(domains), folder / "domains" / name)
    pq.write_table(pa.Table.from_pylist(rows, schema=OFFERS), folder / "offers" / name, row_group_size=1000)
    (folder / "config.json").write_text(json.dumps({"stage": "mine"}))
    return folder


@pytest.fixture(scope="session")
def math_pages() -> list[tuple[str, str, float, str]]:
    """Pages of two domains: questions and answers (much was not collected), and a forum behind queries."""
    overflow = "https://mathoverflow.example"
    pages = []
    for n in range(40):
        text = f"Question {n}. Let $x_{{{n}}}$ be real. Is \\[\\sum_{{k=1}}^n k = \\frac{{n(n+1)}}{{2}}\\] true?"
        pages.append(("mathoverflow.example", f"{overflow}/questions/{n}/title-{n}", 0.9 if n % 2 else 0.4, text))
    for n in range(10):
        pages.append(("mathoverflow.example", f"{overflow}/users/{n}", 0.05, f"User {n}, badges and reputation"))
    for n in range(6):
        pages.append(("mathoverflow.example", f"{overflow}/questions/tagged/career?page={n}", 0.1, "Careers"))
    pages.append(("mathoverflow.example", "http://meta.mathoverflow.example/help", 0.02, "Help"))
    for forum, score in (("algebra", 0.35), ("offtopic", 0.02)):
        for n in range(8):
            pages.append(("forum.example", f"http://www.forum.example/view.php?f={forum}&t={n}", score, "A thread"))
    pages += [("forum.example", f"http://www.forum.example/wiki/{n}", 0.8, "A collected page") for n in range(4)]
    return pages
