"""Calls of tools by samples: run in threads while others decode."""

import collections
import threading
import time

from dsmath.rollout.requests import Calls, Tool

_AT_ONCE = 16  # calls under way


class Call:
    """A call of a tool.

    Args:
      tool: whose it is.
      calls: those of the sample.
      text: the call, as `Tool.find` gave it.
      on_end: called in the thread that ran it.
    """

    def __init__(self, tool: Tool, calls: Calls, text: str, on_end: threading.Event):
        self._tool, self._calls, self._text, self._on_end = tool, calls, text, on_end
        self._started: float | None = None
        self._output: str | None = None
        self._error: Exception | None = None
        self._ended = False

    def start(self) -> None:
        """Runs it in a thread of its own, which does not keep the process alive."""
        self._started = time.monotonic()
        threading.Thread(target=self._run, name="tool", daemon=True).start()

    def _run(self) -> None:
        try:
            self._output = self._calls.run(self._text)
        except Exception as error:
            self._error = error
        self._ended = True
        self._on_end.set()

    @property
    def done(self) -> bool:
        """Whether there is an output, or too much time has passed since the start."""
        return self._ended or self.seconds_left() <= 0

    def seconds_left(self) -> float:
        """Until the tool's timeout; before the start, all of it."""
        waited = 0.0 if self._started is None else time.monotonic() - self._started
        return self._tool.timeout - waited

    def output(self) -> str:
        """The text that the sample goes on with; to be called when `done`."""
        if not self._ended:
            return self._tool.explain(TimeoutError(f"no output within {self._tool.timeout} s"))
        return self._output if self._error is None else self._tool.explain(self._error)


class Caller:
    """Starts calls, a few at a time. One that takes too long is given up: it no longer counts, whatever it does."""

    def __init__(self) -> None:
        self._waiting: collections.deque[Call] = collections.deque()
        self._running: list[Call] = []
        self._end = threading.Event()

    def call(self, tool: Tool, calls: Calls, text: str) -> Call:
        """Starts a call, or has it wait for one of those under way."""
        call = Call(tool, calls, text, self._end)
        self._waiting.append(call)
        self.poll()
        return call

    def poll(self) -> None:
        """Starts those that waited in the places of those that are done."""
        self._running = [call for call in self._running if not call.done]
        while self._waiting and len(self._running) < _AT_ONCE:
            self._running.append(self._waiting.popleft())
            self._running[-1].start()

    def wait(self) -> None:
        """Waits until a call has ended, or its time is over."""
        self._end.clear()
        self.poll()
        if self._running:
            self._end.wait(max(0.0, min(call.seconds_left() for call in self._running)))
        self.poll()
