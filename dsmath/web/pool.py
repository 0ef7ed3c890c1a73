"""Processes of this machine that live over all steps of a run: they start once and import once.

They are forked from a server that has imported what most of them need, never from the driver with its threads. They end
with it; where it is killed, when their task is done.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import pickle
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from dsmath.runs.errors import InputError

_PRELOADED = ["dsmath.web.pool", "dsmath.web.extraction", "dsmath.web.corpus", "dsmath.web.library_docs"]


class Pool:
    """So many processes, which start with the first task.

    Args:
      workers: processes.
    """

    def __init__(self, workers: int):
        self._workers = workers
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        multiprocessing.forkserver.ensure_running()  # it imports while the driver goes on

    def run(self, make: Callable[[], Callable[[Any], Any]], tasks: Sequence[Any]) -> Iterator[Any]:
        """Does the tasks; yields what they return, as they end.

        Args:
          make: called once in each process; what it returns is called with task after task. Both can be pickled.
        Raises:
          InputError: a process was killed.
          RuntimeError: `make` or a task raised; the message is the traceback.
        """
        try:
            self._start()
            yield from self._hand_out(pickle.dumps(make), tasks)
        except BaseException:  # the others are in the middle of tasks of which nobody has any use
            self.close()
            raise

    def close(self) -> None:
        """Ends the processes in the middle of what they do; they remove the files that they have begun."""
        for process in self._processes.values():
            process.terminate()
        for connection, process in self._processes.items():
            process.join()
            connection.close()
        self._processes = {}

    def _start(self) -> None:
        while len(self._processes) < self._workers:
            here, there = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(there,), daemon=True)
            with _hidden_main():
                process.start()
            there.close()
            self._processes[here] = process

    def _hand_out(self, make: bytes, tasks: Sequence[Any]) -> Iterator[Any]:
        left, idle, busy = iter(tasks), list(self._processes), 0
        while True:
            for connection, task in zip(idle, left, strict=False):
                connection.send((make, task))
                busy += 1
            if not busy:
                return
            idle = wait(self._processes)
            busy -= len(idle)
            for connection in idle:
                yield _receive(connection)


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """A process that starts meanwhile does not import the program of the driver, of which it needs nothing."""
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _receive(connection: Connection) -> Any:
    try:
        is_done, answer = connection.recv()
    except (EOFError, OSError) as error:
        raise InputError(
            "a worker process was killed, perhaps for want of memory: lower config.workers or config.pages_per_task "
            "and run the same line again"
        ) from error
    if not is_done:
        raise RuntimeError(f"a worker process raised:\n{answer}")
    return answer


def _serve(connection: Connection) -> None:
    """Does tasks until the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver, which gets it too, ends its processes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    made, do = b"", None
    with contextlib.suppress(EOFError, OSError):  # the driver was killed
        while True:
            make, task = connection.recv()
            try:
                if make != made:
                    made, do = make, None  # the former one's memory goes first
                    do = pickle.loads(make)()
                answer = (True, do(task))
            except Exception:
                answer = (False, traceback.format_exc())
            connection.send(answer)
