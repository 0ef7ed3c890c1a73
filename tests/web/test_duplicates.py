"""Removing duplicates over files: what memory gives, cut anyhow, killed anywhere."""

import itertools
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsmath.runs.errors import InputError
from dsmath.web import dedup, duplicates
from dsmath.web.engine import Engine

WORDS = [f"word{number}" for number in range(500)]


class _Here:
    """An engine without processes, which may stop after some tasks as a kill would."""

    def __init__(self, most_tasks: float = float("inf")):
        self._left = most_tasks

    def run_missing(self, label, worker, settings, tasks, **_):
        del label
        for task in tasks:
            if not pathlib.Path(task["output"]).exists():
                if self._left < 1:
                    raise KeyboardInterrupt
                self._left -= 1
                worker(*settings).run(task)


def _write(folder: pathlib.Path, files: list[list[tuple[str, str]]]) -> list[str]:
    names = [f"file-{number}" for number in range(len(files))]
    for name, pages in zip(names, files, strict=True):
        urls, texts = [url for url, _ in pages], [text for _, text in pages]
        columns = {
            "url": pa.array(urls, pa.string()),
            "url_key": pa.array([dedup.url_key(url) for url in urls], pa.binary(16)),
            "text_key": pa.array([dedup.text_key(text) for text in texts], pa.binary(16)),
        }
        (folder / "pages").mkdir(parents=True, exist_ok=True)
        (folder / "signatures").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), folder / "pages" / f"{name}.parquet", row_group_size=5)
        np.save(folder / "signatures" / f"{name}.npy", dedup.page_signatures(texts))
    return names


def _outputs(folder: pathlib.Path) -> dict[str, bytes]:
    files = [*folder.glob("unique/*"), folder / "duplicates.parquet"]
    return {path.name: path.read_bytes() for path in files}


def _found(folder: pathlib.Path) -> list[tuple[str, str, str]]:
    return [tuple(row.values()) for row in pq.read_table(folder / "duplicates.parquet").to_pylist()]


def _rows(folder: pathlib.Path, name: str) -> list[int]:
    return pq.read_table(folder / "unique" / f"{name}.parquet")["row"].to_pylist()


def _expected(pages: list[tuple[str, str]], threshold: float) -> list[tuple[str, str, str]]:
    """The same by dictionaries."""
    kept, kinds = list(range(len(pages))), [""] * len(pages)

    def drop(kind, left, keys, rank):
        for page, key in zip(left, keys, strict=True):
            kept[page] = min((other for other, its in zip(left, keys, strict=True) if its == key), key=rank)
            kinds[page] = kind if kept[page] != page else ""
        return [page for page in left if kept[page] == page]

    def by_url(page):
        return len(pages[page][0]), pages[page][0]

    left = drop("url", range(len(pages)), [dedup.normalise_url(url) for url, _ in pages], lambda page: page)
    left = drop("exact", left, ["".join(pages[page][1].split()) for page in left], by_url)
    near = dedup.near_duplicates([pages[page][1] for page in left], threshold=threshold)
    drop("near", left, near.tolist(), by_url)
    survivors = [kept[kept[kept[page]]] for page in range(len(pages))]
    gone = [page for page in range(len(pages)) if kinds[page]]
    return [(pages[page][0], pages[survivors[page]][0], kinds[page]) for page in gone]


