"""What clients ask as requests of the engine, and its samples as their answers."""

import contextlib
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from dsmath.data.chat import encode_chat
from dsmath.data.tokenizer import Tokenizer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.requests import Completion, Request
from dsmath.rollout.texts import settled
from dsmath.serve import answers
from dsmath.serve.schema import ApiError, ChatRequest, CompletionRequest
from dsmath.serve.worker import Worker

Asked = CompletionRequest | ChatRequest


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What is served.

    Attributes:
      name: by which clients call the model.
      tokenizer: of the checkpoint.
      vocab_size: of the model, which may have rows for more than the tokenizer has.
      context: most tokens of a prompt and its completion together.
      max_new_tokens: most tokens of a completion.
    """

    name: str
    tokenizer: Tokenizer
    vocab_size: int
    context: int
    max_new_tokens: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was asked, checked.

    Attributes:
      asked: by the client.
      prompts: token ids.
      shown: for each prompt its first token that the answer shows.
      requests: one a prompt; none where nothing is to be sampled.
    """

    asked: Asked
    prompts: list[list[int]]
    shown: list[int]
    requests: list[Request]


class Service:
    """Answers completions and chats.

    Args:
      worker: owns the engine.
      checkpoint: what the engine holds.
    """

    def __init__(self, worker: Worker, checkpoint: Checkpoint):
        self.worker, self.checkpoint = worker, checkpoint
        self.started = int(time.time())
        self._tokenizer = checkpoint.tokenizer

    def require_model(self, name: str | None) -> None:
        """Refuses another model than the one that is served; who names none means it."""
        if name not in (None, self.checkpoint.name):
            raise ApiError(
                f"the model {name!r} does not exist; this server has {self.checkpoint.name!r}",
                status=404,
                param="model",
                code="model_not_found",
            )

    def encode(self, prompt: str | list[int]) -> list[int]:
        """A text gets <bos>, as in training; token ids are taken as they are."""
        if isinstance(prompt, str):
            return [self._tokenizer.bos_id, *self._tokenizer.encode(prompt)]
        if not 0 <= min(prompt) <= max(prompt) < self.checkpoint.vocab_size:
            raise ApiError(
                f"prompt: token ids must be in [0, {self.checkpoint.vocab_size})", param="prompt", code="invalid_value"
            )
        return prompt

    def prepare(self, asked: Asked) -> Prepared:
        """Checks what was asked against the checkpoint.

        Raises:
          ApiError: it cannot be served.
        """
        self.require_model(asked.model)
        if asked.stream and _wants_logprobs(asked):
            raise ApiError("logprobs: not supported in streams", param="logprobs", code="unsupported_parameter")
        if isinstance(asked, ChatRequest):
            turns = [(message.role, message.content) for message in asked.messages]
            prompts, field = [encode_chat(turns, self._tokenizer)], "messages"
            most = asked.max_completion_tokens or asked.max_tokens
            shown = [len(prompts[0])]
        else:
            prompts, field, most = [self.encode(prompt) for prompt in asked.prompt], "prompt", asked.max_tokens
            # The <bos> that a text gets is not shown: who counts the text's tokens finds as many.
            shown = [
                int(isinstance(text, str)) if asked.echo else len(prompt)
                for text, prompt in zip(asked.prompt, prompts, strict=True)
            ]
        lengths = [self._new_tokens(len(prompt), most, field) for prompt in prompts]
        requests = [self._request(asked, *found) for found in zip(prompts, lengths, strict=True)] if most != 0 else []
        return Prepared(asked, prompts, shown, requests)

    def _new_tokens(self, prompt: int, most: int | None, field: str) -> int:
        """Tokens of a completion at most."""
        context, limit = self.checkpoint.context, self.checkpoint.max_new_tokens
        if most is not None and most > limit:
            raise ApiError(
                f"max_tokens: {most} is more than this server's {limit}", param="max_tokens", code="invalid_value"
            )
        needed = prompt + (1 if most is None else most)
        if needed > context:
            raise ApiError(
                f"This model's maximum context length is {context} tokens, but {needed} were requested "
                f"({prompt} in the {field}, {needed - prompt} in the completion); shorten either",
                param=field,
                code="context_length_exceeded",
            )
        return min(limit, context - prompt) if most is None else most

    def _request(self, asked: Asked, prompt: list[int], new_tokens: int) -> Request:
        decoding = Decoding(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_new_tokens=new_tokens,
            top_k=max(0, asked.top_k),  # -1 is off too
            min_p=asked.min_p,
            repetition_penalty=asked.repetition_penalty,
        )
        return Request(
            id=0,  # the worker gives them
            prompt=prompt,
            num_samples=asked.n,
            decoding=decoding,
            stop_ids=(self._tokenizer.eos_id,),
            stop=tuple(asked.stop),
            seed=None if asked.seed is None else asked.seed % 2**32,
        )

    async def answer(self, prepared: Prepared) -> dict[str, Any]:
        """The whole answer at once."""
        asked = prepared.asked
        groups = await self.worker.complete(prepared.requests) or self._nothing(prepared)
        found = [
            (prompt, completion, shown)
            for prompt, group, shown in zip(prepared.prompts, groups, prepared.shown, strict=True)
            for completion in group
        ]
        is_chat, logprobs = isinstance(asked, ChatRequest), _wants_logprobs(asked)
        likeliest = logprobs and bool(asked.top_logprobs if is_chat else asked.logprobs)
        scores = [None] * len(found)
        if logprobs and (likeliest or (not is_chat and asked.echo)):  # what sampling itself does not give
            scores = await self.worker.score([[*prompt, *completion.tokens] for prompt, completion, _ in found])
        make = answers.chat_choice if is_chat else answers.completion_choice
        choices = [
            answers.Choice(prompt, completion, shown, scored, likeliest)
            for (prompt, completion, shown), scored in zip(found, scores, strict=True)
        ]
        return _head(self.checkpoint.name, asked, "chat.completion") | {
            "choices": [make(self._tokenizer, *entry, logprobs=logprobs) for entry in enumerate(choices)],
            "usage": answers.usage(prepared.prompts, sum(len(completion.tokens) for _, completion, _ in found)),
        }

    async def stream(self, prepared: Prepared) -> AsyncIterator[dict[str, Any]]:
        """The answer in pieces, as the engine goes from block to block."""
        asked = prepared.asked
        is_chat = isinstance(asked, ChatRequest)
        make = answers.chat_piece if is_chat else answers.completion_piece
        head = _head(self.checkpoint.name, asked, "chat.completion.chunk")
        for place, prompt in enumerate(prepared.prompts):
            shown = self._tokenizer.decode(prompt[prepared.shown[place] :])
            for sample in range(asked.n if is_chat or shown else 0):
                yield head | {"choices": [make(place * asked.n + sample, shown, None, first=True)]}
        sent: dict[int, str] = {}
        sampled = 0
        async for place, found in self._growing(prepared):
            index = place * asked.n + found.sample
            text = answers.answer_text(found.text) if is_chat else found.text
            if found.finish_reason is None:
                text = settled(text, asked.stop)
            else:
                sampled += len(found.tokens)
            before = sent.get(index, "")
            new = text[len(before) :] if text.startswith(before) else ""
            sent[index] = before + new
            if new or found.finish_reason:
                yield head | {"choices": [make(index, new, found.finish_reason)]}
        if asked.stream_options.include_usage:
            yield head | {"choices": [], "usage": answers.usage(prepared.prompts, sampled)}

    async def _growing(self, prepared: Prepared) -> AsyncIterator[tuple[int, Completion]]:
        if prepared.requests:
            async with contextlib.aclosing(self.worker.stream(prepared.requests)) as news:
                async for found in news:
                    yield found
        else:
            for place, group in enumerate(self._nothing(prepared)):
                for found in group:
                    yield place, found

    @staticmethod
    def _nothing(prepared: Prepared) -> list[list[Completion]]:
        """Samples of no tokens."""
        group = [Completion(0, sample, (), (), (), "length", "") for sample in range(prepared.asked.n)]
        return [group] * len(prepared.prompts)


def _wants_logprobs(asked: Asked) -> bool:
    return asked.logprobs is not None and asked.logprobs is not False


def _head(name: str, asked: Asked, chat_kind: str) -> dict[str, Any]:
    is_chat = isinstance(asked, ChatRequest)
    return {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": chat_kind if is_chat else "text_completion",
        "created": int(time.time()),
        "model": name,
    }
