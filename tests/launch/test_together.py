"""Processes that make one run: started together, started again together."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from dsmath.launch.together import Member, run_together
from dsmath.runs.errors import InputError, Paused, Preempted


@pytest.fixture
def run(tmp_path):
    """Runs members of Python text, which know {index} and {attempt}; -> the attempts that were made."""

    def go(text: str, count: int = 2, restarts: int = 2) -> int:
        attempts = []

        def members() -> list[Member]:
            attempts.append(len(attempts))
            return [
                Member(
                    f"process {index}",
                    [
                        sys.executable,
                        "-c",
                        f"index, attempt = {index}, {attempts[-1]}\nimport os, sys, time, pathlib\n"
                        f"done = pathlib.Path({str(tmp_path / 'result.json')!r})\n{textwrap.dedent(text)}",
                    ],
                    tmp_path / "logs" / f"process-{index}.log",
                )
                for index in range(count)
            ]

        run_together(members, restarts=restarts, is_finished=(tmp_path / "result.json").exists, cwd=tmp_path)
        return len(attempts)

    return go


def test_a_process_that_is_killed_ends_the_others_and_all_start_again(run, tmp_path, capfd):
    text = """
        print(f"attempt {attempt}", flush=True)
        if attempt == 0 and index == 1: os.kill(os.getpid(), 9)
        if attempt == 0: time.sleep(600)
        if index == 0: done.write_text("{}")
    """
    started = time.monotonic()
    assert run(text) == 2
    assert time.monotonic() - started < 60
    out, err = capfd.readouterr()
    assert out.split() == ["attempt", "0", "attempt", "1"]  # of process 0 alone
    assert "process 1 ended by SIGKILL" in err and "restart 1 of 2" in err
    assert (tmp_path / "logs" / "process-1.log").read_text() == "attempt 0\nattempt 1\n"


def test_a_run_that_ends_well_but_unfinished_was_preempted_and_starts_again(run):
    assert run("""if attempt: done.write_text("{}")""") == 2


def test_bad_input_is_not_tried_again(run, tmp_path):
    with pytest.raises(InputError, match=r"process \d was refused: config.length: is 0"):
        run("""print("error: config.length: is 0", flush=True); sys.exit(2)""")
    assert (tmp_path / "logs" / "process-0.log").read_text().count("error") == 1


def test_a_run_that_waits_for_people_says_so(run):
    with pytest.raises(Paused, match="waits for people"):
        run("sys.exit(3)")


def test_restarts_end(run):
    with pytest.raises(InputError, match=r"process 1 ended with status 7 and 2 restarts are used up; .*process-1.log"):
        run("sys.exit(7 * index)")


def test_a_request_to_end_goes_to_all_which_save(run, tmp_path):
    text = """
        import signal
        def save(*_):
            pathlib.Path(f"saved-{index}").touch()
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        pathlib.Path(f"ready-{index}").touch()
        time.sleep(600)
    """

    def ask() -> None:
        while not all((tmp_path / f"ready-{index}").exists() for index in range(2)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(Preempted):
        run(text)
    thread.join()
    assert all((tmp_path / f"saved-{index}").exists() for index in range(2))


def test_ctrl_c_lets_all_save(tmp_path):
    """A terminal sends it to the whole group of the launcher."""
    script = tmp_path / "launcher.py"
    script.write_text(
        textwrap.dedent(f"""
        import pathlib, sys
        from dsmath.launch.together import Member, run_together
        text = ("import pathlib, signal, sys, time\\n"
            "signal.signal(15, lambda *_: (pathlib.Path('saved').touch(), sys.exit()))\\n"
            "pathlib.Path('ready').touch()\\ntime.sleep(600)")
        member = Member("process 0", [sys.executable, "-c", text], pathlib.Path("log"))
        run_together(lambda: [member], restarts=0, is_finished=lambda: False, cwd=pathlib.Path({str(tmp_path)!r}))
        """)
    )
    launcher = subprocess.Popen([sys.executable, script], cwd=tmp_path, process_group=0, stderr=subprocess.DEVNULL)
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    os.killpg(launcher.pid, signal.SIGINT)
    launcher.wait(timeout=60)
    assert (tmp_path / "saved").exists()


def test_a_second_request_to_end_does_not_wait(run, tmp_path):
    text = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path("ready").touch()
        time.sleep(600)
    """

    def ask() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    thread = threading.Thread(target=ask)
    thread.start()
    started = time.monotonic()
    with pytest.raises(Preempted):
        run(text, count=1)
    thread.join()
    assert time.monotonic() - started < 60


def _await_death(parent: subprocess.Popen, pid: pathlib.Path) -> None:
    """Kills a process; its child, which has written its number, must end too."""
    while not pid.exists() or not pid.read_text():
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    status = pathlib.Path(f"/proc/{pid.read_text()}/status")
    deadline = time.monotonic() + 20
    while status.exists() and "Z (zombie)" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_processes_die_with_the_launcher(tmp_path):
    script = tmp_path / "launcher.py"
    script.write_text(
        textwrap.dedent(f"""
        import pathlib, sys
        from dsmath.launch.together import Member, run_together
        member = Member("process 0", [sys.executable, "-c", "import os, pathlib, time; "
            "pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"], pathlib.Path("log"))
        run_together(lambda: [member], restarts=0, is_finished=lambda: False, cwd=pathlib.Path({str(tmp_path)!r}))
        """)
    )
    launcher = subprocess.Popen([sys.executable, script], cwd=tmp_path)
    _await_death(launcher, tmp_path / "pid")


def test_a_process_of_ray_dies_with_its_worker(tmp_path):
    """Else it would hold the workdir when the next attempt begins."""
    code = "import pathlib, os, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
    call = f"ray_job.run_process([sys.executable, '-c', {code!r}], {{}}, {str(tmp_path)!r})"
    text = f"import sys; from dsmath.launch import ray_job; {call}"
    worker = subprocess.Popen([sys.executable, "-c", text])
    _await_death(worker, tmp_path / "pid")
