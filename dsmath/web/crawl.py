"""A crawl that has been read: its unique pages, gone through a file at a time.

No function here holds a list of all pages. Columns that stand beside each other in several files
(`unique/NAME.parquet`, `scores/…-NAME.parquet`, `selection/…-NAME.parquet`) have one row a unique page, in one order.
"""

import dataclasses
import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import LINEAGE
from dsmath.web import duplicates, library_docs, sources
from dsmath.web.engine import Engine
from dsmath.web.extraction import ExtractPages
from dsmath.web.pages import read_metadata, read_rows, read_table

EMBEDDED = "embedded"


@dataclasses.dataclass(frozen=True)
class Crawl:
    """The readable pages of a crawl, without duplicates.

    Attributes:
      workdir: of the mining run.
      names: the crawl's files by name, without ending.
      num_pages: readable pages, duplicates included.
      num_unique: pages that stay.
      skipped: records that were left out, by kind.
      duplicates: pages that were dropped, by kind.
      is_scored: whether a classifier scored the pages as they were read.
    """

    workdir: pathlib.Path
    names: list[str]
    num_pages: int
    num_unique: int
    skipped: Mapping[str, int]
    duplicates: Mapping[str, int]
    is_scored: bool = False

    def pages(self, name: str) -> pathlib.Path:
        """The file of a crawl file's pages, duplicates included."""
        return self.workdir / "pages" / f"{name}.parquet"

    def unique(self, name: str) -> pathlib.Path:
        """The file of the rows of the pages that stay."""
        return self.workdir / "unique" / f"{name}.parquet"

    def task(self, name: str, output: pathlib.Path, **files: str | pathlib.Path) -> dict[str, str]:
        """A worker's task on a crawl file: its pages, those that stay, what is written, and other files by role."""
        named = {"pages": self.pages(name), "unique": self.unique(name), "output": output, **files}
        return {role: str(path) for role, path in named.items()}

    def rows(self, name: str) -> np.ndarray:
        """int64 [unique pages of the file]: their rows in `pages`, ascending."""
        return read_table(self.unique(name))["row"].to_numpy()

    def index(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Columns of the unique pages of a file."""
        return read_table(self.pages(name), columns).take(pa.array(self.rows(name)))


class PageReference(NamedTuple):
    """Where a unique page stands.

    Attributes:
      name: its crawl file.
      place: its place among the file's unique pages.
      host: its host.
    """

    name: str
    place: int
    host: str


def find_files(
    source: str, workdir: pathlib.Path, *, base_url: str, max_files: int, **embedded: Any
) -> tuple[list[str], list[str]]:
    """The crawl's files: those that `sources.find_inputs` finds, or the embedded crawl, written to `crawl/` first.

    Args:
      source: `config.input`.
      base_url: where Common Crawl's files lie.
      max_files: takes the first; 0: all.
      **embedded: of `library_docs.render`.
    Returns:
      The files, and what stands for them in the lineage.
    Raises:
      InputError: nothing matches.
    """
    if source != EMBEDDED:
        # A worker of a cluster has another current folder.
        files = [
            file if sources.is_remote(file) else os.path.abspath(file)
            for file in sources.find_inputs(source, base_url=base_url, max_files=max_files)
        ]
        return files, sources.find_origins(source, base_url=base_url)
    if not (workdir / LINEAGE).exists():  # perhaps of a start with other settings
        shutil.rmtree(workdir / "crawl", ignore_errors=True)
    files = [str(path) for path in library_docs.render(workdir / "crawl", **embedded)][: max_files or None]
    return files, files


def read(
    inputs: Sequence[str],
    workdir: pathlib.Path,
    engine: Engine,
    *,
    min_words: int,
    languages: Sequence[str],
    threshold: float,
    pages_per_task: int,
    classifier: str = "",
) -> Crawl:
    """Extracts the pages of every file and finds the duplicates; what is done already stays as it is.

    Args:
      inputs: the crawl's files.
      min_words: pages with fewer words are left out.
      languages: codes of the languages that stay; none: all.
      threshold: the Jaccard similarity from which texts are near duplicates.
      pages_per_task: of `duplicates.remove`.
      classifier: the file of the one that scores the pages, where it is known before they are read.
    Raises:
      InputError: the crawl holds no readable page, or a file cannot be reached.
    """
    names = _names(inputs)
    tasks = [
        {
            "input": path,
            "output": str(workdir / "pages" / f"{name}.parquet"),
            "signatures": str(workdir / "signatures" / f"{name}.npy"),
        }
        for path, name in zip(inputs, names, strict=True)
    ]
    engine.run_missing("extract", ExtractPages, (min_words, list(languages), classifier), tasks)
    skipped: Counter = Counter()
    for task in tasks:
        found = read_metadata(task["output"], "skipped")
        skipped.update(found)
        if found.get("damaged"):
            logging.warning("%s: %d damaged records were left out", task["input"], found["damaged"])
    num_pages = sum(pq.read_metadata(task["output"]).num_rows for task in tasks)
    if not num_pages:
        raise InputError(f"config.input: no readable page in {len(names)} files (left out: {dict(skipped)})")
    dropped = duplicates.remove(names, workdir, engine, threshold=threshold, pages_per_task=pages_per_task)
    return Crawl(
        workdir=workdir,
        names=names,
        num_pages=num_pages,
        num_unique=num_pages - sum(dropped.values()),
        skipped=dict(sorted(skipped.items())),
        duplicates=dropped,
        is_scored=bool(classifier),
    )


def draw_pages(
    crawl: Crawl, is_wanted: Callable[[str], np.ndarray], *, count: int, max_per_host: int, seed: int
) -> list[PageReference]:
    """Random pages, in the crawl's order: every page has its lot, the lowest win.

    Args:
      crawl: its unique pages are drawn from.
      is_wanted: bool [unique pages of the file] by the file's name.
      count: most pages.
      max_per_host: most pages of a host; 0: any number.
      seed: of the lots; a page keeps its lot whatever is wanted.
    """
    best = pa.table({"lot": pa.array([], pa.float64()), "name": pa.array([], pa.string()),
                     "place": pa.array([], pa.int64()), "host": pa.array([], pa.string())})  # fmt: skip
    for number, name in enumerate(crawl.names):
        wanted = np.flatnonzero(is_wanted(name))
        lots = np.random.default_rng((seed, number)).random(pq.read_metadata(crawl.unique(name)).num_rows)[wanted]
        host = crawl.index(name, ["host"])["host"].take(pa.array(wanted))
        drawn = pa.table({"lot": lots, "name": pa.array([name] * len(wanted)), "place": wanted, "host": host})
        # A page that is not among the best of some files is not among the best of all: hosts only fill up.
        best = _keep_lowest(pa.concat_tables([best, drawn.cast(best.schema)]), count, max_per_host)
    order = {name: number for number, name in enumerate(crawl.names)}
    drawn = [PageReference(page["name"], page["place"], page["host"]) for page in best.to_pylist()]
    return sorted(drawn, key=lambda page: (order[page.name], page.place))


def find_pages(crawl: Crawl, is_wanted: Callable[[str], np.ndarray]) -> Iterator[PageReference]:
    """All wanted pages, in the crawl's order."""
    for name in crawl.names:
        wanted = np.flatnonzero(is_wanted(name))
        hosts = crawl.index(name, ["host"])["host"].take(pa.array(wanted)).to_pylist()
        for place, host in zip(wanted.tolist(), hosts, strict=True):
            yield PageReference(name, place, host)


def read_texts(crawl: Crawl, pages: Sequence[PageReference]) -> Iterator[str]:
    """The texts of pages that stand in the crawl's order."""
    places: dict[str, list[int]] = {}
    for page in pages:
        places.setdefault(page.name, []).append(page.place)
    for name, chosen in places.items():
        for batch in read_rows(crawl.pages(name), ["text"], crawl.rows(name)[chosen]):
            yield from batch["text"].to_pylist()


def _keep_lowest(pages: pa.Table, count: int, max_per_host: int) -> pa.Table:
    pages = pages.sort_by([("lot", "ascending")])
    if max_per_host:
        host = pages["host"].combine_chunks().dictionary_encode().indices.to_numpy()
        by_host = np.argsort(host, kind="stable")
        starts = np.flatnonzero(np.diff(host[by_host], prepend=-1))
        rank = np.empty(len(host), np.int64)
        rank[by_host] = np.arange(len(host)) - np.repeat(starts, np.diff(starts, append=len(host)))
        pages = pages.filter(pa.array(rank < max_per_host))
    return pages.slice(0, count)


def _names(inputs: Sequence[str]) -> list[str]:
    """The files' names without endings, numbered where two are equal."""
    stems = [pathlib.PurePosixPath(path).name.partition(".")[0] for path in inputs]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{number:05d}-{stem}" for number, stem in enumerate(stems)]
