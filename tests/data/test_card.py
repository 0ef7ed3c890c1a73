"""The data card: its numbers add up, and nothing of the crawl can break it."""

import pathlib
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt

from dsmath.data import card
from dsmath.data.export import _PAGES_SCHEMA

HOSTILE = "evil|`host`<script>alert(1)</script>\n\u202e[x](javascript:y)"


def _write_pages(folder: pathlib.Path, count: int) -> pathlib.Path:
    rows = [
        {
            "url": f"https://{i}",
            "host": f"www.host{i % 70}.co.uk" if i % 70 else HOSTILE,
            "language": ("en", "no", None, "<b>")[i % 4],
            "round": i % 3 + 1,
            "score": 1 - i / count,
            "characters": 3 * i + 5,
            "tokens": i + 2,
        }
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows, _PAGES_SCHEMA), folder / "pages.parquet")
    return folder / "pages.parquet"


def _card(folder: pathlib.Path, count: int = 300, **facts) -> dict:
    facts = {"mining": {}, "classifier": {}, "settings": {}, "crawl": {}, "code": None, "rounds": None, **facts}
    facts |= {"corpus": "runs/mine", "tokenizer": "runs/tokenizer"}
    described = card.describe(_write_pages(folder, count), count)
    return {"name": "export", **described, "cuts": [], "left_out": {}, "facts": facts}


def _tables(markdown: str) -> list[list[list[str]]]:
    """Rows of cells of each table, as a Markdown reader sees them."""
    tables = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and token.level >= 4:
            tables[-1][-1].append(token.content)
    return tables


def test_every_table_sums_to_the_whole(tmp_path):
    described = card.describe(_write_pages(tmp_path, 300), 300)
    assert described["pages"] == 300
    assert described["tokens"] == sum(i + 2 for i in range(300))
    assert described["characters"] == sum(3 * i + 5 for i in range(300))
    for name in ("hosts", "domains", "languages", "rounds", "scores"):
        for column in ("pages", "tokens"):
            assert sum(row[column] for row in described[name]) == described[column], name
    assert len(described["hosts"]) == 51
    assert described["hosts"][-1]["name"] == "20 others"
    assert described["tokens_per_page"]["p50"] == 151
    assert [row["pages"] for row in described["scores"]] == [29, *[30] * 8, 31]


def test_a_cut_counts_its_pages_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "_BATCH", 64)
    file = _write_pages(tmp_path, 300)
    described = card.describe(file, 100)
    assert (described["pages"], described["tokens"]) == (100, sum(i + 2 for i in range(100)))
    assert described["lowest_score"] == pytest.approx(1 - 99 / 300)
    assert card.describe(file, 300)["pages"] == 300


def test_hosts_are_joined_by_the_public_suffix_list(tmp_path):
    names = {row["name"] for row in card.describe(_write_pages(tmp_path, 300), 300)["domains"]}
    assert "host1.co.uk" in names
    assert "co.uk" not in names


def test_hostile_names_break_no_table_and_are_no_markup(tmp_path):
    markdown = card.to_markdown(_card(tmp_path, mining={"input": HOSTILE}))
    for table in _tables(markdown):
        assert {len(row) for row in table} == {len(table[0])}
    html = MarkdownIt("commonmark").enable("table").render(markdown.split("---", 2)[2])
    assert not re.findall(r"<script|<a |<b>", html)
    assert "\u202e" not in markdown


def test_the_markdown_shows_the_numbers_and_opens_with_the_fields_of_a_hub(tmp_path):
    markdown = card.to_markdown(_card(tmp_path, crawl={"pages": 12_345, "duplicates": {"near": 67}}))
    assert markdown.startswith("---\nlicense: other\n")
    assert 'language: ["no", "en"]' in markdown  # neither "<b>" nor none
    assert "size_categories: [n<1K]" in markdown
    shown = {row[0]: row[1] for table in _tables(markdown) for row in table}
    assert shown["pages"] == "300"
    assert shown["crawl, pages"] == "12,345"
    assert shown["crawl, duplicates, near"] == "67"


def test_what_the_mining_workdir_does_not_tell_is_left_out(tmp_path):
    facts = card.collect_facts(tmp_path, "runs/tokenizer", {"min_score": 0.0})
    markdown = card.to_markdown(_card(tmp_path, **facts))
    assert "crawl, " not in markdown
    assert "None" not in markdown
    assert "No benchmark is known to have been removed" in markdown


def test_a_mining_workdir_tells_what_it_did(tmp_path):
    (tmp_path / "report.json").write_text('{"pages": 9, "duplicates": {"url": 2}, "rounds": [{}, {}], "hosts": []}')
    (tmp_path / "config.json").write_text('{"input": "crawl/*.warc.gz", "seed": 7, "classifier": {"dim": 256}}')
    (tmp_path / "lineage.json").write_text('{"code": "0.1.0+abc"}')
    facts = card.collect_facts(tmp_path, "runs/tokenizer", {})
    assert facts["mining"] == {"input": "crawl/*.warc.gz", "seed": 7}
    assert (facts["classifier"], facts["code"], facts["rounds"]) == ({"dim": 256}, "0.1.0+abc", 2)
    assert facts["crawl"] == {"pages": 9, "duplicates": {"url": 2}}
