"""Mining beside datatrove and beside bare processes: WARC files in, a deduplicated and decontaminated corpus out.

    python -m benchmarks.mining --input='crawl/*.warc.gz' --labels=labels.tsv --formulas=math-html \\
        [--benchmarks=FOLDER] [--contestants=shipped,resiliparse,matched,bare,memory] [--json=FILE]

Ours is `experiments.mine` with a fixed classifier: one round, no training. What the peers do stands at the top of
mining_peer.py. All work in as many processes, from the same files, with one classifier, trained here on half of the
labelled hosts before the clock starts: "shipped" and "resiliparse" hold it as fastText trained it, ours and "matched"
folded to dimension 1. "bare" is mining_bare.py: our own functions without an engine. "memory" mines the input once and
eight times over, addresses and texts changed so that nothing is a duplicate; the figure is what the processes hold of
their own, without the page cache.

Beside each rate stand two figures of quality: F1 of the kept pages on the hosts that the classifier has not seen, and
the share of the formulas of `--formulas` that the extractor keeps. Copies of a page count as one.

The clock of each contestant runs from its first file to its last, its imports aside, and with the tables of what is to
be removed made before. The start of the worker processes counts for ours and for datatrove; for "bare" it does not: a
fork would cost it next to nothing.
"""

import contextlib
import csv
import glob
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import fasttext
import numpy as np
import pyarrow.parquet as pq
from absl import app, flags

from benchmarks import mining_bare, timing
from configs import mine as configs
from dsmath.runs.workdir import read_json, write_json
from dsmath.web import classifier, dedup, mine, tokens, warc
from dsmath.web.benchmark_texts import read_benchmarks
from dsmath.web.decontaminate import Decontaminator
from dsmath.web.extract import html_to_text