def _random_crawl(seed: int, num_files: int = 6) -> list[list[tuple[str, str]]]:
    rng = random.Random(seed)
    texts = ["", "…", "one", "设函数在区间上连续且可导则存在一点使得导数等于零这就是罗尔定理的内容与证明"]
    for _ in range(25):
        words = [rng.choice(WORDS) for _ in range(rng.randrange(5, 150))]
        for _ in range(rng.randrange(1, 5)):
            texts.append(" ".join(words))
            words = list(words)
            words[rng.randrange(len(words))] = rng.choice(WORDS)
    files = [[] for _ in range(num_files)]
    for _ in range(150):
        url = f"https://{rng.choice('abc')}.org/{'x' * rng.randrange(4)}{rng.randrange(60)}"
        spelling = rng.choice([url, url + "/", url.replace("https", "http"), url + "#part"])
        rng.choice(files[:-1]).append((spelling, rng.choice(texts)))  # the last file is empty
    return files


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pages_per_task", [1000, 40, 7])
def test_files_agree_with_dictionaries(tmp_path, seed, pages_per_task):
    files = _random_crawl(seed)
    names = _write(tmp_path, files)
    dropped = duplicates.remove(names, tmp_path, _Here(), threshold=0.8, pages_per_task=pages_per_task)
    expected = _expected(list(itertools.chain(*files)), 0.8)
    assert _found(tmp_path) == expected
    kinds = [kind for _, _, kind in expected]
    assert dropped == {kind: kinds.count(kind) for kind in ("url", "exact", "near")} and min(dropped.values()) > 3
    gone = {url for url, _, _ in expected}
    for name, pages in zip(names, files, strict=True):
        rows = _rows(tmp_path, name)
        assert rows == sorted(rows) and len(pages) - len(rows) <= sum(url in gone for url, _ in pages)
    stay = [files[number][row][0] for number, name in enumerate(names) for row in _rows(tmp_path, name)]
    assert {kept for _, kept, _ in expected} <= set(stay)
    assert len(stay) + sum(dropped.values()) == 150
    assert not (tmp_path / "dedup").exists()


def test_processes_write_what_one_does(tmp_path):
    files = _random_crawl(3)
    names = _write(tmp_path / "here", files)
    shutil.copytree(tmp_path / "here", tmp_path / "processes")
    duplicates.remove(names, tmp_path / "here", _Here(), threshold=0.8)
    engine = Engine(workers=2)
    engine.start()
    duplicates.remove(names, tmp_path / "processes", engine, threshold=0.8, pages_per_task=60)
    found = [pq.read_table(tmp_path / folder / "duplicates.parquet") for folder in ("here", "processes")]
    assert found[0] == found[1]
    assert all(_rows(tmp_path / "here", name) == _rows(tmp_path / "processes", name) for name in names)


