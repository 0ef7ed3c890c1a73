"""Programs, solutions of several blocks, and machines that have no isolation."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from dsmath.runs.errors import InputError
from dsmath.sandbox import Pool, run_python

_MEMORY = 256 << 20


def test_a_program_prints_and_has_a_value(run):
    result = run("import math\nprint(math.comb(5, 2))\nmath.sqrt(16)")
    assert (result.kind, result.stdout, result.value, result.error) == ("done", "10\n", "4.0", None)
    assert 0 < result.seconds < 30
    assert run("x = 1").value is None
    assert run("").kind == "done"


def test_numpy_sympy_and_scipy_compute(run):
    assert run("from sympy import *\nx = symbols('x')\nsolve(x**2 - 2)").value == "[-sqrt(2), sqrt(2)]"
    assert run("import numpy as np\nnp.linalg.solve([[2.0, 0], [0, 4]], [2, 4]).tolist()").value == "[1.0, 1.0]"
    assert run("from scipy import optimize\nround(optimize.brentq(lambda x: x**2 - 2, 0, 2), 3)").value == "1.414"


def test_a_program_uses_files_classes_and_chinese(run):
    code = """
import dataclasses, os, pickle
@dataclasses.dataclass
class 数:
    值: int
with open("文件", "wb") as file:
    pickle.dump(数(3), file)
print(pickle.load(open("文件", "rb")))
print("nowhere", file=open(os.devnull, "w"))
"""
    assert run(code).stdout == "数(值=3)\n"


def test_a_program_runs_an_event_loop(run):
    code = """
import asyncio
async def double(n):
    await asyncio.sleep(0.01 * n)
    return 2 * n
async def main():
    return await asyncio.gather(*map(double, (3, 1, 2))), await asyncio.wait_for(double(1), 5)
asyncio.run(main())
"""
    assert run(code).value == "([6, 2, 4], 2)"
    assert run(f"{code}\nasyncio.run(asyncio.to_thread(print))").error.startswith(
        "RuntimeError: can't start new thread"
    )


def test_the_same_program_gives_the_same_output(run):
    code = "import random, numpy as np\n(random.random(), np.random.rand(), hash('x'), {'a', 'b', 'c'})"
    assert run(code).value == run(code).value


def test_a_process_that_cannot_be_confined_is_told_and_the_next_one_runs(pool, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("dsmath.sandbox.jail._SCRATCH", "/nowhere")
        with pytest.raises(InputError, match=r"cannot confine a process .*No such file"):
            pool.open(_MEMORY)
    assert run("1").value == "1"


def test_blocks_of_a_solution_share_a_state_and_solutions_do_not(pool):
    with pool.open(_MEMORY) as one, pool.open(_MEMORY) as other:
        one.run("x = 1\nopen('note', 'w').write('one')", 30.0)
        other.run("x = 2", 30.0)
        assert one.run("x, open('note').read()", 30.0).value == "(1, 'one')"
        assert other.run("x", 30.0).value == "2"
        assert other.run("open('note')", 30.0).error.startswith("FileNotFoundError")
        one.run("x = 3\n1 / 0", 30.0)
        assert one.run("x", 30.0).value == "3"  # an exception ends the block, not the solution
        one.run("import os; os._exit(0)", 30.0)
        assert not one.alive
        with pytest.raises(ValueError, match="open another"):
            one.run("x", 30.0)


def test_output_and_alarms_of_a_block_do_not_reach_into_the_next(pool):
    with pool.open(_MEMORY) as session:
        assert session.run("print('first')", 30.0).stdout == "first\n"
        session.run(
            "import os, signal, sys; signal.setitimer(signal.ITIMER_REAL, 0.1); os.close(1); sys.stdout = None", 30.0
        )
        assert session.run("import time; time.sleep(0.2); print('second')", 30.0).stdout == "second\n"


def test_threads_share_a_pool(pool):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: pool.run(f"print({n})", 30.0, _MEMORY).stdout, range(32)))
    assert results == [f"{n}\n" for n in range(32)]


def test_a_solution_outlives_the_thread_that_opened_it(pool):
    opened = []
    thread = threading.Thread(target=lambda: opened.append(pool.open(_MEMORY)))
    thread.start()
    thread.join()
    with opened[0] as session:
        assert session.run("1 + 1", 30.0).value == "2"


def test_a_pool_whose_template_was_killed_starts_another(pool):
    mine = Pool(1)
    mine.run("1", 30.0, _MEMORY)
    mine._jails[0]._process.kill()
    assert mine.run("6 * 7", 30.0, _MEMORY).value == "42"
    mine.close()


def test_all_ends_with_the_host(pool):
    code = """
import os
from dsmath.sandbox import Pool
pool = Pool(1)
pool.open(1 << 28)
print(pool._jails[0]._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    command = pathlib.Path("/proc", done.stdout.strip(), "cmdline")
    deadline = time.monotonic() + 30
    while command.exists() and command.read_bytes():  # a process that waits to be reaped has no command
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_bubblewrap_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"bubblewrap is not installed.*apt-get install bubblewrap"):
        Pool(1)


def test_where_bubblewrap_may_not_isolate_it_says_why(monkeypatch, tmp_path):
    refused = tmp_path / "bwrap"
    refused.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refused.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"did not start \(bwrap: No permissions.*user namespaces"):
        Pool(1)


def test_trusted_code_runs_without_isolation_where_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "file").write_text("seen")
    result = run_python(
        f"print(open({str(tmp_path / 'file')!r}).read()); import sympy; sympy.sqrt(4)", 30.0, _MEMORY, "none"
    )
    assert (result.stdout, result.value) == ("seen\n", "2")
    assert run_python("import socket; socket.socket()", 30.0, _MEMORY, "none").error.startswith("PermissionError")
    assert run_python("while True: pass", 0.3, _MEMORY, "none").kind == "timeout"
    folder = run_python("open('left', 'w').close(); import os; os.getcwd()", 30.0, _MEMORY, "none").value
    assert not os.path.exists(folder.strip("'"))
    with pytest.raises(InputError, match="isolation: 'chroot' is none of"):
        Pool(1, "chroot")
