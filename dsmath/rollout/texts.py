"""Tokens as pieces of text, and what of a growing text no later token changes."""

from collections.abc import Sequence

from dsmath.rollout.requests import Codec

HALF = "\ufffd"  # how bytes that are no character yet are decoded
_WINDOW = 8  # tokens before one that its text may depend on: a character may be several byte tokens


def settled(text: str, stop: Sequence[str]) -> str:
    """The part of an unfinished text that may be shown: without half a character or the beginning of a stop string."""
    text = text.rstrip(HALF)
    begun = (
        length for string in stop for length in range(1, len(string)) if text.endswith(string[:length])
    )  # what is held back may turn out to be the stop string
    return text[: len(text) - max(begun, default=0)]


def token_texts(codec: Codec, tokens: Sequence[int]) -> list[str]:
    """What each token adds to the text; a character of several tokens is added by the last of them."""
    added = []
    start = shown = 0  # the text of tokens[start:shown] is known to be whole
    for end in range(1, len(tokens) + 1):
        before, after = codec.decode(tokens[start:shown]), codec.decode(tokens[start:end])
        if len(after) <= len(before) or (after.endswith(HALF) and end < len(tokens)):
            added.append("")
            continue
        added.append(after[len(before) :])
        start, shown = shown, end
    return added


def next_text(codec: Codec, tokens: Sequence[int], token: int) -> str:
    """What another token would add after these."""
    near = list(tokens[-_WINDOW:])
    return codec.decode([*near, token])[len(codec.decode(near)) :]
