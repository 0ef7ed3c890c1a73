"""The data card of an export: what a corpus holds, where it came from and what it must not be taken for.

`card.json` for programs, `card.md` for people; an export has both, and so has each of its cuts. The Markdown opens with
the fields that dataset hubs read; its sections follow Gebru et al. 2018, "Datasheets for Datasets".
"""

import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tldextract

from dsmath.data.export import PAGES, Ranking
from dsmath.runs.workdir import CONFIG, LINEAGE, read_json, write_atomically, write_json

JSON, MARKDOWN = "card.json", "card.md"
_TOP = 50  # hosts and domains by name
_BINS = 10  # of the scores
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_BATCH = 65_536
_LONGEST_CELL = 80  # characters
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")  # pages, as dataset hubs count them
_SUFFIXES = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)
_MINING = ("input", "seed", "seed_texts", "min_score", "max_share", "math_domain_share", "stop_share", "benchmarks")
_CRAWL = ("pages", "skipped", "duplicates", "unique", "collected", "contaminated")
_LICENCE = (
    "The pages keep their owners' rights: a crawl grants none. Whoever passes the tokens on answers for it. "
    "`pages.parquet` has the address of every record, so that a page can be found and taken out on request."
)
_LIMITS = (
    "A score is a classifier's opinion, not a measure of truth or quality; pages near the lowest score are doubtful.",
    "Nobody has read the pages: errors, advertisements and personal data of the web are among them.",
    "Languages are detected, and wrong on some short pages and pages of formulas.",
)
_CLEANED = "Only exact matches with the benchmarks named above were removed; paraphrases and translations were not."
_NOT_CLEANED = "No benchmark is known to have been removed: figures of a model that was trained on it may be too good."


def collect_facts(corpus: str | os.PathLike, tokenizer: str | os.PathLike, settings: Mapping[str, Any]) -> dict:
    """Where an export came from; what the mining workdir does not tell is left out.

    Args:
      corpus, tokenizer: workdirs.
      settings: of the export, such as its least score.
    """
    files = [pathlib.Path(corpus) / name for name in (CONFIG, LINEAGE, "report.json")]
    config, lineage, report = (read_json(file) if file.exists() else {} for file in files)
    return {
        "corpus": str(corpus),
        "tokenizer": str(tokenizer),
        "settings": dict(settings),
        "mining": {name: config[name] for name in _MINING if name in config},
        "classifier": dict(config.get("classifier") or {}),
        "code": lineage.get("code"),
        "crawl": {name: report[name] for name in _CRAWL if name in report},
        "rounds": len(report["rounds"]) if "rounds" in report else None,
    }


def write_cards(workdir: pathlib.Path, ranking: Ranking, facts: Mapping[str, Any]) -> None:
    """Writes the cards of an export's cuts and, last, its own."""
    cuts = []
    for name, (pages, _) in ranking.cuts.items():
        card = _make(f"{workdir.name}/{name}", workdir, ranking, facts, pages)
        cuts.append({"name": name, **{key: card[key] for key in ("pages", "tokens", "lowest_score")}})
        _write(workdir / name, card)
    _write(workdir, {**_make(workdir.name, workdir, ranking, facts, len(ranking.order_N)), "cuts": cuts})


