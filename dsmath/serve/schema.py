"""What clients may ask, and the shape of a refusal."""

from typing import Annotated, Any, Literal, TypeVar

import pydantic
import pydantic_core
from pydantic import Field

from dsmath.rollout.decoding import LEAST, MOST

_MOST_CHOICES = 128  # samples of a prompt
_MOST_PROMPTS = 2048  # of a request
_MOST_STOPS = 16
_BODY = "the body"
# Values of fields that are not supported which ask for nothing: clients send them unasked.
_NEUTRAL = {
    "best_of": 1,
    "frequency_penalty": 0,
    "logit_bias": {},
    "n_probs": 0,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "store": False,
    "suffix": "",
    "tools": [],
}


class ApiError(Exception):
    """A refusal or a failure, as the client is told of it.

    Args:
      message: what is wrong.
      status: of HTTP.
      param: the field that is wrong.
      code: a word for programs.
    """

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that is answered."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class _Asked(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, value: Any) -> Any:
        """Null is as good as absent."""
        if not isinstance(value, dict):
            return value
        return {
            name: found
            for name, found in value.items()
            if found is not None and (name in cls.model_fields or name not in _NEUTRAL or found != _NEUTRAL[name])
        }


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _read_prompts(value: Any) -> list[str | list[int]]:
    def is_ids(prompt: Any) -> bool:
        return isinstance(prompt, list) and all(type(token) is int for token in prompt)

    prompts = [value] if isinstance(value, str) or (value and is_ids(value)) else value
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) or is_ids(prompt) for prompt in prompts):
        raise ValueError("must be a string, a list of token ids, or a list of these")
    if not prompts or not all(prompts):
        raise ValueError("is empty; a prompt needs one token at least")
    if len(prompts) > _MOST_PROMPTS:
        raise ValueError(f"{len(prompts)} prompts are more than {_MOST_PROMPTS}")
    return prompts


def _read_content(value: Any) -> Any:
    """A list of text parts is their text."""
    if not isinstance(value, list):
        return value
    parts = [part for part in value if isinstance(part, dict) and part.get("type") == "text"]
    if len(parts) < len(value) or not all(isinstance(part.get("text"), str) for part in parts):
        raise ValueError("only parts of text are supported")
    return "".join(part["text"] for part in parts)


class StreamOptions(_Asked):
    """What a stream tells besides."""

    include_usage: bool = False


class _Sampling(_Asked):
    """What both endpoints take; top_k, min_p and repetition_penalty are extensions."""

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=_MOST_CHOICES)] = 1
    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_p: Annotated[float, Field(ge=LEAST, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=LEAST, le=MOST)] = 1.0
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(max_length=_MOST_STOPS), pydantic.BeforeValidator(_as_list)
    ] = []
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str = ""


class CompletionRequest(_Sampling):
    """Of /v1/completions."""

    prompt: Annotated[list[str | list[int]], pydantic.PlainValidator(_read_prompts)]
    max_tokens: Annotated[int, Field(ge=0)] = 16  # the API's default
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None  # likeliest tokens that are told besides the chosen ones


class Message(_Asked):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, pydantic.BeforeValidator(_read_content)]
    name: str = ""


class ChatRequest(_Sampling):
    """Of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=1)] = 0


class TokenizeRequest(_Asked):
    """Of /tokenize, by which clients without the tokenizer count tokens."""

    prompt: str
    add_special_tokens: bool = True
    model: str | None = None


class DetokenizeRequest(_Asked):
    """Of /detokenize."""

    tokens: list[Annotated[int, Field(ge=0)]]
    model: str | None = None


_Kind = TypeVar("_Kind", bound=_Asked)
_CODES = {"extra_forbidden": "unsupported_parameter", "missing": "missing_required_parameter"}


def read(kind: type[_Kind], body: bytes) -> _Kind:
    """Reads a request's body.

    Raises:
      ApiError: it is no JSON, or not of this kind; the first wrong field is named.
    """
    try:
        value = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"{_BODY} is not JSON: {error}", code="invalid_json") from error
    try:
        return kind.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "not supported here, or no field of this endpoint"
    kind_of_error = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    code = _CODES.get(first["type"], kind_of_error)
    raise ApiError(f"{param or _BODY}: {message}", param=param or None, code=code)
