"""The bodies of answers, as OpenAI's API has them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from dsmath.data.tokenizer import Tokenizer
from dsmath.rollout.programs import Scored
from dsmath.rollout.requests import Completion
from dsmath.rollout.texts import next_text, token_texts


class Choice(NamedTuple):
    """One sample of a prompt.

    Attributes:
      prompt: its token ids.
      completion: the sample.
      shown: the first token that is shown: one of the prompt where that is echoed, else the sample's first.
      scored: of the prompt and the sample together; None where it is not needed.
      likeliest: whether the likeliest token is told beside each.
    """

    prompt: Sequence[int]
    completion: Completion
    shown: int
    scored: Scored | None
    likeliest: bool


class _Named(NamedTuple):
    """A token's name and log-probability; the first token of a text has none. `data` is its text, where it has one."""

    name: str
    logprob: float | None
    data: bytes | None


class _Token(NamedTuple):
    """A token of a choice, the place in the text where it starts, and the likeliest one in its place."""

    itself: _Named
    offset: int
    best: _Named | None


def completion_choice(tokenizer: Tokenizer, index: int, choice: Choice, *, logprobs: bool) -> dict[str, Any]:
    """A choice of /v1/completions."""
    shown = tokenizer.decode(choice.prompt[choice.shown :])
    told = None
    if logprobs:
        tokens = _tokens(tokenizer, choice)
        told = {
            "tokens": [token.itself.name for token in tokens],
            "token_logprobs": [token.itself.logprob for token in tokens],
            # Of two tokens with one name the likelier one is told: it comes last.
            "top_logprobs": [
                None if token.itself.logprob is None else {found.name: found.logprob for found in _both(token)}
                for token in tokens
            ],
            "text_offset": [token.offset for token in tokens],
        }
    return {
        "index": index,
        "text": shown + choice.completion.text,
        "logprobs": told,
        "finish_reason": choice.completion.finish_reason,
    }


def chat_choice(tokenizer: Tokenizer, index: int, choice: Choice, *, logprobs: bool) -> dict[str, Any]:
    """A choice of /v1/chat/completions."""
    told = None
    if logprobs:
        told = {
            "content": [
                _chat_token(token.itself) | {"top_logprobs": [_chat_token(found) for found in _both(token)[1:]]}
                for token in _tokens(tokenizer, choice)
            ]
        }
    return {
        "index": index,
        "message": {"role": "assistant", "content": answer_text(choice.completion.text)},
        "logprobs": told,
        "finish_reason": choice.completion.finish_reason,
    }


def answer_text(text: str) -> str:
    """A turn of the chat without the space that stands behind "Assistant:"."""
    return text.removeprefix(" ")


def completion_piece(index: int, text: str, finish_reason: str | None, *, first: bool = False) -> dict[str, Any]:
    """A choice's piece in a stream of /v1/completions."""
    del first
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def chat_piece(index: int, text: str, finish_reason: str | None, *, first: bool = False) -> dict[str, Any]:
    """A choice's piece in a stream of /v1/chat/completions."""
    delta = {"role": "assistant"} if first else {}
    if text or first:
        delta |= {"content": text}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def usage(prompts: Sequence[Sequence[int]], sampled: int) -> dict[str, int]:
    """Counts of tokens; each prompt counts once, whatever the number of its samples."""
    read = sum(map(len, prompts))
    return {"prompt_tokens": read, "completion_tokens": sampled, "total_tokens": read + sampled}


def _tokens(tokenizer: Tokenizer, choice: Choice) -> list[_Token]:
    """The tokens that a choice shows."""
    completion, scored = choice.completion, choice.scored
    tokens = [*choice.prompt, *completion.tokens]
    texts = token_texts(tokenizer, choice.prompt[choice.shown :])
    texts += _cut(token_texts(tokenizer, completion.tokens), len(completion.text))
    found, offset = [], 0
    for place, text in enumerate(texts, start=choice.shown):
        if scored is None:
            logprob = completion.logprobs[place - choice.shown]
        else:
            logprob = float(scored.logprobs[place - 1]) if place else None
        best = None
        if choice.likeliest and place:
            token = int(scored.best[place - 1])
            likeliest = text if token == tokens[place] else next_text(tokenizer, tokens[:place], token)
            best = _named(tokenizer, likeliest, token, float(scored.best_logprobs[place - 1]))
        found.append(_Token(_named(tokenizer, text, tokens[place], logprob), offset, best))
        offset += len(text)
    return found


def _cut(texts: list[str], length: int) -> list[str]:
    """The tokens up to the one in which a text of so many characters ends: it was cut before a stop string."""
    if sum(map(len, texts)) <= length:
        return texts
    kept = []
    while length > 0:
        kept.append(texts[len(kept)][:length])
        length -= len(kept[-1])
    return kept


def _named(tokenizer: Tokenizer, text: str, token: int, logprob: float | None) -> _Named:
    """A token that is no text, or half a character, goes by its name in the vocabulary."""
    if text.strip("\ufffd"):
        return _Named(text, logprob, text.encode())
    return _Named(tokenizer.piece(token), logprob, None)


def _both(token: _Token) -> list[_Named]:
    return [token.itself] if token.best is None else [token.itself, token.best]


def _chat_token(named: _Named) -> dict[str, Any]:
    return {
        "token": named.name,
        "logprob": named.logprob,
        "bytes": None if named.data is None else list(named.data),
    }
