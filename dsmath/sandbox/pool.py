"""Warm templates for many solutions at a time."""

import concurrent.futures
import functools
import itertools
import os
import threading

from dsmath.sandbox.jail import Jail
from dsmath.sandbox.session import Result, Session


class Pool:
    """Templates with NumPy and SymPy imported; each solution is a fork of one of them. Threads may share it.

    Args:
      size: templates, and blocks that run at once.
      isolation: "bubblewrap", or "none" for code that is trusted.
    Raises:
      InputError: this machine cannot isolate; it says what to install.
    """

    def __init__(self, size: int, isolation: str = "bubblewrap"):
        self._isolation = isolation
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(size)
        self._numbers = itertools.count()
        with concurrent.futures.ThreadPoolExecutor(size) as threads:  # each waits for its imports
            self._jails = list(threads.map(Jail, [isolation] * size))

    @property
    def size(self) -> int:
        """Blocks that run at once."""
        return len(self._jails)

    def open(self, memory: int) -> Session:
        """A new solution, whose blocks share a state; it is the caller's to close.

        Args:
          memory: bytes that it may take beyond Python, NumPy and SymPy.
        """
        with self._lock:
            place = next(self._numbers) % len(self._jails)
            jail = self._jails[place]
        try:
            return jail.open(memory, self._turns)
        except OSError:  # something has killed the template
            with self._lock:
                if self._jails[place] is jail:
                    jail.close()
                    self._jails[place] = Jail(self._isolation)
            return self._jails[place].open(memory, self._turns)

    def run(self, code: str, timeout: float, memory: int) -> Result:
        """Runs a program that shares nothing with any other.

        Args:
          code: Python.
          timeout: seconds of wall time.
          memory: bytes that it may take beyond Python, NumPy and SymPy.
        """
        with self.open(memory) as session:
            return session.run(code, timeout)

    def close(self) -> None:
        """Ends everything."""
        for jail in self._jails:
            jail.close()


def run_python(code: str, timeout: float, memory: int, isolation: str = "bubblewrap") -> Result:
    """Runs a program that a model wrote, in a jail: no network, no files but a scratch folder, no other process.

    Args:
      code: Python; it can import NumPy, SymPy, mpmath and SciPy.
      timeout: seconds of wall time.
      memory: bytes that it may take beyond Python, NumPy and SymPy.
      isolation: "bubblewrap", or "none" for code that is trusted.
    Raises:
      InputError: this machine cannot isolate; it says what to install.
    """
    return _shared_pool(isolation).run(code, timeout, memory)


@functools.cache
def _shared_pool(isolation: str) -> Pool:
    return Pool(len(os.sched_getaffinity(0)), isolation)
