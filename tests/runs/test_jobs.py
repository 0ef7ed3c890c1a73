"""Stages run parents first, several at a time; a failure keeps back its descendants alone."""

import io
import pathlib
import sys
import threading
import time

import pytest

from dsmath.runs.errors import InputError
from dsmath.runs.jobs import LOG, run_stages
from dsmath.runs.sweep import Stage
from dsmath.runs.workdir import lock_workdir

FINISH = """import pathlib, sys, time
began = time.time()
{}
pathlib.Path(sys.argv[1], "result.json").write_text("{{}}")"""


def _stage(folder: pathlib.Path, body: str = "pass", parents: tuple[pathlib.Path, ...] = ()) -> Stage:
    command = [sys.executable, "-c", FINISH.format(body), str(folder)]
    return Stage(folder.name, folder, command, parents)


def _run(*stages: Stage, jobs: int = 2) -> tuple[dict[str, str], str]:
    """What did not finish, by name, and what was told."""
    told = io.StringIO()
    ended = run_stages({stage.workdir: stage for stage in stages}, jobs, told)
    return {folder.name: how for folder, how in ended.items()}, told.getvalue()


def test_a_stage_starts_when_its_parents_have_finished(tmp_path):
    parent, child = tmp_path / "parent", tmp_path / "child"
    needs = f"assert pathlib.Path({str(parent / 'result.json')!r}).exists()"
    ended, told = _run(_stage(parent, "time.sleep(0.3)"), _stage(child, needs, (parent,)))
    assert ended == {}
    assert told.splitlines()[-1].startswith("[2/2] finished child")


def test_a_failure_keeps_back_its_descendants_alone_and_the_next_run_makes_what_is_missing(tmp_path):
    bad, child, other = tmp_path / "bad", tmp_path / "child", tmp_path / "other"
    stages = [_stage(child, parents=(bad,)), _stage(other)]
    ended, told = _run(_stage(bad, "print('the disk is full'); sys.exit(2)"), *stages)
    assert ended == {"bad": "failed with status 2", "child": "not started"}
    assert "the disk is full" in told
    assert (other / "result.json").exists()
    assert not child.exists()

    made = (other / "result.json").stat().st_mtime_ns
    ended, told = _run(_stage(bad), *stages)
    assert ended == {}
    assert "starts   other" not in told
    assert (other / "result.json").stat().st_mtime_ns == made


def test_a_folder_that_is_removed_meanwhile_fails_its_stage_alone(tmp_path):
    gone, other = tmp_path / "gone", tmp_path / "other"
    body = "import shutil; shutil.rmtree(sys.argv[1])"
    ended, told = _run(_stage(gone, body), _stage(other))
    assert ended == {"gone": "failed with status 1"}
    assert (other / "result.json").exists()
    assert "gone failed with status 1" in told


@pytest.mark.parametrize(("status", "how"), [(0, "was paused"), (3, "waits for people")])
def test_a_stage_that_ends_without_a_result_and_without_an_error_has_not_failed(tmp_path, status, how):
    ended, _ = _run(_stage(tmp_path / "one", f"sys.exit({status})"))
    assert ended == {"one": how}


@pytest.mark.parametrize(("jobs", "patience", "together"), [(1, 0.5, False), (2, 60.0, True)])
def test_no_more_than_the_asked_number_run_at_a_time(tmp_path, jobs, patience, together):
    """Each waits for the other, for a time."""
    body = f"""folder = pathlib.Path(sys.argv[1])
(folder / "began").touch()
while len([*folder.parent.glob("*/began")]) < 2 and time.time() - began < {patience}: time.sleep(0.02)
print(began)
print(time.time())"""
    _run(*(_stage(tmp_path / name, body) for name in "ab"), jobs=jobs)
    spans = [[float(line) for line in (tmp_path / name / LOG).read_text().splitlines()[-2:]] for name in "ab"]
    (_, first_end), (second_begin, _) = sorted(spans)
    assert (second_begin < first_end) == together


def test_a_folder_where_another_process_works_is_waited_for(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    done: list[float] = []

    def work() -> None:
        with lock_workdir(folder):
            held.set()
            time.sleep(0.5)
            (folder / "result.json").write_text("{}")
            done.append(time.monotonic())

    held = threading.Event()
    other = threading.Thread(target=work)
    other.start()
    held.wait()
    ended, told = _run(_stage(folder, "sys.exit(1)"))  # it is not run: the other one has finished it
    assert ended == {} and done
    assert "starts" not in told
    other.join()


def test_a_number_of_jobs_below_one_is_named():
    with pytest.raises(InputError, match=r"config\.jobs: 0 must be at least 1"):
        run_stages({}, 0)
