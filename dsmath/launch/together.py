"""Processes that make one run: started together, watched, started again together when one of them is lost.

The same for processes of this machine and for those of other hosts, whose commands begin with ssh.
"""

import contextlib
import dataclasses
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from dsmath.runs import commands
from dsmath.runs.errors import InputError, Paused, Preempted

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 300.0  # that a process has to save after SIGTERM; another signal cuts it short
_LAST_SECONDS = 10.0  # that the others have to end by themselves when one has failed: they hear of it
_BAD_INPUT, _WAITS = 2, 3  # statuses that another attempt would give again


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the processes.

    Attributes:
      name: for messages, such as "process 1" or "process 1 on host-b".
      command: its words.
      log: where its output goes, after what is there.
      end: the words of a command that asks it to save and end; none: SIGTERM asks it.
    """

    name: str
    command: Sequence[str]
    log: pathlib.Path
    end: Sequence[str] = ()


def run_together(
    make_members: Callable[[], Sequence[Member]],
    *,
    restarts: int,
    is_finished: Callable[[], bool],
    cwd: pathlib.Path | None = None,
) -> None:
    """Runs the processes until the run is finished; what process 0 prints is printed here too.

    Args:
      make_members: gives the processes of one attempt: a new one needs a new port.
      restarts: attempts after the first one.
      is_finished: whether the run's result is there.
      cwd: the folder they run in.
    Raises:
      InputError: bad input, or more failures than restarts; the message names the log.
      Paused: the run waits for people.
      Preempted: this program was asked to end; the processes have saved.
    """
    with _asked_to_end() as asked:
        for attempt in range(restarts + 1):
            members = make_members()
            lost = _attempt(members, asked, cwd)
            if asked and not is_finished():
                raise Preempted("stopped; the same line resumes it")
            if lost is None and is_finished():
                return
            name, status, log = lost or (members[0].name, 0, members[0].log)
            if status == _WAITS:
                raise Paused(f"{name} waits for people; {log} says for what")
            if status == _BAD_INPUT:
                raise InputError(f"{name} was refused: {_last_line(log)}")
            what = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            if attempt < restarts:
                _say(f"{name} {what} ({log}); restart {attempt + 1} of {restarts}")
        raise InputError(f"{name} {what} and {restarts} restarts are used up; mend what {log} says, then run it again")


def _attempt(
    members: Sequence[Member], asked: list[int], cwd: pathlib.Path | None
) -> tuple[str, int, pathlib.Path] | None:
    """Runs all until all have ended, or ends them all after the first that fails: its name, status and log."""
    lost: tuple[str, int, pathlib.Path] | None = None
    with contextlib.ExitStack() as stack:
        running: list[subprocess.Popen] = []
        for member in members:
            member.log.parent.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context(member.log.open("ab"))
            if member is members[0]:
                stack.enter_context(_follow(member.log, log.tell()))
            running.append(
                commands.start(
                    list(member.command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    process_group=0,  # Ctrl-C must not reach it: it saves when it is asked to end
                )
            )
        deadline = None
        while any(process.poll() is None for process in running):
            failed = next((index for index, process in enumerate(running) if process.poll()), None)
            if asked and deadline is None:
                _ask_to_end(members, running)
                deadline = time.monotonic() + _GRACE_SECONDS
            elif failed is not None and deadline is None:
                lost = (members[failed].name, running[failed].returncode, members[failed].log)
                deadline = time.monotonic() + (_LAST_SECONDS if lost[1] in (_BAD_INPUT, _WAITS) else 0.0)
            if deadline is not None and (time.monotonic() > deadline or len(asked) > 1):
                for process in running:
                    if process.poll() is None:
                        process.kill()
            time.sleep(_POLL_SECONDS)
        if lost is None:
            ended = zip(members, running, strict=True)
            lost = next(((of.name, process.returncode, of.log) for of, process in ended if process.returncode), None)
    return lost


@contextlib.contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """Collects the signals that ask this program to end, which then go to the processes."""
    asked: list[int] = []
    before = {
        name: signal.signal(name, lambda number, _: asked.append(number)) for name in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield asked
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextlib.contextmanager
def _follow(log: pathlib.Path, start: int) -> Iterator[None]:
    """Prints what is written to a log, from a place on."""
    follower = commands.start(["tail", "--bytes", f"+{start + 1}", "--follow", "--sleep-interval=0.2", str(log)])
    try:
        yield
    finally:
        time.sleep(2 * _POLL_SECONDS)  # for its last lines
        follower.terminate()
        follower.wait()


def _ask_to_end(members: Sequence[Member], running: Sequence[subprocess.Popen]) -> None:
    for member, process in zip(members, running, strict=True):
        if process.poll() is None:
            if member.end:
                commands.start(list(member.end), stdin=subprocess.DEVNULL)
            else:
                process.terminate()


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"see {log}"


def _say(line: str) -> None:
    print(f"launch: {line}", file=sys.stderr, flush=True)
