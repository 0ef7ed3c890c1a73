"""The pool: its processes live over several runs, and nobody waits for those that are gone."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from dsmath.runs.errors import InputError
from dsmath.web.pool import Pool


def _make(added: int):
    return functools.partial(_add, added)


def _add(added: int, number: int) -> tuple[int, int]:
    return number + added, os.getpid()


def _make_killer():
    return functools.partial(os.kill, os.getpid())


def _make_sleeper():
    return time.sleep


@pytest.fixture
def pool():
    pool = Pool(2)
    yield pool
    pool.close()


def test_processes_live_over_several_runs(pool):
    processes = set()
    for added in (1, 10, 10):
        answers = list(pool.run(functools.partial(_make, added), range(50)))
        assert sorted(answer for answer, _ in answers) == list(range(added, 50 + added))
        processes |= {process for _, process in answers}
    assert len(processes) <= 2 and os.getpid() not in processes


def test_traceback_of_a_task_comes_out(pool):
    with pytest.raises(RuntimeError, match=r"(?s)_add.*TypeError"):
        list(pool.run(functools.partial(_make, 1), ["one"]))
    assert len(list(pool.run(functools.partial(_make, 1), range(3)))) == 3  # by new processes


def test_killed_process_is_said(pool):
    with pytest.raises(InputError, match="a worker process was killed"):
        list(pool.run(_make_killer, [signal.SIGKILL]))


def test_those_that_work_do_not_hold_up_an_error(pool):
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="TypeError"):
        list(pool.run(_make_sleeper, [60, "no number"]))
    assert time.monotonic() - started < 30


def test_processes_end_with_a_driver_that_is_killed():
    program = (
        "import functools, os\n"
        "from dsmath.web.pool import Pool\n"
        "from tests.web.test_pool import _make\n"
        "print(*{process for _, process in Pool(2).run(functools.partial(_make, 1), range(50))}, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    driver = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True)
    assert driver.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    for process in map(int, driver.stdout.split()):
        while pathlib.Path(f"/proc/{process}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