def describe(pages_file: str | os.PathLike, count: int) -> dict[str, Any]:
    """Counts of the best pages; each table's pages and tokens sum to the whole.

    Args:
      pages_file: `pages.parquet` of an export.
      count: how many of its rows, from the first.
    """
    groups: dict[str, dict[Any, np.ndarray]] = {"host": {}, "language": {}, "round": {}}
    bins_BK, lengths, characters, lowest = np.zeros((_BINS, 2), np.int64), [], 0, float("inf")
    with pq.ParquetFile(pages_file) as file:
        left = count
        for batch in file.iter_batches(_BATCH, columns=[*groups, "score", "tokens", "characters"]):
            table = pa.Table.from_batches([batch.slice(0, left)])
            left -= table.num_rows
            for column, sums in groups.items():
                _add(sums, table, column)
            score, tokens = table["score"].to_numpy().astype(np.float64), table["tokens"].to_numpy()
            # Rounded first, for 0.7 in float32 is less than 0.7.
            place = np.clip(np.floor(score.round(6) * _BINS), 0, _BINS - 1).astype(int)
            np.add.at(bins_BK, place, np.stack([np.ones_like(tokens), tokens], axis=1))
            lengths.append(tokens)
            characters += int(table["characters"].to_numpy().sum(dtype=np.int64))
            lowest = min(lowest, float(score.min(initial=np.inf)))
            if left <= 0:
                break
    length = np.concatenate(lengths)
    domains: dict[str, np.ndarray] = {}
    for host, sums in groups["host"].items():
        name = _registered_domain(host or "")
        domains[name] = domains.get(name, 0) + sums
    percentiles = np.percentile(length, _PERCENTILES, method="inverted_cdf")
    return {
        "pages": len(length),
        "tokens": int(length.sum(dtype=np.int64)),
        "characters": characters,
        "lowest_score": lowest,
        "tokens_per_page": {
            "mean": round(float(length.mean()), 1),
            "least": int(length.min()),
            **{f"p{p}": int(value) for p, value in zip(_PERCENTILES, percentiles, strict=True)},
            "most": int(length.max()),
        },
        "hosts": _list_top(groups["host"]),
        "domains": _list_top(domains),
        "languages": _list(groups["language"]),
        "rounds": sorted(_list(groups["round"]), key=lambda row: (row["name"] is None, row["name"] or 0)),
        "scores": [
            {"from": place / _BINS, "to": (place + 1) / _BINS, "pages": int(pages), "tokens": int(tokens)}
            for place, (pages, tokens) in enumerate(bins_BK)
        ],
    }


def to_markdown(card: Mapping[str, Any]) -> str:
    """The card for people; names from the crawl can neither break a table nor become markup."""
    pages, tokens, lowest = card["pages"], card["tokens"], f"{card['lowest_score']:.4f}"
    lengths = [(f"tokens a page, {name}", value) for name, value in card["tokens_per_page"].items()]
    sizes = [("pages", pages), ("tokens", tokens), ("characters", card["characters"]), ("lowest score", lowest)]
    parts = [
        _front_matter(card),
        f"# Data card of {_code(card['name'])}",
        f"{pages:,} web pages of mathematics as {tokens:,} token ids, the best scores first: record N of the dataset "
        "is row N of `pages.parquet`. The ids are those of the tokenizer in this folder.",
        _table(("", "value"), [*sizes, *lengths]),
    ]
    if card["cuts"]:
        rows = [(_code(cut["name"]), cut["pages"], cut["tokens"], f"{cut['lowest_score']:.4f}") for cut in card["cuts"]]
        parts += ["## Cuts of the ranking", _table(("folder", "pages", "tokens", "lowest score"), rows)]
    parts.append("## What is in it")
    for title in ("host", "domain", "language", "round"):
        parts.append(_shares(title, [(_code(row["name"]), row) for row in card[f"{title}s"]], pages, tokens))
    scores = [(f"{row['from']:.1f} to {row['to']:.1f}", row) for row in card["scores"]]
    parts += [_shares("score", scores, pages, tokens), "## How it was made", _table(("", "value"), _origin(card))]
    removed = [row for name, value in card["facts"]["crawl"].items() for row in _flatten(f"crawl, {name}", value)]
    removed += [(f"not exported, {reason}", count) for reason, count in card["left_out"].items()]
    if removed:
        parts += ["## What the steps left", _table(("", "pages"), removed)]
    limits = [*_LIMITS, _CLEANED if card["facts"]["mining"].get("benchmarks") else _NOT_CLEANED]
    parts += ["## Licence", _LICENCE, "## Known limits", "\n".join(f"- {limit}" for limit in limits)]
    return "\n\n".join(parts) + "\n"


def _make(name: str, workdir: pathlib.Path, ranking: Ranking, facts: Mapping[str, Any], pages: int) -> dict[str, Any]:
    beyond = {"beyond the cut": ranking.num_ranked - pages} if pages < ranking.num_ranked else {}
    left_out = ranking.left_out | beyond
    return {"name": name, **describe(workdir / PAGES, pages), "cuts": [], "left_out": left_out, "facts": dict(facts)}


