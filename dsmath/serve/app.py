"""The web application: routes, bodies, streams, and clients that hang up."""

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dsmath.runs.errors import InputError
from dsmath.serve.schema import ApiError, ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest, read
from dsmath.serve.service import Asked, Prepared, Service

_MOST_BYTES = 32 * 2**20  # of a request's body
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_HUNG_UP = 499  # nobody reads it; the number is nginx's


def make_app(service: Service, host: str = "127.0.0.1") -> Starlette:
    """The application; it starts the service's worker and stops it at its end.

    Args:
      service: answers.
      host: the address that it will listen at.
    """
    tokenizer = service.checkpoint.tokenizer

    async def health(_: Request) -> Response:
        if failure := service.worker.failure:
            raise ApiError(f"the engine has failed: {failure}", status=503)
        return JSONResponse({"status": "ok", "open_requests": service.worker.open_requests})

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(service)]})

    async def model(http: Request) -> Response:
        service.require_model(http.path_params["name"])
        return JSONResponse(_model(service))

    async def tokenizer_info(_: Request) -> Response:
        special = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
        return JSONResponse({role: tokenizer.piece(token) for role, token in special.items()})

    async def tokenize(http: Request) -> Response:
        asked = await _read(http, TokenizeRequest)
        service.require_model(asked.model)
        # A special token's name is its id here, which it never is within a text: clients ask for the id by the name.
        special = {tokenizer.piece(token): token for token in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)}
        if asked.prompt in special:
            tokens = [special[asked.prompt]]
        else:
            tokens = service.encode(asked.prompt)[0 if asked.add_special_tokens else 1 :]
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": service.checkpoint.context})

    async def detokenize(http: Request) -> Response:
        asked = await _read(http, DetokenizeRequest)
        service.require_model(asked.model)
        return JSONResponse({"prompt": tokenizer.decode(service.encode(asked.tokens)) if asked.tokens else ""})

    async def completions(http: Request) -> Response:
        return await _answer(http, service, CompletionRequest)

    async def chat(http: Request) -> Response:
        return await _answer(http, service, ChatRequest)

    gets = {
        "/health": health,
        "/v1/models": models,
        "/v1/models/{name:path}": model,
        "/tokenizer_info": tokenizer_info,
    }
    posts = {
        "/v1/completions": completions,
        "/v1/chat/completions": chat,
        "/tokenize": tokenize,
        "/detokenize": detokenize,
    }

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.worker.start()
        try:
            yield
        finally:
            await run_in_threadpool(service.worker.stop)  # what is under way is told through this loop

    return Starlette(
        routes=[
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()),
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=_names(host), www_redirect=False),  # against DNS rebinding
        ],
        lifespan=lifespan,
        exception_handlers={
            ApiError: lambda _, error: _problem(error),
            InputError: lambda _, error: _problem(ApiError(str(error), code="invalid_value")),
            HTTPException: lambda http, error: _problem(
                ApiError(f"{http.method} {http.url.path}: {error.detail}", status=error.status_code), error.headers
            ),
            ClientDisconnect: lambda *_: Response(status_code=_HUNG_UP),
            Exception: lambda _, error: _problem(ApiError(f"{type(error).__name__}: {error}", status=500)),
        },
    )


def _names(host: str) -> list[str]:
    """What clients may call a server that listens at this address: this machine, or anything where others reach it."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return [*_LOCAL, host] if is_local else ["*"]


async def _answer(http: Request, service: Service, kind: type[Asked]) -> Response:
    prepared = await run_in_threadpool(service.prepare, await _read(http, kind))
    if prepared.asked.stream:
        return StreamingResponse(
            _events(service, prepared), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
    return await _unless_hung_up(http, service.answer(prepared))


async def _events(service: Service, prepared: Prepared) -> AsyncIterator[str]:
    """Server-sent events. Who hangs up ends this generator, and so the requests."""
    try:
        async with contextlib.aclosing(service.stream(prepared)) as pieces:
            async for piece in pieces:
                yield _event(piece)
    except (ApiError, InputError) as error:
        yield _event((error if isinstance(error, ApiError) else ApiError(str(error))).body)
    else:
        yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"


async def _unless_hung_up(http: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """The work's answer; when the client is gone before, the work is cancelled."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_hung_up(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(task.result()) if task.done() else Response(status_code=_HUNG_UP)
    finally:
        for each in (task, gone):
            each.cancel()


async def _hung_up(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _read(http: Request, kind: type[Any]) -> Any:
    """A body; its content type keeps other pages of a browser out, which cannot send it without being asked first.

    A page whose own name was bound to this machine could: `make_app` looks at the names.
    """
    if http.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ApiError("the content type must be application/json", status=415)
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise ApiError(f"the body is larger than {_MOST_BYTES} bytes", status=413)
    return read(kind, bytes(body))


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.checkpoint.name,
        "object": "model",
        "created": service.started,
        "owned_by": "dsmath",
        "max_model_len": service.checkpoint.context,
    }


def _problem(error: ApiError, headers: Any = None) -> Response:
    return JSONResponse(error.body, status_code=error.status, headers=headers)
