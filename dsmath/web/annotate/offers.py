"""What a round of mining offers to people: its domains, their pages, the pages' texts."""

import dataclasses
import pathlib
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq  # read_table and pyarrow.dataset would import pandas, which takes seconds

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import CONFIG, read_json

WAITS = "waits.json"  # what mining leaves where it stops for marks: the round and its command line
_ROUND_FILE = re.compile(r"round-(\d+)\.parquet")
_PAGE_COLUMNS = ["url", "score", "collected", "file", "row"]
_SHOWN = ["domain", "pages", "collected", "share", "gain"]
_DOMAIN_COLUMNS = [*_SHOWN, "is_math"]
_TEXT_BATCH = 64  # pages that are read for one text


@dataclasses.dataclass(frozen=True)
class OfferedDomain:
    """A domain of mathematics.

    Attributes:
      domain: registered domain.
      pages: number of its pages in the crawl.
      collected: number of those that were collected.
      share: collected / pages.
      gain: sum of the scores of the others: about how many pages of mathematics are among them.
    """

    domain: str
    pages: int
    collected: int
    share: float
    gain: float


class Offers:
    """The offers of one round; texts and pages are read when they are asked for.

    Args:
      workdir: of mining.
      round_number: the round; `newest_round` finds it.
    """

    def __init__(self, workdir: pathlib.Path, round_number: int):
        self.workdir, self.round = workdir, round_number
        self._pages = workdir / "offers" / f"round-{round_number}.parquet"
        domains = workdir / "domains" / f"round-{round_number}.parquet"
        try:
            with pq.ParquetFile(domains) as file:
                batches = [batch.filter(batch["is_math"]) for batch in file.iter_batches(columns=_DOMAIN_COLUMNS)]
            pq.read_schema(self._pages)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{domains} or {self._pages}: cannot be read ({_first_line(error)}); remove both and run the line of "
                "mining again"
            ) from error
        found = [OfferedDomain(*row.values()) for batch in batches for row in batch.select(_SHOWN).to_pylist()]
        self.domains = {one.domain: one for one in sorted(found, key=lambda one: (-one.gain, one.domain))}

    def read_pages(self, domain: str) -> pa.Table:
        """The pages of a domain: url, score, collected, file and row. Only row groups that can hold it are read."""
        tables = []
        with pq.ParquetFile(self._pages) as file:
            column = file.schema_arrow.get_field_index("domain")
            for group in range(file.num_row_groups):
                bounds = file.metadata.row_group(group).column(column).statistics
                if bounds is None or not bounds.has_min_max or bounds.min <= domain <= bounds.max:
                    table = file.read_row_group(group, columns=["domain", *_PAGE_COLUMNS])
                    tables.append(table.filter(pc.equal(table["domain"], domain)).select(_PAGE_COLUMNS))
            schema = pa.schema([file.schema_arrow.field(name) for name in _PAGE_COLUMNS])
        return pa.concat_tables([schema.empty_table(), *tables])

    def read_text(self, name: str, row: int) -> str:
        """A page's extracted text: that of a row of `pages/NAME.parquet`.

        Raises:
          FileNotFoundError: the file is gone.
        """
        with pq.ParquetFile(self.workdir / "pages" / f"{name}.parquet") as file:
            start = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < start + rows:
                    break
                start += rows
            for batch in file.iter_batches(_TEXT_BATCH, row_groups=[group], columns=["text"]):
                if row < start + batch.num_rows:
                    return batch["text"][row - start].as_py()
                start += batch.num_rows
        raise IndexError(f"{name}: no row {row}")


def newest_round(workdir: pathlib.Path) -> int:
    """The newest round whose offers are complete.

    Raises:
      InputError: the folder is no workdir of mining, or offers nothing yet.
    """
    if not workdir.is_dir():
        raise InputError(f"--workdir={workdir}: no such folder; name the workdir of experiments.mine")
    config = workdir / CONFIG
    stage = read_json(config).get("stage") if config.exists() else None
    if stage not in (None, "mine"):
        raise InputError(f"--workdir={workdir}: holds the stage {stage!r}; name the workdir of experiments.mine")
    offers, domains = _rounds(workdir / "offers"), _rounds(workdir / "domains")
    if offers & domains:
        return max(offers & domains)
    if stage is None:
        raise InputError(f"--workdir={workdir}: no workdir of mining; name that of experiments.mine")
    raise InputError(
        f"--workdir={workdir}: no domains are offered yet; mine until the first round ends: "
        f"python -m experiments.mine --config=CONFIG --workdir={workdir} --config.annotation=people"
    )


def _rounds(folder: pathlib.Path) -> set[int]:
    matches = (_ROUND_FILE.fullmatch(path.name) for path in folder.glob("round-*.parquet"))
    return {int(match[1]) for match in matches if match}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
