"""What is offered to people after a round: the pages of the mathematical domains, sorted by domain and address."""

import pathlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsmath.runs.workdir import replacing
from dsmath.web.crawl import Crawl
from dsmath.web.domains import Domain
from dsmath.web.pages import read_table, write_parquet
from dsmath.web.selection import read_collected, scores_file

OFFERS = pa.schema(
    [
        ("domain", pa.string()),
        ("url", pa.string()),
        ("host", pa.string()),
        ("score", pa.float32()),
        ("collected", pa.bool_()),
        ("file", pa.string()),
        ("row", pa.int64()),
    ]
)
DOMAINS = pa.schema(
    [
        ("domain", pa.string()),
        ("pages", pa.int64()),
        ("collected", pa.int64()),
        ("share", pa.float64()),
        ("is_math", pa.bool_()),
        ("gain", pa.float64()),
    ]
)
_SORTED_AT_ONCE = 2_000_000  # pages
_ROW_GROUP = 50_000  # pages: what a reader of one domain touches at least


def offers_file(workdir: pathlib.Path, round_number: int) -> pathlib.Path:
    """Where the round's offers stand."""
    return workdir / "offers" / f"round-{round_number}.parquet"


def write_domains(path: pathlib.Path, domains: Sequence[Domain]) -> None:
    """Writes the domains, most collected first."""
    columns = {name: [getattr(domain, name) for domain in domains] for name in DOMAINS.names}
    write_parquet(path, DOMAINS, [columns])


def write_offers(crawl: Crawl, round_number: int, domains: Sequence[Domain]) -> None:
    """Writes `offers/round-ROUND.parquet`, sorted by domain and address.

    Memory holds the pages of as many domains as reach two million, or of one that is larger.
    """
    path = offers_file(crawl.workdir, round_number)
    if path.exists():
        return
    offered = sorted((domain for domain in domains if domain.is_math), key=lambda domain: domain.domain)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, OFFERS, compression="zstd") as writer:
        while offered:
            taken, pages = 0, 0
            while taken < len(offered) and (not taken or pages + offered[taken].pages <= _SORTED_AT_ONCE):
                pages += offered[taken].pages
                taken += 1
            table = _read_offers(crawl, round_number, [domain.domain for domain in offered[:taken]])
            keys = [("domain", "ascending"), ("url", "ascending"), ("file", "ascending")]
            writer.write_table(table.sort_by(keys), row_group_size=_ROW_GROUP)
            offered = offered[taken:]


def _read_offers(crawl: Crawl, round_number: int, domains: list[str]) -> pa.Table:
    wanted, tables = pa.array(domains, pa.string()), [OFFERS.empty_table()]
    for name in crawl.names:
        pages = crawl.index(name, ["domain", "url", "host"])
        scores = read_table(scores_file(crawl, round_number, name), ["score"])["score"]
        table = pages.append_column("score", scores)
        table = table.append_column("collected", pa.array(read_collected(crawl, round_number, name)))
        table = table.append_column("file", pa.array([name] * len(table), pa.string()))
        table = table.append_column("row", pa.array(crawl.rows(name)))
        tables.append(table.filter(pc.is_in(table["domain"], value_set=wanted)).cast(OFFERS))
    return pa.concat_tables(tables)
