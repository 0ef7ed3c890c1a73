"""Where a sample's text ends: stop strings and calls of tools, across the borders of tokens."""

import bisect
from collections.abc import Callable, Sequence

from dsmath.rollout.requests import Codec, Tool

_MARGIN = 8  # tokens before a stop string's longest: a character may be several byte tokens


def find_stop(codec: Codec, tokens: Sequence[int], new: int, start: int, stop: Sequence[str]) -> int | None:
    """How many tokens there are up to the one that completes a stop string.

    Args:
      codec: tokens to text.
      tokens: of the sample.
      new: the first token that was not looked at before.
      start: the first token that counts.
      stop: the strings.
    Returns:
      None where none is completed.
    """
    if not stop:
        return None
    # A string's tokens are no more than its bytes; decoding the whole sample at every block would cost its square.
    start = max(start, new - max(len(string.encode()) for string in stop) - _MARGIN)

    def is_complete(length: int) -> bool:
        text = codec.decode(tokens[start:length])
        return any(string in text for string in stop)

    return _first(is_complete, new, len(tokens))


def find_call(codec: Codec, tool: Tool, tokens: Sequence[int], new: int, start: int) -> tuple[int, str] | None:
    """How many tokens there are up to the one that completes a call, and the call.

    Args:
      codec, tokens, new, start: as in `find_stop`.
      tool: finds a call in a text; one that it has found it finds in all longer texts.
    """
    length = _first(lambda length: tool.find(codec.decode(tokens[start:length])) is not None, new, len(tokens))
    return None if length is None else (length, tool.find(codec.decode(tokens[start:length])))


def _first(is_complete: Callable[[int], bool], new: int, end: int) -> int | None:
    """The least length in (new, end] for which it holds; once it does, it does for all longer ones."""
    if new >= end or not is_complete(end):
        return None
    return bisect.bisect_left(range(end), True, new + 1, end, key=is_complete)


def cut_text(codec: Codec, tokens: Sequence[int], start: int, stop: Sequence[str]) -> str:
    """The text of tokens, ended before the first stop string from token `start` on."""
    text = codec.decode(tokens[start:])
    places = [text.index(string) for string in stop if string in text]
    if not places:
        return codec.decode(tokens)
    return (codec.decode(tokens[:start]) if start else "") + text[: min(places)]
