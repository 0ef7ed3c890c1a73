"""Removes a crawl's duplicates out of core: no task holds more than its share of the pages.

Steps alternate between blocks (some crawl files, with all their pages) and parts (what all pages have under some of
the keys). A task writes an Arrow file whose batch i is for task i of the next step; that task reads batch i of every
file. Pages are numbered in the crawl's order. What belongs to the whole crawl is one array on disk, 8 bytes a page.
All of it lies in `dedup/`, and goes when `duplicates.parquet` stands.

    step          a task for  what its files hold                                            batches by
    addresses     a block     address key, text key, number and address of every page        address key
    same_address  a part      the same: of pages with one address, all but the first lean    text key
    same_text     a part      pages of equal texts, and which of them stays                  block
    bands         a block     keys of the bands of MinHash values of the pages that stay     band key
    candidates    a part      near pages among those that share a key, in pairs              (one)
    clusters      the crawl   the union of all these pairs                                   (no batches)
    members       a block     the clusters' pages, and those that lean on a page that stays  cluster
    survivors     a part      pages that go, with the addresses of those that stay           block
    unique        a block     the same in the crawl's order, beside `unique/NAME.parquet`    (one)
"""

import dataclasses
import itertools
import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from absl import logging

from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import read_json, replacing, write_json
from dsmath.web import clusters, shuffle
from dsmath.web.engine import Engine

DUPLICATES = "duplicates.parquet"
KINDS = ("url", "exact", "near")
_STAYS, _URL, _EXACT, _NEAR = -1, 0, 1, 2  # the last three are places in KINDS
_UNITS = {
    "addresses": "block",
    "same_address": "part",
    "same_text": "part",
    "bands": "block",
    "candidates": "part",
    "clusters": "crawl",
    "members": "block",
    "survivors": "part",
    "unique": "block",
}
_HEAVY = ("bands", "candidates")  # a second a task; the others take a fifth
_GATHERED = 2**18  # signatures that a task holds at a time, of 256 bytes
_SCANNED = 2**20  # pages of the array on disk that are looked at together
_DUPLICATES_SCHEMA = pa.schema([("url", pa.string()), ("kept_url", pa.string()), ("kind", pa.string())])
_UNIQUE_SCHEMA = pa.schema([("row", pa.int64())])


def remove(
    names: Sequence[str],
    workdir: pathlib.Path,
    engine: Engine,
    *,
    threshold: float,
    pages_per_task: int = 100_000,
) -> dict[str, int]:
    """Writes `unique/NAME.parquet` (the rows that stay, ascending) and, last, `duplicates.parquet`, in crawl order.

    Of pages with one address the first in the crawl stays; of equal or nearly equal texts the one with the shortest
    address, the alphabet deciding. `kept_url` is always a page that stayed. Whatever the engine and the size of
    tasks, the rows are the same.

    Args:
      names: of the crawl's files, in its order. Read are `pages/NAME.parquet` (columns url, url_key, text_key) and
        `signatures/NAME.npy` (of `dedup.page_signatures`).
      workdir: what was finished there before is not made again.
      engine: where the tasks run.
      threshold: the Jaccard similarity from which texts are near duplicates, from 0.5 to 1.
      pages_per_task: a task's memory grows with it, by about 3 KB a page; it must also hold all pages of one text.
    Returns:
      the pages that go, by kind.
    Raises:
      InputError: the threshold is out of range.
    """
    try:
        clusters.rows_of_band(threshold)
    except ValueError as error:
        raise InputError(f"config.near_duplicate_{error}; give a Jaccard similarity within") from error
    folder, target = workdir / "dedup", workdir / DUPLICATES
    if not target.exists():
        plan = _Plan.of(names, workdir, threshold, pages_per_task)
        if plan.path(workdir).exists() and _Plan.read(workdir) != plan:
            shutil.rmtree(folder)
        plan.write(workdir)
        _run_steps(plan, workdir, engine)
        _write_duplicates(target, [plan.output(workdir, "unique", block) for block in range(plan.count("block"))])
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(pq.read_metadata(target).metadata[b"dropped"])


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How the work is cut.

    Attributes:
      names: of the crawl's files.
      starts: the number of each file's first page, and that of all pages.
      blocks: the place of each block's first file in `names`, and that of all files.
      parts: parts of the keys.
      threshold: of near duplicates.
    """

    names: list[str]
    starts: list[int]
    blocks: list[int]
    parts: int
    threshold: float

    @classmethod
    def of(cls, names: Sequence[str], workdir: pathlib.Path, threshold: float, pages_per_task: int) -> "_Plan":
        rows = [pq.read_metadata(workdir / "pages" / f"{name}.parquet").num_rows for name in names]
        blocks, held = [0], 0
        for place, count in enumerate(rows):
            if held and held + count > pages_per_task:
                blocks.append(place)
                held = 0
            held += count
        starts = list(itertools.accumulate(rows, initial=0))
        return cls(list(names), starts, [*blocks, len(names)], max(-(-starts[-1] // pages_per_task), 1), threshold)

    @classmethod
    def read(cls, workdir: pathlib.Path) -> "_Plan":
        return cls(**read_json(cls.path(workdir)))

    def write(self, workdir: pathlib.Path) -> None:
        write_json(self.path(workdir), dataclasses.asdict(self))

    @staticmethod
    def path(workdir: pathlib.Path) -> pathlib.Path:
        return workdir / "dedup" / "plan.json"

    @staticmethod
    def output(workdir: pathlib.Path, step: str, number: int) -> pathlib.Path:
        return workdir / "dedup" / step / f"{number:06d}"

    def count(self, unit: str) -> int:
        return {"block": len(self.blocks) - 1, "part": self.parts, "crawl": 1}[unit]

    def files(self, block: int) -> Iterator[tuple[str, int, int]]:
        """A block's files: name, number of the first page, number behind the last."""
        for place in range(self.blocks[block], self.blocks[block + 1]):
            yield self.names[place], self.starts[place], self.starts[place + 1]

    def block_of(self, page_N: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.array(self.starts)[self.blocks], page_N, side="right") - 1