def _write(folder: pathlib.Path, card: Mapping[str, Any]) -> None:
    write_atomically(folder / MARKDOWN, to_markdown(card))
    write_json(folder / JSON, card)  # last: it says that the card is whole


def _add(sums: dict[Any, np.ndarray], table: pa.Table, column: str) -> None:
    """Adds a table's pages and tokens to the sums by the values of a column."""
    grouped = table.group_by(column).aggregate([([], "count_all"), ("tokens", "sum")])
    columns = (grouped[name].to_pylist() for name in (column, "count_all", "tokens_sum"))
    for value, pages, tokens in zip(*columns, strict=True):
        sums[value] = sums.get(value, 0) + np.array([pages, tokens], np.int64)


def _list(sums: Mapping[Any, np.ndarray]) -> list[dict[str, Any]]:
    """Rows by name, most tokens first."""
    ranked = sorted(sums.items(), key=lambda item: (-item[1][1], -item[1][0], str(item[0])))
    return [{"name": name, "pages": int(pages), "tokens": int(tokens)} for name, (pages, tokens) in ranked]


def _list_top(sums: Mapping[Any, np.ndarray]) -> list[dict[str, Any]]:
    """The first rows, and one for the rest."""
    rows = _list(sums)
    rest = rows[_TOP:]
    if rest:
        others = {key: sum(row[key] for row in rest) for key in ("pages", "tokens")}
        rows[_TOP:] = [{"name": f"{len(rest):,} others", **others}]
    return rows


def _registered_domain(host: str) -> str:
    name, _, port = host.rpartition(":")
    host = name if port.isdigit() else host
    return _SUFFIXES(host).top_domain_under_public_suffix or host


def _origin(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = card["facts"]
    rows = {"corpus": facts["corpus"], "tokenizer": facts["tokenizer"], "mined by": facts["code"]}
    rows["rounds"] = facts["rounds"]
    for part in ("mining", "classifier", "settings"):
        rows |= {f"{part}, {_plain(name)}": value for name, value in facts[part].items()}
    return [(name, _code(value)) for name, value in rows.items() if value not in (None, "")]


def _front_matter(card: Mapping[str, Any]) -> str:
    names = [row["name"] or "" for row in card["languages"]]
    languages = [name for name in names if re.fullmatch("[a-z]{2,3}", name)]
    sizes = [f"n<{_SIZES[0]}", *(f"{low}<n<{high}" for low, high in itertools.pairwise(_SIZES)), f"n>{_SIZES[-1]}"]
    size = sizes[min(max(len(str(card["pages"])) - 3, 0), len(sizes) - 1)]
    lines = ["---", "license: other", "task_categories: [text-generation]", f"size_categories: [{size}]"]
    if languages:
        # Quoted: YAML takes Norwegian's "no" for false.
        lines.append("language: [" + ", ".join(f'"{name}"' for name in languages) + "]")
    return "\n".join([*lines, "---"])


def _shares(title: str, rows: Sequence[tuple[str, Mapping[str, int]]], pages: int, tokens: int) -> str:
    """A table of named counts, in numbers and in shares of the whole."""
    cells = [
        (name, row["pages"], f"{row['pages'] / pages:.1%}", row["tokens"], f"{row['tokens'] / tokens:.1%}")
        for name, row in rows
    ]
    return _table((title, "pages", "share", "tokens", "share"), cells)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    shown = [[cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *shown, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = [":" + "-" * (widths[0] - 1) if widths[0] > 1 else "-", *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, shown)])


def _flatten(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"{name}, {_plain(key)}", count) for key, count in value.items() if isinstance(count, int)]
    return [(name, value)] if isinstance(value, int) else []


def _plain(value: Any) -> str:
    """A value without what could end its cell or its code span, or turn the line's direction."""
    text = "".join("\ufffd" if c in "`|\\" or not c.isprintable() else c for c in str(value))
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def _code(value: Any) -> str:
    """A value that is shown letter by letter: nothing within is markup or a link."""
    return f"`{_plain(value)}`" if value not in (None, "") else "none"
