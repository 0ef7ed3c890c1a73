"""The engine: missing files alone are made, errors come through, Daft gives what processes give."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from dsmath.runs.errors import InputError
from dsmath.web.engine import Engine
from dsmath.web.extraction import ExtractPages
from dsmath.web.pages import read_metadata
from dsmath.web.scoring import ScorePages


def _tasks(folder: pathlib.Path, count: int) -> list[dict[str, str]]:
    """WET files with two pages each."""
    tasks = []
    for number in range(count):
        records = b""
        for page in range(2):
            text = f"page {page} of file {number} says something about triangles and circles".encode()
            head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://example.org/{number}/{page}\r\n"
            records += f"{head}Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
            records += b"\r\n\r\n"
        source = folder / f"{number}.wet"
        source.write_bytes(records)
        output, signatures = folder / "out" / f"{number}.parquet", folder / "signatures" / f"{number}.npy"
        tasks.append({"input": str(source), "output": str(output), "signatures": str(signatures)})
    return tasks


def test_missing_files_alone_are_made(tmp_path, capsys):
    tasks = _tasks(tmp_path, 5)
    engine = Engine(workers=2)
    engine.run_missing("extract", ExtractPages, (3, [], ""), tasks[:2])
    before = {task["output"]: pathlib.Path(task["output"]).stat().st_mtime_ns for task in tasks[:2]}
    engine.run_missing("extract", ExtractPages, (3, [], ""), tasks)
    assert all(pathlib.Path(path).stat().st_mtime_ns == time for path, time in before.items())
    assert all(read_metadata(task["output"], "skipped") == {} for task in tasks)
    assert "extract: 5/5 file" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "count"), [("native", 1), ("native", 3), ("daft", 3)])
def test_what_a_person_must_mend_comes_out_of_a_worker_as_it_is(tmp_path, name, count):
    with pytest.raises(InputError, match=r"absent\.bin: no such classifier"):
        Engine(name).run_missing("score", ScorePages, (str(tmp_path / "absent.bin"), 1), _tasks(tmp_path, count))


def test_daft_makes_the_same_files(tmp_path):
    files = {}
    for name in ("native", "daft"):
        (tmp_path / name).mkdir()
        tasks = _tasks(tmp_path / name, 3)
        Engine(name).run_missing("extract", ExtractPages, (3, [], ""), tasks)
        files[name] = [pathlib.Path(task[role]).read_bytes() for task in tasks for role in ("output", "signatures")]
    assert files["native"] == files["daft"]


def test_processes_leave_the_driver_its_own_end(tmp_path):
    program = (
        "import json, sys\n"
        "from dsmath.web.engine import Engine\n"
        "from dsmath.web.extraction import ExtractPages\n"
        "Engine(workers=2).run_missing('extract', ExtractPages, (3, [], ''), json.loads(sys.argv[1]))\n"
        "sys.exit(3)\n"
    )
    tasks = _tasks(tmp_path, 3)
    assert subprocess.run([sys.executable, "-c", program, json.dumps(tasks)]).returncode == 3
    assert all(pathlib.Path(task["output"]).exists() for task in tasks)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here; it takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("count", [1, 3])
def test_full_disk_is_said_and_leaves_nothing_half_written(tmp_path, small_disk, count):
    (small_disk / "ballast").write_bytes(bytes(60_000))
    tasks = _tasks(tmp_path, count)
    for number, task in enumerate(tasks):
        task |= {"output": str(small_disk / f"{number}.parquet"), "signatures": str(small_disk / f"{number}.npy")}
    with pytest.raises(InputError, match=r"the disk is full .*make room and run the same line again"):
        Engine().run_missing("extract", ExtractPages, (3, [], ""), tasks)
    (small_disk / "ballast").unlink()
    assert {path.suffix for path in small_disk.iterdir()} <= {".npy"}
    Engine().run_missing("extract", ExtractPages, (3, [], ""), tasks)
    assert len(list(small_disk.glob("*.parquet"))) == count


@pytest.mark.parametrize(
    ("settings", "message"), [({"name": "dask"}, "native, daft, ray"), ({"workers": 0}, "at least 1")]
)
def test_unknown_engine_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Engine(**settings)


def test_ray_is_asked_for_where_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install '\.\[ray\]'"):
        Engine("ray").start()