def test_resumed_runs_end_with_the_same_bytes(tmp_path):
    names = _write(tmp_path / "unbroken", _random_crawl(4))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    duplicates.remove(names, tmp_path / "unbroken", _Here(), threshold=0.8, pages_per_task=30)
    rng = random.Random(0)
    for most_tasks in [1, 5, 9, 9, 9, 14, 14]:
        with pytest.raises(KeyboardInterrupt):
            duplicates.remove(names, tmp_path / "broken", _Here(most_tasks), threshold=0.8, pages_per_task=30)
        intermediate = [path for path in (tmp_path / "broken" / "dedup").rglob("*") if path.is_file()]
        for path in rng.sample(intermediate, len(intermediate) // 3):
            path.unlink()
    duplicates.remove(names, tmp_path / "broken", _Here(), threshold=0.8, pages_per_task=30)
    assert _outputs(tmp_path / "broken") == _outputs(tmp_path / "unbroken")


def test_killed_process_is_resumed(tmp_path):
    names = _write(tmp_path / "unbroken", _random_crawl(5))
    shutil.copytree(tmp_path / "unbroken", tmp_path / "broken")
    duplicates.remove(names, tmp_path / "unbroken", _Here(), threshold=0.8, pages_per_task=2)
    command = (
        "import pathlib\nfrom dsmath.web import duplicates\nfrom tests.web.test_duplicates import _Here\n"
        f"duplicates.remove({names!r}, pathlib.Path({str(tmp_path / 'broken')!r}), _Here(), "
        "threshold=0.8, pages_per_task=2)"
    )
    with subprocess.Popen([sys.executable, "-c", command], cwd=pathlib.Path(__file__).parents[2]) as process:
        while process.poll() is None and not any(tmp_path.glob("broken/dedup/bands/*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "broken" / "duplicates.parquet").exists()
    duplicates.remove(names, tmp_path / "broken", _Here(), threshold=0.8, pages_per_task=2)
    assert _outputs(tmp_path / "broken") == _outputs(tmp_path / "unbroken")


def test_tasks_of_another_size_begin_anew(tmp_path):
    names = _write(tmp_path, _random_crawl(6))
    with pytest.raises(KeyboardInterrupt):
        duplicates.remove(names, tmp_path, _Here(12), threshold=0.8, pages_per_task=30)
    duplicates.remove(names, tmp_path, _Here(), threshold=0.8, pages_per_task=40)
    assert _found(tmp_path) == _expected(list(itertools.chain(*_random_crawl(6))), 0.8)


def test_a_finished_run_is_not_done_again(tmp_path):
    names = _write(tmp_path, _random_crawl(7))
    dropped = duplicates.remove(names, tmp_path, _Here(), threshold=0.8)
    before = _outputs(tmp_path)
    (tmp_path / "dedup").mkdir()  # killed while it tidied up
    shutil.rmtree(tmp_path / "pages")
    assert duplicates.remove(names, tmp_path, _Here(0), threshold=0.8) == dropped
    assert _outputs(tmp_path) == before and not (tmp_path / "dedup").exists()


def test_order_of_the_crawl_decides_between_spellings_alone(tmp_path):
    pages = [(f"https://a.org/{number}", text) for number, (_, text) in enumerate(itertools.chain(*_random_crawl(8)))]
    results = []
    for order in (pages, random.Random(0).sample(pages, len(pages))):
        names = _write(tmp_path, [order[:70], order[70:]])
        duplicates.remove(names, tmp_path, _Here(), threshold=0.8, pages_per_task=50)
        results.append(sorted(_found(tmp_path)))
        (tmp_path / "duplicates.parquet").unlink()
    assert results[0] == results[1] and len(results[0]) > 20


def test_kept_page_is_the_survivor_of_the_whole_chain(tmp_path):
    near = " ".join(random.Random(2).choices(WORDS, k=400))
    texts = [near + " end", near + " end", near, "something else altogether for sure", "changed since"]
    urls = ["http://b.org/x", "http://b.org/long", "http://a.org/y", "http://c.org/z", "https://b.org/x/"]
    names = _write(tmp_path, [list(zip(urls, texts, strict=True))])
    duplicates.remove(names, tmp_path, _Here(), threshold=0.8, pages_per_task=1)
    assert _found(tmp_path) == [
        ("http://b.org/x", "http://a.org/y", "near"),
        ("http://b.org/long", "http://a.org/y", "exact"),
        ("https://b.org/x/", "http://a.org/y", "url"),
    ]
    assert _rows(tmp_path, "file-0") == [2, 3]


@pytest.mark.parametrize("files", [[[("https://a.org/", "one page")]], [[], []]])
def test_tiny_crawls(tmp_path, files):
    names = _write(tmp_path, files)
    assert duplicates.remove(names, tmp_path, _Here(), threshold=0.8) == {"url": 0, "exact": 0, "near": 0}
    assert [_rows(tmp_path, name) for name in names] == [list(range(len(pages))) for pages in files]


def test_a_page_ten_thousand_times(tmp_path):
    pages = [(f"https://a.org/{number:05}", f"not found, says the server {number // 5000}") for number in range(10_000)]
    names = _write(tmp_path, [pages[:5000], pages[5000:]])
    dropped = duplicates.remove(names, tmp_path, _Here(), threshold=0.8, pages_per_task=3000)
    assert dropped == {"url": 0, "exact": 9998, "near": 0}
    assert [_rows(tmp_path, name) for name in names] == [[0], [0]]


def test_thresholds_out_of_range_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.near_duplicate_threshold=0\.3 is outside \[0\.5, 1\]; give"):
        duplicates.remove([], tmp_path, _Here(), threshold=0.3)
