"""Python as a tool of a sample: a block of code is run when its fence closes, and its output goes into the text.

The form is that of tool-integrated solutions, `dsmath.data.turns`.
"""

import contextlib
import math
import threading
from collections.abc import Iterator

import ml_collections

from dsmath.data.turns import BLOCK, write_output
from dsmath.runs.errors import InputError
from dsmath.sandbox.pool import Pool
from dsmath.sandbox.session import Session

_AT_ONCE = 16  # calls that the engine has under way


class PythonTool:
    """What `dsmath.rollout.requests.Request.tool` takes.

    Args:
      pool: runs the blocks.
      seconds: of a block; the solution is killed then, and its next block begins with an empty state.
      memory: bytes of a solution.
      ends: characters of the output's beginning and of its end that are kept where it is longer than both.
      max_calls: blocks of a sample.
      max_output_tokens: of a block's output.
      ends_with_output: whether a sample is over with the output of its last block; else it may go on in words.
    Source: DeepSeekMath's released evaluation: 10 seconds, 50 characters.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        seconds: float,
        memory: int,
        ends: int,
        max_calls: int,
        max_output_tokens: int,
        ends_with_output: bool = False,
    ):
        self.max_calls, self.max_output_tokens = max_calls, max_output_tokens
        self.ends_with_output = ends_with_output
        # A call may wait for the turns of all others, and each may start a process first.
        self.timeout = (seconds + 1) * math.ceil(_AT_ONCE / pool.size)
        self._pool, self._seconds, self._memory, self._ends = pool, seconds, memory, ends

    def begin(self) -> "Blocks":
        """The blocks of one sample."""
        return Blocks(self._pool, self._seconds, self._memory, self._ends)

    def find(self, text: str) -> str | None:
        """The first block of Python in the text whose closing fence and its line end are there."""
        found = BLOCK.search(text)
        return found and found[1]

    def explain(self, error: Exception) -> str:
        """The output that stands for a failure of the tool itself."""
        return fence(f"{type(error).__name__}: {error}", self._ends)


def check_limits(config: ml_collections.ConfigDict) -> None:
    """Refuses limits that are not positive: all numbers of `config.tool` are limits.

    Raises:
      InputError: names the field.
    """
    for field, value in config.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            raise InputError(f"config.tool.{field}: {value} must be positive")


@contextlib.contextmanager
def open_tool(config: ml_collections.ConfigDict) -> Iterator[PythonTool]:
    """The tool of a config; its jails end with the context.

    Args:
      config: workers, isolation, seconds, memory_gib, ends, max_calls, max_output_tokens; see `configs.rl.tool`.
    Raises:
      InputError: a field that is not positive, or this machine cannot isolate; it says what to install.
    """
    check_limits(config)
    pool = Pool(config.workers, config.isolation)
    try:
        yield PythonTool(
            pool,
            seconds=config.seconds,
            memory=int(config.memory_gib * 2**30),
            ends=config.ends,
            max_calls=config.max_calls,
            max_output_tokens=config.max_output_tokens,
        )
    finally:
        pool.close()


class Blocks:
    """A sample's blocks, which share a state. The process starts with the first one."""

    def __init__(self, pool: Pool, seconds: float, memory: int, ends: int):
        self._pool, self._seconds, self._memory, self._ends = pool, seconds, memory, ends
        self._lock = threading.Lock()  # a call that was given up may still run when the next one comes
        self._session: Session | None = None
        self._ended = False

    def run(self, call: str) -> str:
        """Runs a block.

        Returns:
          what it printed, or the last line of its exception, within an output fence.
        """
        with self._lock:
            if self._ended:
                return ""
            if self._session is None or not self._session.alive:
                self._close()
                self._session = self._pool.open(self._memory)
            result = self._session.run(call, self._seconds)
            if self._ended:
                self._close()
        return fence(result.stdout if result.error is None else result.error, self._ends)

    def end(self) -> None:
        """The sample is over; does not wait for a block that still runs."""
        self._ended = True
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def fence(output: str, ends: int) -> str:
    """An output as it stands in a solution, its middle left out where it is longer than both ends."""
    output = output.strip()
    if len(output) > 2 * ends:
        output = f"{output[:ends]}...{output[-ends:]}"
    return write_output(output)
