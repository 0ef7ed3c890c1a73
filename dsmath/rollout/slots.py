"""The host's books of the engine: which question stands in a row, which sample in a slot, and what waits."""

import collections
import dataclasses

from dsmath.rollout.requests import Calls, Request
from dsmath.rollout.tools import Call


@dataclasses.dataclass(eq=False)
class Ticket:
    """A request that is being served, and the numbers of its samples that have not begun."""

    request: Request
    waiting: collections.deque[int]


@dataclasses.dataclass(eq=False)
class Sample:
    """A sample in a slot."""

    request: Request
    number: int
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    mask: list[int] = dataclasses.field(default_factory=list)
    forced: collections.deque[int] = dataclasses.field(default_factory=collections.deque)  # what a tool said
    segment: int = 0  # first token after what the last tool said
    calls: int = 0
    call: Call | None = None  # while it waits for a tool
    state: Calls | None = None  # what its calls share, once it has made one

    @property
    def is_told(self) -> bool:
        """Whether the output of its last call, which ends it, is there."""
        tool = self.request.tool
        return bool(tool and tool.ends_with_output and self.calls >= tool.max_calls and not self.forced)

    def end(self) -> None:
        """Gives back what its calls hold."""
        if self.state:
            self.state.end()


@dataclasses.dataclass(eq=False)
class Row:
    """A place for a question; `slots` are its samples under way."""

    slots: list[Sample | None]
    ticket: Ticket | None = None

    @property
    def drained(self) -> bool:
        return not any(self.slots) and (self.ticket is None or not self.ticket.waiting)

    def clear(self) -> None:
        """Forgets the question and its samples."""
        for sample in filter(None, self.slots):
            sample.end()
        self.ticket, self.slots = None, [None] * len(self.slots)
