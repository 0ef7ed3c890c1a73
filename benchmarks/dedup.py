"""Deduplication of a million generated documents with planted near duplicates: recall, precision, memory, speed.

    python -m benchmarks.dedup [--documents=1000000 --workers=2 --engine=native --folder=DIR --json=FILE]

Documents are 120 to 200 words, drawn from 50,000 by Zipf's law. A fifth of them stand in planted clusters of 2 to 5:
variants of a first document or, in a third of the clusters, each of the one before (a chain). A variant is a copy, a
copy in other letters, or an edit: words replaced one by one or in a row, put in, or cut off at the end. Edits are drawn
so that the Jaccard similarity of word 5-grams spreads from 0.6 to 1; it is then computed from the 5-grams of all
pairs of a cluster, and that is the truth. Members of a cluster lie in random places of the crawl.

The work is `dsmath.web.duplicates.remove` at a threshold of 0.8 over the files that extraction leaves, on so many
processes. There is no peer.

- recall: of the planted pairs with a similarity of 0.85 or more, those whose pages have the same survivor.
- precision: of the pages that went as near duplicates, those that have a planted partner with a similarity of 0.75 or
  more under the same survivor, which is itself of their planted cluster. Chains are joined on purpose, so a page need
  not resemble the survivor itself.
- memory: 4 GB to the peak of the resident memory of all processes together (shared pages count in each), over the
  whole run, the writing of the documents included.
"""

import contextlib
import os
import pathlib
import re
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags

from benchmarks import timing
from benchmarks.dedup_documents import PER_FILE, WriteDocuments, plant
from dsmath.runs.workdir import write_json
from dsmath.web import dedup, duplicates
from dsmath.web.engine import ENGINES, Engine

_DOCUMENTS = flags.DEFINE_integer("documents", 1_000_000, "documents", lower_bound=1000)
_WORKERS = flags.DEFINE_integer("workers", 2, "processes", lower_bound=1)
_ENGINE = flags.DEFINE_enum("engine", "native", ENGINES, "where they run")
_FOLDER = flags.DEFINE_string("folder", None, "where the files lie; a temporary folder by default (2 KB a document)")
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")

_THRESHOLD, _MARGIN = 0.8, 0.05
_GOALS = {"dedup_recall": 0.98, "dedup_precision": 0.99, "dedup_memory": 1.0}
_MEMORY = 4 * 2**30
_BINS = np.array([0, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.01])


def main(argv: list[str]) -> None:
    del argv
    machine = timing.describe_machine("pyarrow", "rensa")
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(_FOLDER.value or stack.enter_context(tempfile.TemporaryDirectory()))
        memory = stack.enter_context(_PeakMemory())
        engine = Engine(_ENGINE.value, _WORKERS.value)
        engine.start()
        names = _write_documents(folder, engine)
        writing_peak = memory.peak
        memory.peak = 0
        started = time.perf_counter()
        dropped = duplicates.remove(names, folder, engine, threshold=_THRESHOLD)
        seconds = time.perf_counter() - started
        figures = _judge(folder, names)
        removing_peak = memory.peak
    peak = max(writing_peak, removing_peak)
    figures |= {
        "documents": _DOCUMENTS.value,
        "workers": _WORKERS.value,
        "engine": _ENGINE.value,
        "dropped": dropped,
        "seconds": seconds,
        "pages_per_second": _DOCUMENTS.value / seconds,
        "signatures_per_second": _time_signatures(),
        "peak_bytes": {"writing": writing_peak, "removing": removing_peak},
    }
    _print(figures)
    ratios = {
        "dedup_recall": figures["recall"],
        "dedup_precision": figures["precision"],
        "dedup_memory": _MEMORY / peak,
    }
    if _JSON.value:
        write_json(_JSON.value, figures | {"ratios": ratios, "goals": _GOALS, "machine": machine})
    for name, ratio in ratios.items():
        print(f"ratio {name}: {ratio:.3f} (goal {_GOALS[name]:.2f})")
    sys.exit(any(ratio < _GOALS[name] for name, ratio in ratios.items()))


def _write_documents(folder: pathlib.Path, engine: Engine) -> list[str]:
    starts = range(0, _DOCUMENTS.value, PER_FILE)
    names = [f"part-{number:05d}" for number in range(len(starts))]
    tasks = [
        {
            "start": start,
            "output": str(folder / "pages" / f"{name}.parquet"),
            "signatures": str(folder / "signatures" / f"{name}.npy"),
            "truth": str(folder / "truth" / f"{name}.parquet"),
        }
        for name, start in zip(names, starts, strict=True)
    ]
    engine.run_missing("documents", WriteDocuments, (_DOCUMENTS.value,), tasks)
    return names


