"""What the engine is asked for, what it gives, and how much it holds at once."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from dsmath.rollout.decoding import Decoding
from dsmath.runs.errors import InputError

CACHE_DTYPES = ("float32", "bfloat16", "int8")


class Codec(Protocol):
    """Tokens to text and back, such as `dsmath.data.tokenizer.Tokenizer`."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Calls(Protocol):
    """The calls of one sample, which may share a state."""

    def run(self, call: str) -> str:
        """Does the call, in a thread, and gives the text that the sample goes on with."""

    def end(self) -> None:
        """The sample is over; must not wait, not even for a call that still runs."""


class Tool(Protocol):
    """What a sample may call from within its text, such as a block of Python.

    Attributes:
      timeout: seconds that a call may take; a thread cannot be killed, so `Calls.run` should end itself before.
      max_calls: calls of a sample; one more ends it with the reason "tool_limit".
      ends_with_output: whether the output of the last of `max_calls` ends the sample too, with the same reason.
      max_output_tokens: of a call's output, which is cut there.
    """

    timeout: float
    max_calls: int
    ends_with_output: bool
    max_output_tokens: int

    def find(self, text: str) -> str | None:
        """The call that the text completes, if it does; the text starts after the last call's output."""

    def begin(self) -> Calls:
        """The calls of another sample, before its first one."""

    def explain(self, error: Exception) -> str:
        """The text that the sample goes on with where `Calls.run` raised, or took too long (`TimeoutError`)."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Samples of one prompt.

    Attributes:
      id: names the request; no two that run at once may share it.
      prompt: token ids, at least one.
      num_samples: independent samples of it, numbered from 0.
      decoding: how tokens are drawn.
      stop_ids: a sample ends with any of these; they are part of it.
      stop: a sample ends with the token that completes any of these strings; its text ends before the string.
      tool: what the samples may call.
      seed: names the random stream in place of `id`.
      skip: numbers of samples that are not wanted: they exist already.
    """

    id: int
    prompt: Sequence[int]
    num_samples: int
    decoding: Decoding
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    tool: Tool | None = None
    seed: int | None = None
    skip: frozenset[int] = frozenset()

    @property
    def numbers(self) -> list[int]:
        """Of the samples that are wanted."""
        return [number for number in range(self.num_samples) if number not in self.skip]


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample.

    Attributes:
      request_id, sample: which.
      tokens: what was sampled, and what a tool said.
      logprobs: of the tokens under the untempered policy; 0 where a tool spoke.
      loss_mask: 1 where the policy chose the token, 0 where a tool spoke.
      finish_reason: "stop" (an id or a string), "length", "tool_limit"; None while it runs (`Engine.running`).
      text: without the stop string; None where the engine has no codec.
    """

    request_id: int
    sample: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    loss_mask: tuple[int, ...]
    finish_reason: str | None
    text: str | None


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much an engine holds; every shape that it compiles follows from these.

    Attributes:
      rows: questions decoded at once; the devices that share them divide it, or it is raised to their multiple.
      width: samples of a question decoded at once; more of them take the places of those that end.
      prompt_buckets: lengths that prompts are padded to, ascending; the last is the longest prompt.
      new_buckets: lengths of the samples' cache that a block of steps may read, ascending; the last is the most tokens
        of a sample. Short samples are not slowed by room that is for long ones.
      block_steps: decode steps between two looks of the host.
      prefill_tokens: of the prompts that one call runs; a longer prompt runs alone.
      max_stop_ids: of a request.
      cache_dtype: of keys and values: float32, bfloat16 or int8 with a scale a head and token.
    """

    rows: int
    width: int
    prompt_buckets: tuple[int, ...]
    new_buckets: tuple[int, ...]
    block_steps: int
    prefill_tokens: int
    max_stop_ids: int
    cache_dtype: str

    def __post_init__(self):
        for name in ("rows", "width", "block_steps", "prefill_tokens", "max_stop_ids"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} must be at least 1")
        for name in ("prompt_buckets", "new_buckets"):
            buckets = getattr(self, name)
            if not buckets or min(buckets) < 1 or sorted(set(buckets)) != list(buckets):
                raise InputError(f"{name}: {buckets} must be ascending lengths")
        if self.cache_dtype not in CACHE_DTYPES:
            raise InputError(f"cache_dtype: {self.cache_dtype!r} is none of {', '.join(map(repr, CACHE_DTYPES))}")


def check(request: Request, limits: Limits, codec: Codec | None) -> None:
    """Refuses a request that the engine cannot serve.

    Raises:
      InputError: what is wrong with it.
    """
    where = f"request {request.id}"
    for name in ("id", "seed"):
        if not 0 <= (getattr(request, name) or 0) < 2**32:
            raise InputError(f"{where}: its {name} is not in [0, 2^32)")
    if not len(request.prompt):
        raise InputError(f"{where}: the prompt is empty; it needs one token at least, such as <bos>")
    if len(request.prompt) > limits.prompt_buckets[-1]:
        raise InputError(
            f"{where}: its prompt has {len(request.prompt)} tokens, more than the engine's {limits.prompt_buckets[-1]}"
        )
    if request.decoding.max_new_tokens > limits.new_buckets[-1]:
        raise InputError(
            f"{where}: max_new_tokens {request.decoding.max_new_tokens} is more than the engine's "
            f"{limits.new_buckets[-1]}"
        )
    if not request.numbers:
        raise InputError(f"{where}: num_samples {request.num_samples} must be at least 1, and one not in skip")
    if len(request.stop_ids) > limits.max_stop_ids:
        raise InputError(f"{where}: {len(request.stop_ids)} stop ids, more than the engine's {limits.max_stop_ids}")
    if "" in request.stop:
        raise InputError(f"{where}: an empty stop string")
    if (request.stop or request.tool) and codec is None:
        raise InputError(f"{where}: stop strings and tools need an engine with a codec")
