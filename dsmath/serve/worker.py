"""The engine in a thread of its own: it decodes the requests of all clients together, block after block."""

import asyncio
import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Sequence

from dsmath.rollout.engine import Engine
from dsmath.rollout.programs import Scored
from dsmath.rollout.requests import Completion, Request
from dsmath.runs.errors import InputError
from dsmath.serve.schema import ApiError

_News = tuple[int, Completion] | tuple[int, Scored]  # with the place of what was asked


class _Mailbox:
    """What the thread has for one coroutine: of each sample the newest state, so that a slow reader costs nothing."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._news: dict[Hashable, _News | Exception] = {}
        self._arrived = asyncio.Event()

    def post(self, key: Hashable, news: _News | Exception) -> None:
        """From the thread; it takes the place of what has this key and was not read."""
        self._loop.call_soon_threadsafe(self._put, key, news)

    def _put(self, key: Hashable, news: _News | Exception) -> None:
        self._news[key] = news
        self._arrived.set()

    async def read(self) -> list[_News]:
        """Waits for news.

        Raises:
          Exception: that the thread had.
        """
        await self._arrived.wait()
        self._arrived.clear()
        news, self._news = list(self._news.values()), {}
        for found in news:
            if isinstance(found, Exception):
                raise found
        return news


@dataclasses.dataclass(eq=False)
class _Open:
    """A request under way: its place among those that were asked together; `left` samples have not ended."""

    place: int
    mailbox: _Mailbox
    left: int
    streamed: bool

    def post(self, completion: Completion) -> None:
        self.mailbox.post((self.place, completion.sample), (self.place, completion))


class Worker:
    """Owns a loaded engine; the methods are for coroutines, and one that is cancelled takes its request back.

    Args:
      engine: after `Engine.load`.
      on_failure: called from the thread when the engine has failed; `failure` says how.
    """

    def __init__(self, engine: Engine, on_failure: Callable[[], None] = lambda: None):
        self.failure: Exception | None = None
        self._engine, self._on_failure = engine, on_failure
        self._ids = itertools.count()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._lock, self._closed = threading.Lock(), False  # closed: the inbox is not read any more
        # The thread's own:
        self._stopped = False
        self._open: dict[int, _Open] = {}
        self._texts: list[tuple[Sequence[int], int, _Mailbox]] = []

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the block that it is in; whatever is under way fails."""
        self._inbox.put(self._stop)
        self._thread.join()

    @property
    def open_requests(self) -> int:
        """Requests and texts that the engine has not done with."""
        return len(self._open) + len(self._texts)

    async def stream(
        self, requests: Sequence[Request], *, every_block: bool = True
    ) -> AsyncIterator[tuple[int, Completion]]:
        """The samples of requests as they grow, each at last with its `finish_reason`, and its request's place.

        Args:
          requests: checked; their ids are replaced.
          every_block: else a sample is given when it has ended.
        """
        mailbox, left = _Mailbox(), sum(request.num_samples for request in requests)
        requests = [dataclasses.replace(request, id=next(self._ids) % 2**32) for request in requests]
        self._send(lambda: self._add(requests, mailbox, every_block))
        try:
            while left:
                for place, completion in await mailbox.read():
                    left -= completion.finish_reason is not None
                    yield place, completion
        finally:
            if left:
                self._inbox.put(lambda: self._cancel(requests))

    async def complete(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The samples of each request, by their numbers."""
        found = [[None] * request.num_samples for request in requests]
        async with contextlib.aclosing(self.stream(requests, every_block=False)) as news:
            async for place, completion in news:
                found[place][completion.sample] = completion
        return found

    async def score(self, texts: Sequence[Sequence[int]]) -> list[Scored]:
        """See `Engine.score`; what several clients ask is run together."""
        mailbox, found = _Mailbox(), {}
        entries = [(tokens, place, mailbox) for place, tokens in enumerate(texts)]
        self._send(lambda: self._texts.extend(entries))
        try:
            while len(found) < len(texts):
                found |= dict(await mailbox.read())
        finally:
            if len(found) < len(texts):
                self._inbox.put(lambda: self._forget(mailbox))
        return [found[place] for place in range(len(texts))]

    def _send(self, order: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise self._gone()
            self._inbox.put(order)

    # ------------------------------------------------------------------------------------------- in the thread
    def _run(self) -> None:
        try:
            while not self._stopped:
                self._listen()
                if self._texts:
                    self._score()
                if self._engine.busy:
                    self._step()
        except Exception as error:
            self.failure = error
        with self._lock:
            self._closed = True
        while not self._inbox.empty():  # what came meanwhile is to be answered too
            self._inbox.get()()
        mailboxes = {found.mailbox for found in self._open.values()} | {mailbox for *_, mailbox in self._texts}
        for mailbox in mailboxes:
            mailbox.post((), self._gone())
        self._open, self._texts = {}, []
        self._engine.release()
        if self.failure:
            self._on_failure()

    def _listen(self) -> None:
        """Does what it was sent; waits where there is nothing else to do."""
        while not self._inbox.empty() or not (self._stopped or self._texts or self._engine.busy):
            self._inbox.get()()

    def _step(self) -> None:
        for completion in self._engine.step():
            found = self._open[completion.request_id]
            found.post(completion)
            found.left -= 1
            if not found.left:
                del self._open[completion.request_id]
        streamed = [request_id for request_id, found in self._open.items() if found.streamed]
        for completion in self._engine.running(*streamed) if streamed else ():
            self._open[completion.request_id].post(completion)

    def _score(self) -> None:
        """A part of the texts that wait, so that samples do not."""
        count = max(1, self._engine.limits.prefill_tokens // max(len(tokens) for tokens, *_ in self._texts))
        part, self._texts = self._texts[:count], self._texts[count:]
        for (_, place, mailbox), scored in zip(part, self._engine.score([text for text, *_ in part]), strict=True):
            mailbox.post(place, (place, scored))

    def _add(self, requests: Sequence[Request], mailbox: _Mailbox, every_block: bool) -> None:
        for place, request in enumerate(requests):
            try:
                self._engine.add(request)
            except InputError as error:
                mailbox.post((), error)
            else:
                self._open[request.id] = _Open(place, mailbox, request.num_samples, every_block)

    def _cancel(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._open.pop(request.id, None)
            self._engine.cancel(request.id)

    def _forget(self, mailbox: _Mailbox) -> None:
        self._texts = [entry for entry in self._texts if entry[2] is not mailbox]

    def _stop(self) -> None:
        self._stopped = True

    def _gone(self) -> ApiError:
        if self.failure:
            return ApiError(f"the engine has failed: {self.failure}", status=500)
        return ApiError("the server is shutting down", status=503)