def _run_steps(plan: _Plan, workdir: pathlib.Path, engine: Engine) -> None:
    tasks = {
        step: [
            {"step": step, "number": number, "output": str(plan.output(workdir, step, number))}
            for number in range(plan.count(unit))
        ]
        for step, unit in _UNITS.items()
    }
    if max(map(len, tasks.values())) > 1:
        for step, unit in _UNITS.items():
            label, is_light = f"dedup: {step.replace('_', ' ')}", step not in _HEAVY
            engine.run_missing(label, Steps, (str(workdir),), tasks[step], unit=unit, is_light=is_light)
        return
    steps = Steps(str(workdir))
    with Progress(len(tasks), "dedup", "step") as progress:
        for (task,) in tasks.values():
            if not pathlib.Path(task["output"]).exists():
                steps.run(task)
            progress.advance()


def _write_duplicates(target: pathlib.Path, blocks: Sequence[pathlib.Path]) -> None:
    dropped: Counter = Counter(dict.fromkeys(KINDS, 0))
    with replacing(target) as temporary, pq.ParquetWriter(temporary, _DUPLICATES_SCHEMA, compression="zstd") as writer:
        for path in blocks:
            table = pa.Table.from_batches([shuffle.read(path)]).cast(_DUPLICATES_SCHEMA)
            dropped.update(table["kind"].to_pylist())
            writer.write_table(table)
        writer.add_key_value_metadata({"dropped": json.dumps(dropped)})