def _judge(folder: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
    survivor_N, is_near_N = np.arange(_DOCUMENTS.value), np.zeros(_DOCUMENTS.value, bool)
    for batch in pq.ParquetFile(folder / duplicates.DUPLICATES).iter_batches():
        numbers, kept = (_numbers(batch[column].to_pylist()) for column in ("url", "kept_url"))
        survivor_N[numbers] = kept
        is_near_N[numbers] = np.array(batch["kind"].to_pylist(), dtype=object) == "near"
    truth = pa.concat_tables([pq.read_table(folder / "truth" / f"{name}.parquet") for name in names])
    first_P, second_P, similarity_P = (truth[column].to_numpy() for column in truth.column_names)
    found_P = survivor_N[first_P] == survivor_N[second_P]
    must_P = similarity_P >= _THRESHOLD + _MARGIN

    cluster_N, _, _ = plant(_DOCUMENTS.value)
    is_alike_N = np.zeros(_DOCUMENTS.value, bool)
    alike_P = found_P & (similarity_P >= _THRESHOLD - _MARGIN)
    is_alike_N[first_P[alike_P]] = is_alike_N[second_P[alike_P]] = True
    is_stranger_N = (cluster_N != cluster_N[survivor_N]) | (cluster_N < 0)
    by_bin = np.digitize(similarity_P, _BINS) - 1
    return {
        "recall": found_P[must_P].mean(),
        "precision": (is_alike_N & ~is_stranger_N)[is_near_N].mean(),
        "joined_with_strangers": int((is_stranger_N & is_near_N).sum()),
        "planted_clusters": int(cluster_N.max() + 1),
        "found_clusters": len(np.unique(survivor_N[survivor_N != np.arange(len(survivor_N))])),
        "pairs": [
            {"from": _BINS[place], "pairs": int((by_bin == place).sum()), "found": found_P[by_bin == place].mean()}
            for place in np.unique(by_bin)
        ],
    }


def _numbers(urls: Sequence[str]) -> np.ndarray:
    return np.array([int(re.search(r"\d+$", one)[0]) for one in urls], dtype=np.int64)


def _time_signatures() -> float:
    writer = WriteDocuments(1000)
    texts = [writer._text(number) for number in range(1000)]
    dedup.page_signatures(texts)
    started = time.perf_counter()
    dedup.page_signatures(texts)
    return len(texts) / (time.perf_counter() - started)


class _PeakMemory:
    """Samples the resident memory of this process and all below it; a context manager."""

    def __init__(self):
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "_PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.2):
            self.peak = max(self.peak, _resident_bytes(os.getpid()))


def _resident_bytes(root: int) -> int:
    """The resident memory of a process and all below it."""
    parents, resident = {}, {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            resident[int(entry.name)] = int((entry / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):  # it has ended
            continue
    family = {root}
    while new := {child for child, parent in parents.items() if parent in family} - family:
        family |= new
    return sum(resident.get(process, 0) for process in family)


def _print(figures: Mapping[str, Any]) -> None:
    gigabytes = {name: peak / 2**30 for name, peak in figures["peak_bytes"].items()}
    print(
        f"{figures['documents']:,} documents, {figures['workers']} processes ({figures['engine']}): "
        f"{figures['seconds']:.1f} s, {figures['pages_per_second']:,.0f} pages/s; before them, signatures at "
        f"{figures['signatures_per_second']:,.0f} pages/s a core\n"
        f"peak memory of all processes: {gigabytes['removing']:.2f} GB, "
        f"{gigabytes['writing']:.2f} GB while the documents were written\n"
        f"dropped: {figures['dropped']}; clusters: {figures['planted_clusters']:,} planted, "
        f"{figures['found_clusters']:,} found; near pages joined with a strange page: "
        f"{figures['joined_with_strangers']}\n"
        f"{'similarity from':<18}{'pairs':>10}{'found':>10}"
    )
    for row in figures["pairs"]:
        print(f"{row['from']:<18.2f}{row['pairs']:>10,}{row['found']:>10.4f}")


if __name__ == "__main__":
    app.run(main)
