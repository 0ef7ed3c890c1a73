"""The rollout engine: many questions, several samples each, decoded together on the training mesh.

The host keeps the books, the devices keep the keys and values. Between two blocks of decode steps the host reads the
tokens that were drawn, ends samples, puts others into their places and questions into drained rows.
"""

import collections
import dataclasses
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from dsmath.model import flash_decoding
from dsmath.model.transformer import Transformer
from dsmath.rollout import ends
from dsmath.rollout.blocks import Drawn, fitting, lay_out, make_block
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.programs import ROW_AXES, Programs, Scored
from dsmath.rollout.requests import Codec, Completion, Limits, Request, Tool, check
from dsmath.rollout.samples import Samples, empty_samples, put
from dsmath.rollout.slots import Row, Sample, Ticket
from dsmath.rollout.texts import HALF
from dsmath.rollout.tools import Caller
from dsmath.runs.errors import InputError

_IDLE = 4  # a block ends early when one slot in so many is free and samples wait for it


class Engine:
    """Samples many requests at a time.

    A sample depends on the root key, its request's id, its number within the request and the parameters alone: not on
    its slot or row, the order of the requests, the number of slots or the mesh.

    Either `generate` or `sample` does everything, or: `load`, then `add` and `step` at will, then `release`.

    Args:
      model: the decoder.
      mesh: the training mesh; rows are spread over all of its axes but tensor, heads over tensor.
      limits: how much is held at once.
      pad_id: token id that fills arrays.
      codec: for stop strings, tools and the completions' text.
    """

    def __init__(self, model: Transformer, mesh: Mesh, limits: Limits, *, pad_id: int, codec: Codec | None = None):
        self._shards = int(np.prod([mesh.shape[axis] for axis in ROW_AXES]))
        if any(bucket % mesh.shape["sequence"] for bucket in limits.prompt_buckets):
            raise InputError(
                f"prompt_buckets: {limits.prompt_buckets} are not all multiples of the mesh's {mesh.shape['sequence']} "
                "devices along sequence; change them or config.mesh"
            )
        self.limits = dataclasses.replace(limits, rows=-(-limits.rows // self._shards) * self._shards)
        self.reshard_seconds = 0.0  # of the last `load`
        self.programs = Programs(model, mesh, self.limits)
        self._config, self._mesh, self._pad_id, self._codec = model.config, mesh, pad_id, codec
        self._params = self._cache = self._key = None
        self._caller = Caller()
        self._queue: collections.deque[Ticket] = collections.deque()
        self._left: dict[int, int] = {}  # samples of each request that have not ended
        self._texts: weakref.WeakKeyDictionary[Sample, _Text] = weakref.WeakKeyDictionary()  # of those that are shown
        self._rows = [Row([None] * self.limits.width) for _ in range(self.limits.rows)]
        of_device = self.limits.rows // self._shards
        self._order = [place for first in range(of_device) for place in range(first, self.limits.rows, of_device)]

    def load(self, params: Any, key: Array) -> None:
        """Takes the parameters as they are now and the root random key; makes the cache where there is none.

        Args:
          params: the model's, sharded as in training.
          key: the root of all random streams.
        """
        began = time.perf_counter()
        with jax.set_mesh(self._mesh):
            self._params = jax.block_until_ready(self.programs.reshard(params))
            self.reshard_seconds = time.perf_counter() - began
            self._cache = self.programs.create() if self._cache is None else self._cache
        self._key = key

    def release(self) -> None:
        """Gives back the memory of the parameters and the cache; whatever was under way is lost."""
        self._params = self._cache = None
        self._queue.clear()
        self._left.clear()
        for row in self._rows:
            row.clear()

    def add(self, request: Request) -> None:
        """Queues a request.

        Raises:
          InputError: it cannot be served, or one of its id is under way.
        """
        check(request, self.limits, self._codec)
        if request.id in self._left:
            raise InputError(f"request {request.id}: another one with this id is under way")
        self._left[request.id] = len(request.numbers)
        self._queue.append(Ticket(request, collections.deque(request.numbers)))

    def cancel(self, request_id: int) -> None:
        """Forgets a request, at whatever point it is; an unknown id is none any more."""
        self._left.pop(request_id, None)
        self._queue = collections.deque(ticket for ticket in self._queue if ticket.request.id != request_id)
        for row in self._rows:
            if row.ticket and row.ticket.request.id == request_id:
                row.clear()

    @property
    def busy(self) -> bool:
        """Whether any request is queued or under way."""
        return bool(self._left)

    def running(self, *request_ids: int) -> list[Completion]:
        """The samples of requests under way as far as they are, for streaming; `finish_reason` is None."""
        wanted = frozenset(request_ids)
        return [
            self._complete(sample, None)
            for row in self._rows
            for sample in row.slots
            if sample and sample.request.id in wanted
        ]

    def step(self) -> list[Completion]:
        """One block of decode steps.

        Returns:
          the samples that ended in it. Where every sample under way waits for a tool, it waits for one of them.
        """
        self._hear_tools()
        self._assign()
        active = [
            (row, slot, sample)
            for row, slots in enumerate(row.slots for row in self._rows)
            for slot, sample in enumerate(slots)
            if sample and not sample.call
        ]
        if not active:
            if any(any(row.slots) for row in self._rows):
                self._caller.wait()
            return []
        return self._read(active, self._decode(active))

    def generate(self, params: Any, requests: Iterable[Request], key: Array) -> Iterator[Completion]:
        """Serves all requests and gives each sample when it ends.

        Args:
          params: the model's, sharded as in training.
          requests: in any order.
          key: root random key.
        """
        self.load(params, key)
        try:
            for request in requests:
                self.add(request)
            while self.busy:
                yield from self.step()
        finally:
            self.release()

    def sample(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        request_ids: Sequence[int],
        key: Array,
        *,
        decoding: Decoding,
        group_size: int,
        stop_ids: tuple[int, ...],
        tool: Tool | None = None,
    ) -> Samples:
        """Samples a group for every prompt.

        Args:
          params: the model's, sharded as in training.
          prompts: token ids of each prompt.
          request_ids: one integer a prompt; it names the request in the random stream.
          key: root random key.
          decoding: of all of them.
          group_size: samples of each prompt.
          stop_ids: end a sample.
          tool: what the samples may call.
        """
        samples = empty_samples(len(prompts), group_size, decoding.max_new_tokens, self._pad_id)
        places = {request_id: place for place, request_id in enumerate(request_ids)}
        requests = [
            Request(request_id, prompt, group_size, decoding, stop_ids, tool=tool)
            for request_id, prompt in zip(request_ids, prompts, strict=True)
        ]
        for completion in self.generate(params, requests, key):
            put(samples, places[completion.request_id], completion)
        return samples

    def score(self, texts: Sequence[Sequence[int]]) -> list[Scored]:
        """How likely given tokens are, each text's arrays one shorter than the text; after `load`.

        Raises:
          InputError: a text is empty or longer than the longest prompt.
        """
        self._check_lengths(texts)
        found: dict[int, Scored] = {}
        for places, tokens, lengths in self._batches(texts):
            with jax.set_mesh(self._mesh):
                scored = jax.device_get(self.programs.score(self._params, tokens, lengths))
            for row, place in enumerate(places):
                found[place] = Scored(*(array[row, : len(texts[place]) - 1] for array in scored))
        return [found[place] for place in range(len(texts))]

    def score_next(self, texts: Sequence[Sequence[int]], options: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """How likely each of a few tokens is to come next, by one pass over each text; after `load`.

        Args:
          texts: token ids.
          options: token ids that may follow each text.
        Returns:
          float32 [options] of each text, log-probabilities.
        Raises:
          InputError: a text is empty or longer than the longest prompt.
        """
        self._check_lengths(texts)
        found: dict[int, np.ndarray] = {}
        most = max(map(len, options), default=0)
        for places, tokens, lengths in self._batches(texts):
            asked = np.zeros((len(tokens), most), np.int32)
            for row, place in enumerate(places):
                asked[row, : len(options[place])] = options[place]
            with jax.set_mesh(self._mesh):
                asked = jax.device_put(asked, self.programs.rows)
                scores = jax.device_get(self.programs.score_next(self._params, tokens, lengths, asked))
            for row, place in enumerate(places):
                found[place] = scores[row, : len(options[place])]
        return [found[place] for place in range(len(texts))]

    def _check_lengths(self, texts: Sequence[Sequence[int]]) -> None:
        for text in texts:
            if not 0 < len(text) <= self.limits.prompt_buckets[-1]:
                raise InputError(
                    f"a text of {len(text)} tokens: 1 to {self.limits.prompt_buckets[-1]} can be scored by this engine"
                )

    def _hear_tools(self) -> None:
        self._caller.poll()
        for sample in (sample for row in self._rows for sample in row.slots):
            if sample and sample.call and sample.call.done:
                output = self._codec.encode(sample.call.output())[: sample.request.tool.max_output_tokens]
                sample.forced.extend(output)
                sample.segment = len(sample.tokens) + len(output)
                sample.call = None

    def _assign(self) -> None:
        """Fills free slots with samples that wait, and drained rows with questions."""
        begun = []
        for place in self._order:  # a row of each device in turn: few questions are spread over all
            row = self._rows[place]
            if row.drained:
                row.ticket = self._next_ticket()
                if row.ticket:
                    begun.append(place)
            if row.ticket:
                for slot, sample in enumerate(row.slots):
                    if sample is None and row.ticket.waiting:
                        row.slots[slot] = Sample(row.ticket.request, row.ticket.waiting.popleft())
        # A sample reads its prompt's last token itself: that gives the logits of its first one.
        prefixes = [self._rows[place].ticket.request.prompt[:-1] for place in begun]
        for places, tokens, lengths in self._batches(prefixes):
            rows = np.full(len(tokens), self.limits.rows, np.int32)
            rows[: len(places)] = [begun[place] for place in places]
            with jax.set_mesh(self._mesh):
                self._cache = self.programs.fill(self._params, self._cache, tokens, lengths, rows)

    def _next_ticket(self) -> Ticket | None:
        """The next question; where none waits, one whose samples wait for slots takes a second row."""
        if self._queue:
            return self._queue.popleft()
        tickets = [row.ticket for row in self._rows if row.ticket and len(row.ticket.waiting) > self.limits.width // 2]
        return max(tickets, key=lambda ticket: len(ticket.waiting), default=None)

    def _batches(self, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """Groups of texts that are run together: their places, tokens [prompts, bucket], lengths [prompts]."""
        buckets = collections.defaultdict(list)
        for place, text in enumerate(texts):
            if len(text):
                buckets[fitting(self.limits.prompt_buckets, len(text))].append(place)
        for bucket, places in sorted(buckets.items()):
            count = min(self.limits.rows, max(1, self.limits.prefill_tokens // bucket))
            count = -(-count // self._shards) * self._shards
            for start in range(0, len(places), count):
                chunk = places[start : start + count]
                tokens = np.full((count, bucket), self._pad_id, np.int32)
                lengths = np.ones(count, np.int32)
                for row, place in enumerate(chunk):
                    lengths[row] = len(texts[place])
                    tokens[row, : lengths[row]] = texts[place]
                yield chunk, *jax.device_put((tokens, lengths), self.programs.rows)

    def _decode(self, active: list[tuple[int, int, Sample]]) -> Drawn:
        """Runs a block for these rows, slots and samples; the arrays come back as [active, …]."""
        rooms = self.limits.prompt_buckets[-1], self.limits.new_buckets[-1]
        layout = lay_out(active, self.limits, self._shards, exact=flash_decoding.serves(self._config, *rooms))
        block = make_block(active, layout, self.limits, self._rows, self._least_active(len(active)))
        with jax.set_mesh(self._mesh):
            by_row, picked = jax.device_put((block.replace(least_active=None), layout.picked), self.programs.rows)
            self._cache, drawn = self.programs.decode(
                self._params,
                self._cache,
                by_row.replace(least_active=block.least_active),
                picked,
                self._key,
                prefix_length=layout.prefix_length,
                suffix_length=layout.suffix_length,
                steps=self.limits.block_steps,
            )
            return Drawn(*(array[layout.rows, layout.slots] for array in jax.device_get(drawn)))

    def _least_active(self, active: int) -> int:
        """Slots below which the block ends early."""
        # A free slot waits for its row's own samples; for the queue only where a row is one slot.
        waiting = any(row.ticket and row.ticket.waiting for row in self._rows)
        waiting |= bool(self._queue) and self.limits.width == 1
        return active - max(1, active // _IDLE) + 1 if waiting else 1

    def _read(self, active: list[tuple[int, int, Sample]], drawn: Drawn) -> list[Completion]:
        """Takes in what a block drew, [active, …]; ends, pauses and frees."""
        finished = []
        for place, (row, slot, sample) in enumerate(active):
            count = int(drawn.counts[place])
            forced = min(count, len(sample.forced))
            for _ in range(forced):
                sample.forced.popleft()
            began = len(sample.tokens)
            sample.tokens += drawn.tokens[place, :count].tolist()
            sample.logprobs += drawn.logprobs[place, :count].tolist()
            sample.mask += [0] * forced + [1] * (count - forced)
            reason = "stop" if drawn.stopped[place] else None
            if len(sample.tokens) >= sample.request.decoding.max_new_tokens:
                reason = reason or "length"
            if forced and sample.is_told:
                self._cut(sample, began + forced)  # what was drawn behind the last output
                reason = "length" if len(sample.tokens) >= sample.request.decoding.max_new_tokens else "tool_limit"
            elif count > forced and (sample.request.stop or sample.request.tool):
                reason = self._look_for_ends(sample, began + forced, reason)
            if reason:
                finished.append(self._complete(sample, reason))
                self._free(row, slot, sample)
        return finished

    def _free(self, row: int, slot: int, sample: Sample) -> None:
        self._rows[row].slots[slot] = None
        sample.end()
        self._left[sample.request.id] -= 1
        if not self._left[sample.request.id]:
            del self._left[sample.request.id]

    def _look_for_ends(self, sample: Sample, new: int, reason: str | None) -> str | None:
        """Cuts the sample where its text ends or calls a tool; `new` is the first token not looked at before.

        Returns:
          why it ends; None where it goes on, or waits for a tool.
        """
        request = sample.request
        cut = ends.find_stop(self._codec, sample.tokens, max(new, sample.segment), sample.segment, request.stop)
        if cut:
            self._cut(sample, cut)
            reason = "stop"
        if request.tool:
            found = ends.find_call(self._codec, request.tool, sample.tokens, max(new, sample.segment), sample.segment)
            if found:
                cut, text = found
                self._cut(sample, cut)
                if sample.calls >= request.tool.max_calls:
                    return "tool_limit"
                if cut >= request.decoding.max_new_tokens:
                    return "length"
                sample.calls += 1
                sample.state = sample.state or request.tool.begin()
                sample.call = self._caller.call(request.tool, sample.state, text)
                return None
        return reason

    @staticmethod
    def _cut(sample: Sample, length: int) -> None:
        """Forgets the tokens behind; their keys and values lie past the sample's length and are never read."""
        del sample.tokens[length:], sample.logprobs[length:], sample.mask[length:]

    def _complete(self, sample: Sample, reason: str | None) -> Completion:
        text = None
        if self._codec and reason is None:
            text = self._texts.setdefault(sample, _Text()).read(self._codec, sample.tokens)
        elif self._codec:
            stop = sample.request.stop if reason == "stop" else ()
            text = ends.cut_text(self._codec, sample.tokens, sample.segment, stop)
        return Completion(
            request_id=sample.request.id,
            sample=sample.number,
            tokens=tuple(sample.tokens),
            logprobs=tuple(sample.logprobs),
            loss_mask=tuple(sample.mask),
            finish_reason=reason,
            text=text,
        )


@dataclasses.dataclass
class _Text:
    """The text of a sample that grows; decoding the whole sample at every block would cost its square."""

    shown: str = ""  # of the first `end` tokens, which no later one changes
    start: int = 0  # the next tokens are decoded with those from here on: a text's first space may get lost
    end: int = 0
    near: str = ""  # the text of those

    def read(self, codec: Codec, tokens: Sequence[int]) -> str:
        """The text of all tokens, which begin with those of the last time."""
        longer = codec.decode(tokens[self.start :])
        if not longer.startswith(self.near):  # some tokenizers take a whole run of bytes back when it turns out no text
            self.shown, self.start, self.end, self.near = "", 0, 0, ""
            longer = codec.decode(tokens)
        text = self.shown + longer[len(self.near) :]
        near = codec.decode(tokens[self.end :])
        if near and not near.endswith(HALF):
            self.shown, self.start, self.end, self.near = text, self.end, len(tokens), near
        return text