class Steps:
    """Worker: the steps at the top of this file.

    Args:
      workdir: holds the plan.
    """

    def __init__(self, workdir: str):
        self._workdir = pathlib.Path(workdir)
        self._plan = _Plan.read(self._workdir)

    def run(self, task: Mapping[str, Any]) -> None:
        """Does the part of `task["step"]` that has `task["number"]`."""
        with replacing(task["output"]) as path:
            getattr(self, f"_{task['step']}")(task["number"], path)

    def _addresses(self, block: int, path: pathlib.Path) -> None:
        table = self._read_pages(block, ["url_key", "text_key", "url"])
        first_page = self._plan.starts[self._plan.blocks[block]]
        records = {
            "url_key": table["url_key"],
            "text_key": table["text_key"],
            "page": np.arange(first_page, first_page + len(table)),
            "url": table["url"].cast(pa.large_string()),
        }
        self._write(path, records, shuffle.key_numbers(table["url_key"]), "part")

    def _same_address(self, part: int, path: pathlib.Path) -> None:
        pages = self._read("addresses", part)  # ascending
        first_N = _first_of_group(_group(pages["url_key"]))
        text_key = pages["text_key"].take(pa.array(first_N))
        records = {
            "text_key": text_key,
            "page": pages["page"],
            "url": pages["url"],
            "kind": np.where(first_N == np.arange(len(pages)), _STAYS, _URL),
        }
        self._write(path, records, shuffle.key_numbers(text_key), "part")

    def _same_text(self, part: int, path: pathlib.Path) -> None:
        pages = self._read("same_address", part)
        group_N = _group(pages["text_key"])
        is_shared = pa.array(np.bincount(group_N)[group_N] > 1)
        pages, first_N = _sort_by_survivor(pages.filter(is_shared), "text_key")
        page_N = pages["page"].to_numpy()
        is_exact_N = (pages["kind"].to_numpy() == _STAYS) & (first_N != np.arange(len(pages)))
        kind_N = np.where(is_exact_N, _EXACT, pages["kind"].to_numpy())
        records = {"page": page_N, "kept": page_N[first_N], "kind": kind_N}
        self._write(path, records, self._plan.block_of(page_N), "block")

    def _bands(self, block: int, path: pathlib.Path) -> None:
        texts = self._read("same_text", block)
        gone = texts["page"].to_numpy()[texts["kind"].to_numpy() != _STAYS]
        rows = clusters.rows_of_band(self._plan.threshold)
        keys, pages = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for name, start, end in self._plan.files(block):
            signature_NH = np.load(self._signatures(name))
            stays_N = signature_NH.any(axis=1)  # a text without words resembles none
            stays_N[gone[(gone >= start) & (gone < end)] - start] = False
            key_NB = clusters.band_keys(signature_NH[stays_N], rows)
            keys.append(key_NB.ravel())
            pages.append(np.repeat(np.flatnonzero(stays_N) + start, key_NB.shape[1]))
        key_K = np.concatenate(keys)
        self._write(path, {"key": key_K, "page": np.concatenate(pages)}, key_K, "part")

    def _candidates(self, part: int, path: pathlib.Path) -> None:
        records = self._read("bands", part)
        buckets = clusters.find_buckets(records["key"].to_numpy(), records["page"].to_numpy())
        del records
        pairs, undecided = [np.zeros((2, 0), np.int64)], 0
        for some in clusters.split_buckets(buckets, _GATHERED):
            page_N, place_M = np.unique(some.page_M, return_inverse=True)
            signature_NH = self._gather_signatures(page_N)
            least = clusters.least_matches(self._plan.threshold, signature_NH.shape[1])
            link_N = np.zeros(len(page_N), np.int64)
            undecided += clusters.join_buckets(some._replace(page_M=place_M), signature_NH, link_N, least)
            joined = np.flatnonzero(link_N)
            root = clusters.find_roots(link_N, joined)
            pairs.append(page_N[np.stack([joined, root])[:, joined != root]])
        first_E, second_E = np.concatenate(pairs, axis=1)
        metadata = {"undecided": str(undecided)}
        shuffle.write(path, {"first": first_E, "second": second_E}, np.zeros(len(first_E), int), 1, metadata)

    def _clusters(self, _: int, path: pathlib.Path) -> None:
        num_pages = self._plan.starts[-1]
        file = np.lib.format.open_memmap(path, "w+", np.int64, (num_pages + 1,))  # no file can be mapped that is empty
        link_N, undecided = np.asarray(file), 0
        for part in range(self._plan.parts):
            pairs = shuffle.read(self._plan.output(self._workdir, "candidates", part))
            clusters.join(link_N, pairs["first"].to_numpy(), pairs["second"].to_numpy())
            undecided += int(pairs.schema.metadata[b"undecided"])
        for start in range(0, num_pages, _SCANNED):
            joined = np.flatnonzero(link_N[start : start + _SCANNED]) + start
            link_N[joined] = clusters.find_roots(link_N, joined) + 1
        file.flush()
        if undecided:
            logging.warning("dedup: %d comparisons of pages in very large buckets were left out", undecided)

    def _members(self, block: int, path: pathlib.Path) -> None:
        texts = self._read("same_text", block)
        link_N = np.asarray(np.load(self._plan.output(self._workdir, "clusters", 0), mmap_mode="r"))
        files = list(self._plan.files(block))
        start, end = files[0][1], files[-1][2]
        page_M = np.union1d(np.flatnonzero(link_N[start:end]) + start, texts["page"].to_numpy())
        kept_M, kind_M = page_M.copy(), np.full(len(page_M), _STAYS)
        place = np.searchsorted(page_M, texts["page"].to_numpy())
        kept_M[place], kind_M[place] = texts["kept"].to_numpy(), texts["kind"].to_numpy()
        link_M = link_N[kept_M]
        cluster_M = np.where(link_M > 0, link_M - 1, kept_M)
        urls = self._read_pages(block, ["url"])["url"]
        records = {
            "cluster": cluster_M,
            "page": page_M,
            "kind": kind_M,
            "url": urls.take(pa.array(page_M - start)).cast(pa.large_string()),
        }
        self._write(path, records, clusters.mix(cluster_M.astype(np.uint64)), "part")

    def _survivors(self, part: int, path: pathlib.Path) -> None:
        pages, first_N = _sort_by_survivor(self._read("members", part), "cluster")
        kind_N = pages["kind"].to_numpy()
        records = {
            "page": pages["page"],
            "url": pages["url"],
            "kept_url": pages["url"].take(pa.array(first_N)),
            "kind": pa.array(KINDS).take(pa.array(np.where(kind_N == _STAYS, _NEAR, kind_N))),
        }
        goes = pa.array(first_N != np.arange(len(pages)))
        gone = pa.record_batch(records).filter(goes)
        columns = dict(zip(gone.schema.names, gone.columns, strict=True))
        self._write(path, columns, self._plan.block_of(gone["page"].to_numpy()), "block")

    def _unique(self, block: int, path: pathlib.Path) -> None:
        gone = self._read("survivors", block).sort_by("page")
        page_N = gone["page"].to_numpy()
        for name, start, end in self._plan.files(block):
            stays_N = np.ones(end - start, bool)
            stays_N[page_N[(page_N >= start) & (page_N < end)] - start] = False
            target = self._workdir / "unique" / f"{name}.parquet"
            with replacing(target) as temporary:
                pq.write_table(pa.table({"row": np.flatnonzero(stays_N)}, schema=_UNIQUE_SCHEMA), temporary)
        columns = {name: gone[name] for name in _DUPLICATES_SCHEMA.names}
        shuffle.write(path, columns, np.zeros(len(gone), int), 1)

    def _gather_signatures(self, page_N: np.ndarray) -> np.ndarray:
        """Signatures of some pages, ascending."""
        places = np.searchsorted(self._plan.starts, page_N, side="right") - 1
        used, first = np.unique(places, return_index=True)
        gathered = []
        for place, page_F in zip(used, np.split(page_N, first[1:]), strict=True):
            signature_NH = np.load(self._signatures(self._plan.names[place]), mmap_mode="r")
            gathered.append(np.asarray(signature_NH)[page_F - self._plan.starts[place]])
        return np.concatenate(gathered)

    def _read_pages(self, block: int, columns: list[str]) -> pa.Table:
        tables = []
        for name, _, _ in self._plan.files(block):
            with pq.ParquetFile(self._workdir / "pages" / f"{name}.parquet") as file:
                tables.append(file.read(columns, use_threads=False))
        return pa.concat_tables(tables)

    def _signatures(self, name: str) -> pathlib.Path:
        return self._workdir / "signatures" / f"{name}.npy"

    def _read(self, step: str, number: int) -> pa.RecordBatch:
        """What all tasks of a step wrote for one task of the next, in the tasks' order."""
        tasks = range(self._plan.count(_UNITS[step]))
        return pa.concat_batches([shuffle.read(self._plan.output(self._workdir, step, task), number) for task in tasks])

    def _write(self, path: pathlib.Path, columns: Mapping[str, Any], number_N: np.ndarray, unit: str) -> None:
        """Writes a batch for each block or part; a record goes to the one of its number, modulo their count."""
        count = self._plan.count(unit)
        shuffle.write(path, columns, number_N % number_N.dtype.type(count), count)


def _group(column: pa.Array) -> np.ndarray:
    """Numbers from 0 that are equal where the values are, in the order in which these appear."""
    return column.dictionary_encode().indices.to_numpy()


def _first_of_group(group_N: np.ndarray) -> np.ndarray:
    """The place of the first member of each one's group; groups have the numbers from 0."""
    return np.unique(group_N, return_index=True)[1][group_N]


def _sort_by_survivor(pages: pa.RecordBatch, key: str) -> tuple[pa.RecordBatch, np.ndarray]:
    """Groups pages by a column, the one that stays first; and the place of that one for each."""
    group_N = _group(pages[key])
    ranks = {
        "group": group_N,
        "leans": pc.not_equal(pages["kind"], _STAYS),
        "length": pc.utf8_length(pages["url"]),
        "url": pages["url"],
        "page": pages["page"],
    }
    order = pc.sort_indices(pa.table(ranks), sort_keys=[(name, "ascending") for name in ranks])
    return pages.take(order), _first_of_group(group_N[order.to_numpy()])