_INPUT = flags.DEFINE_string("input", None, "glob of WARC files", required=True)
_LABELS = flags.DEFINE_string("labels", None, "table by tabs: url, host, is_math (1, 0, -1), dup_of", required=True)
_FORMULAS = flags.DEFINE_string("formulas", None, "folder with pages and the formulas that they hold", required=True)
_BENCHMARKS = flags.DEFINE_string("benchmarks", "", "texts to remove, as config.benchmarks of mining")
_CONTESTANTS = flags.DEFINE_list("contestants", "shipped,resiliparse,matched,bare,memory", "what to measure")
_WORKERS = flags.DEFINE_integer("workers", 2, "processes of each", lower_bound=1)
_REPETITIONS = flags.DEFINE_integer("repetitions", 1, "turns of each", lower_bound=1)
_DIM = flags.DEFINE_integer("dim", 256, "of the classifier, before it is folded", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")

_GOALS = {
    "shipped": ("mining_vs_datatrove", 20.0),
    "resiliparse": ("mining_vs_datatrove_resiliparse", 3.0),
    "matched": ("mining_vs_datatrove_matched", 1.15),
    "bare": ("mining_vs_multiprocessing", 0.87),
    "memory": ("mining_memory_flat", 0.9),
}
_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PEER = _ROOT / ".venv-peers" / "bin" / "python"
_MIN_SCORE, _MIN_WORDS, _THRESHOLD = 0.5, 20, 0.8
_MAX_PER_HOST = 100  # training pages
_COPIES = 8  # of the input, for memory
_POLL_SECONDS = 0.1


def main(argv: list[str]) -> None:
    del argv
    contestants = [name for name in _GOALS if name in _CONTESTANTS.value]
    peers = [name for name in contestants if name in ("shipped", "resiliparse", "matched")]
    if unknown := set(_CONTESTANTS.value) - set(_GOALS):
        _refuse(f"--contestants: {sorted(unknown)} are none of {', '.join(_GOALS)}")
    if peers and not _PEER.exists():
        _refuse(f"{_PEER.parents[1].name} is absent, the environment of the peers; make it once: make peers")
    machine = timing.describe_machine("fasttext", "resiliparse", "fastwarc")
    inputs = sorted(glob.glob(_INPUT.value))
    if not inputs:
        _refuse(f"--input: {_INPUT.value!r} matches no file")
    if len(inputs) < _WORKERS.value:  # a process without a file would cost no memory on one side alone
        _refuse(f"--workers: {_WORKERS.value} are more than the {len(inputs)} files")
    rows = _read_labels(_LABELS.value)
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(pathlib.Path(folder), inputs, rows)
        runs: dict[str, Callable[[], dict[str, Any]]] = {"dsmath": bench.ours}
        runs |= {name: lambda name=name: bench.peer(name) for name in peers}
        runs |= {"bare": bench.bare} if "bare" in contestants else {}
        turns = [{name: run() for name, run in runs.items()} for _ in range(_REPETITIONS.value)]
        last = turns[-1]
        quality = {name: {"f1": bench.f1(last[name]["urls"]), "formulas": last[name]["formulas_kept"]} for name in runs}
        memory = bench.memory() if "memory" in contestants else None
    rates = {name: timing.summarize_rates([turn[name]["seconds"] for turn in turns], bench.num_pages) for name in runs}
    for name in peers:
        machine["versions"] |= last[name].pop("versions")

    timing.print_rates(
        f"{bench.num_pages} pages in {len(inputs)} files, {_WORKERS.value} processes, {_REPETITIONS.value} turns",
        "pages/s",
        rates,
        machine,
    )
    for name in runs:
        figures = quality[name]
        kept = last[name].get("pages_kept", len(last[name]["urls"]))
        print(f"{name:<18}{kept:>10} kept  F1 {figures['f1']:.3f}  formulas kept {figures['formulas']:.3f}")
    ratios = {name: rates["dsmath"]["median"] / rates[name]["median"] for name in runs if name != "dsmath"}
    if memory:
        ratios["memory"] = memory[0] / memory[1]
        print(f"memory: {memory[0] / 2**20:,.0f} MiB on the input, {memory[1] / 2**20:,.0f} MiB on {_COPIES} times it")
    if _JSON.value:
        figures = {"pages_per_second": rates, "quality": quality, "memory": memory, "ratios": ratios}
        write_json(_JSON.value, {**figures, "goals": _GOALS, "machine": machine})
    missed = False
    for name, ratio in ratios.items():
        figure, goal = _GOALS[name]
        print(f"ratio {figure}: {ratio:.2f} (goal {goal:.2f})")
        missed |= ratio < goal
    sys.exit(int(missed))


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


class _Bench:
    """The common inputs, and each contestant's run of them: {"seconds", "urls" kept, "formulas_kept"}."""

    def __init__(self, folder: pathlib.Path, inputs: list[str], rows: list[dict[str, str]]):
        self._folder, self._inputs, self._rows = folder, inputs, rows
        self._number = 0
        self._linked = folder / "input"
        self._linked.mkdir()
        for path in map(pathlib.Path, inputs):
            (self._linked / path.name).symlink_to(path.resolve())
        self._train_hosts = _split_hosts(rows)
        pages = {page.url: page for path in inputs for page in warc.read_pages(path)}
        self.num_pages = len(pages)
        self._trained, self._folded = _train(folder, pages, rows, self._train_hosts)
        texts = read_benchmarks(_BENCHMARKS.value) if _BENCHMARKS.value else {}
        self._texts = folder / "benchmark_texts.json"
        self._tables = folder / "tables.npz"
        Decontaminator(texts).save(self._tables)
        by_name = {name: [getattr(text, "text", text) for text in found] for name, found in texts.items()}
        write_json(self._texts, by_name)

    def ours(self) -> dict[str, Any]:
        workdir = self._next("ours")
        self._mine(workdir, str(self._linked / "*"))
        urls = [url for file in sorted((workdir / "corpus").glob("*.parquet")) for url in _column(file, "url")]
        return {"seconds": read_json(workdir / "result.json")["seconds"], "urls": urls, **_our_formulas()}

    def peer(self, name: str) -> dict[str, Any]:
        job = {
            "configuration": name,
            "inputs": str(self._linked),
            "workers": _WORKERS.value,
            "model": str(self._folded if name == "matched" else self._trained),
            "min_score": _MIN_SCORE,
            "token_pattern": tokens.TOKEN.pattern,
            "word_pattern": dedup._WORD.pattern,
            "benchmark_texts": str(self._texts),
            "formulas": _FORMULAS.value,
            "folder": str(self._next(name)),
        }
        with open(self._folder / f"{name}.log", "w", encoding="utf-8") as log:
            done = subprocess.run(
                [_PEER, _ROOT / "benchmarks" / "mining_peer.py"],
                input=json.dumps(job) + "\n",
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # datatrove copies the model to its cache and finds it there by its name: each run gets its own.
                env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": job["folder"], "PYTHONPATH": str(_ROOT)},
            )
        if done.returncode:
            tail = pathlib.Path(log.name).read_text(encoding="utf-8").splitlines()[-20:]
            raise RuntimeError("\n".join([f"the peer {name} ended with status {done.returncode}:", *tail]))
        result = json.loads(done.stdout)
        return result | {"urls": pathlib.Path(result["kept"]).read_text(encoding="utf-8").splitlines()}

    def bare(self) -> dict[str, Any]:
        seconds, urls = mining_bare.run(
            self._inputs, self._next("bare"), model=self._folded, benchmarks=_BENCHMARKS.value, workers=_WORKERS.value,
            min_words=_MIN_WORDS, threshold=_THRESHOLD, min_score=_MIN_SCORE,
        )  # fmt: skip
        return {"seconds": seconds, "urls": urls, **_our_formulas()}

    def memory(self) -> tuple[int, int]:
        """The peak of a run on the input, and of one on eight changed copies."""
        peaks = []
        copies = self._folder / "copies"
        copies.mkdir()
        for number in range(_COPIES):
            for path in self._inputs:
                _write_copy(path, copies / f"{number}-{pathlib.Path(path).name}", number)
        for pattern in ("0-*", "*"):
            with _watch_memory() as peak:
                self._mine(self._next("memory"), str(copies / pattern))
            peaks.append(peak[0])
        return peaks[0], peaks[1]

    def f1(self, urls: list[str]) -> float:
        """Of the kept pages on unseen hosts; a page is kept where any of its copies is."""
        kept, files = set(urls), {path.name for path in self._linked.iterdir()}
        host = {row["url"]: row["host"] for row in self._rows}
        groups: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in self._rows:
            page = row["dup_of"] or row["url"]
            if row["warc"] in files and host.get(page) not in self._train_hosts and row["is_math"] != "-1":
                groups[page].append(row)
        pairs = [(any(row["url"] in kept for row in group), group[0]["is_math"] == "1") for group in groups.values()]
        both = sum(is_kept and is_math for is_kept, is_math in pairs)
        return 2 * both / max(1, sum(is_kept + is_math for is_kept, is_math in pairs))

    def _mine(self, workdir: pathlib.Path, pattern: str) -> None:
        fields = {
            "input": pattern,
            "workers": _WORKERS.value,
            "classifier_file": self._folded,
            "annotation": "none",
            "min_words": _MIN_WORDS,
            "near_duplicate_threshold": _THRESHOLD,
            "min_score": _MIN_SCORE,
            "benchmarks": _BENCHMARKS.value,
        }
        workdir.mkdir(exist_ok=True)
        shutil.copy(self._tables, workdir / mine.DECONTAMINATOR)
        config = f"--config={configs.__file__}:nano"
        overrides = [f"--config.{name}={value}" for name, value in fields.items()]
        command = [sys.executable, "-m", "experiments.mine", config, f"--workdir={workdir}", *overrides]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"experiments.mine ended with status {done.returncode}: {done.stderr[-2000:]}")

    def _next(self, name: str) -> pathlib.Path:
        self._number += 1
        path = self._folder / f"{self._number:02d}-{name}"
        path.mkdir()
        return path


def _read_labels(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _split_hosts(rows: list[dict[str, str]]) -> set[str]:
    """Every second host by its number of mathematical pages: the ones that the classifier is trained on."""
    math: dict[str, int] = defaultdict(int)
    for row in rows:
        math[row["host"]] += row["is_math"] == "1"
    return set(sorted(math, key=lambda host: (-math[host], host))[::2])


def _train(
    folder: pathlib.Path, pages: dict[str, warc.Page], rows: list[dict[str, str]], hosts: set[str]
) -> tuple[pathlib.Path, pathlib.Path]:
    """The classifier as trained and folded; a model of so few texts needs more steps than the paper's of 10^6."""
    lines, counts = [], defaultdict(int)
    for row in rows:
        label = {"1": classifier._MATH, "0": classifier._OTHER}.get(row["is_math"])
        key = (row["host"], label)
        if label and row["host"] in hosts and row["url"] in pages and not row["dup_of"] and counts[key] < _MAX_PER_HOST:
            counts[key] += 1
            page = pages[row["url"]]
            lines.append(f"{label} {tokens.line(html_to_text(page.html, page.charset))}")
    order = np.random.default_rng(0).permutation(len(lines))
    (folder / "train.txt").write_text("".join(lines[i] + "\n" for i in order), encoding="utf-8")
    with classifier._zeroed_allocations():
        model = fasttext.train_supervised(
            str(folder / "train.txt"), dim=_DIM.value, lr=0.5, wordNgrams=3, minCount=3, epoch=25, thread=1, verbose=0
        )
    trained, folded = folder / "trained.bin", folder / "folded.bin"
    model.save_model(str(trained))
    classifier.Classifier(classifier._fold(model)).save(folded)
    return trained, folded


def _our_formulas() -> dict[str, float]:
    folder, kept, total = pathlib.Path(_FORMULAS.value), 0, 0
    for part in ("small", "real"):
        expected = json.loads((folder / f"expect-{part}.json").read_text(encoding="utf-8"))
        for name, formulas in expected.items():
            text = " ".join(html_to_text((folder / part / name).read_bytes()).split())
            for formula in formulas["expect"] if part == "small" else formulas:
                kept += " ".join(formula.split()) in text
                total += 1
    return {"formulas_kept": kept / total}


def _column(path: pathlib.Path, name: str) -> list[Any]:
    return pq.read_table(path, columns=[name])[name].to_pylist()


def _write_copy(source: str, target: pathlib.Path, number: int) -> None:
    """The pages of a file under other hosts; each fifth word differs, so that no 5-gram is that of another copy."""
    with open(target, "wb") as file:
        for page in warc.read_pages(source):
            text = page.html.decode(page.charset or "utf-8", "replace")
            outside, *tagged = text.split(">")
            body = ">".join([outside, *(_change(part, number) for part in tagged)]).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
            url = page.url.replace("://", f"://copy{number}.", 1)
            fields = (
                f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n"
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(head) + len(body)}\r\n\r\n"
            )
            file.write(gzip.compress(fields.encode() + head + body + b"\r\n\r\n", 1, mtime=0))


def _change(part: str, number: int) -> str:
    """Marks each fifth word of the text before the next tag."""
    text, mark, tag = part.partition("<")
    words = text.split(" ")
    words[::5] = [f"{word}q{number}" if word.isalpha() else word for word in words[::5]]
    return " ".join(words) + mark + tag


@contextlib.contextmanager
def _watch_memory() -> Iterator[list[int]]:
    """The peak of what this process's children, and theirs, hold in memory of their own; bytes."""
    peak, is_done = [0], threading.Event()

    def watch() -> None:
        while not is_done.wait(_POLL_SECONDS):
            peak[0] = max(peak[0], sum(map(_own_memory, _descendants(os.getpid()))))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        is_done.set()
        thread.join()


def _descendants(root: int) -> list[int]:
    children = defaultdict(list)
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children[int((entry / "stat").read_text().rpartition(")")[2].split()[1])].append(int(entry.name))
    found = list(children[root])
    for process in found:
        found += children[process]
    return found


def _own_memory(process: int) -> int:
    """Anonymous and shared memory, shared pages in parts; files that are mapped belong to the page cache."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return 0


if __name__ == "__main__":
    app.run(main)
