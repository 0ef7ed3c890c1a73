"""The web application: routes, and what keeps a hostile crawl and other pages of the browser out."""

import pathlib
import sqlite3
from typing import Annotated, Literal

import jinja2
import pydantic
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsmath.runs.errors import InputError
from dsmath.web.annotate.annotation import Annotation

_FOLDER = pathlib.Path(__file__).parent
_MOST_BYTES = 256 * 1024  # of a request's body
_HEADERS = {
    # Nothing but the page's own style sheet, script and answers; HTML from strings by the policy "typeset" alone.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types typeset",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

Domain = Annotated[str, pydantic.Field(max_length=300)]
Pattern = Annotated[str, pydantic.Field(min_length=1, max_length=8_000)]
User = Annotated[
    str, pydantic.StringConstraints(strip_whitespace=True, min_length=1, max_length=60, pattern=r"^[^\x00-\x1f]+$")
]


class TreeRequest(pydantic.BaseModel):
    """Which rows of a domain's tree are to be seen."""

    domain: Domain
    opened: dict[str, Annotated[int, pydantic.Field(ge=0)]]
    reveal: Annotated[str, pydantic.Field(max_length=8_000)] | None = None
    descend: Annotated[str, pydantic.Field(max_length=8_000)] | None = None


class MarkRequest(pydantic.BaseModel):
    """A mark."""

    domain: Domain
    pattern: Pattern
    verdict: Literal["math", "not math", "unsure"]
    user: User
    note: Annotated[str, pydantic.Field(max_length=2_000)] = ""
    suggested: bool = False
    round: int


class UndoRequest(pydantic.BaseModel):
    """The undo of a mark, or of the user's own last one."""

    user: User
    id: int | None = None
    round: int


class ExportRequest(pydantic.BaseModel):
    """The export of the round that the page shows."""

    round: int


def make_app(annotation: Annotation, user: str = "") -> ASGIApp:
    """The application.

    Args:
      annotation: the work that it shows.
      user: who marks, where the browser does not know better; "" asks.
    """
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True)
    template = templates.get_template("page.html.jinja")

    def page(_: Request) -> Response:
        return HTMLResponse(template.render(workdir=str(annotation.workdir), user=user))

    def asset(name: str):
        return lambda _: FileResponse(_FOLDER / name)

    def overview(_: Request) -> Response:
        last = annotation.marks.last_id()  # first: what is done meanwhile is told again
        return JSONResponse(annotation.overview() | {"last": last})

    def changes(request: Request) -> Response:
        return JSONResponse(annotation.changes(_number(request, "since")))

    def node(request: Request) -> Response:
        domain, pattern = _value(request, "domain"), _value(request, "pattern")
        try:
            return JSONResponse(annotation.describe(domain, pattern))
        except ValueError as error:  # a pattern that is being typed
            return JSONResponse({"problem": str(error)})

    def samples(request: Request) -> Response:
        values = (_value(request, "domain"), _value(request, "pattern"), _number(request, "offset"))
        return JSONResponse(annotation.samples(*values))

    def text(request: Request) -> Response:
        return JSONResponse(annotation.text(_value(request, "domain"), _number(request, "place")))

    async def tree(request: Request) -> Response:
        asked = TreeRequest.model_validate_json(await request.body())
        ways = {"reveal": asked.reveal, "descend": asked.descend}
        return JSONResponse(await run_in_threadpool(annotation.rows, asked.domain, asked.opened, **ways))

    async def mark(request: Request) -> Response:
        asked = MarkRequest.model_validate_json(await request.body())

        def write():
            return annotation.mark(
                asked.domain, asked.pattern, asked.verdict, asked.user, asked.note, suggested=asked.suggested,
                round_number=asked.round,
            )  # fmt: skip

        return JSONResponse(await run_in_threadpool(write))

    async def undo(request: Request) -> Response:
        asked = UndoRequest.model_validate_json(await request.body())
        return JSONResponse(await run_in_threadpool(annotation.undo, asked.user, asked.id, asked.round))

    async def export(request: Request) -> Response:
        asked = ExportRequest.model_validate_json(await request.body())
        return JSONResponse(await run_in_threadpool(annotation.export, asked.round))

    gets = {"overview": overview, "changes": changes, "node": node, "samples": samples, "text": text}
    posts = {"tree": tree, "mark": mark, "undo": undo, "export": export}
    app = Starlette(
        routes=[
            Route("/", page),
            *(Route(f"/{name}", asset(name)) for name in ("page.css", "page.js", "parts.js")),
            *(Route(f"/api/{name}", endpoint, methods=["GET"]) for name, endpoint in gets.items()),
            *(Route(f"/api/{name}", endpoint, methods=["POST"]) for name, endpoint in posts.items()),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),  # against DNS rebinding
        ],
        exception_handlers={
            pydantic.ValidationError: lambda _, error: _problem(400, _describe(error)),
            InputError: lambda _, error: _problem(409, error),
            LookupError: lambda _, error: _problem(404, error.args[0] if error.args else error),
            ValueError: lambda _, error: _problem(400, error),
            sqlite3.Error: lambda _, error: _problem(507, f"not saved: {error}"),
            OSError: lambda _, error: _problem(507, f"not written: {error}"),
            Exception: lambda _, error: _problem(500, f"{type(error).__name__}: {error}"),
        },
    )
    return _Guard(app)  # around everything, so that errors bear the headers too


class _Guard:
    """Puts the headers on every answer, and takes posts from the page itself alone."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = _refusal(scope) if scope["type"] == "http" else None
        await (self._app if refusal is None else refusal)(scope, receive, send_with_headers)


def _refusal(scope: Scope) -> Response | None:
    """Another page in the same browser can neither set this content type nor this origin without being asked first."""
    headers = Headers(scope=scope)
    if scope["path"] != "/" and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return _problem(403, "asked by another page")
    if scope["method"] in ("GET", "HEAD"):
        return None
    if headers.get("origin") not in (None, f"http://{headers.get('host')}"):
        return _problem(403, "sent by another page")
    if headers.get("content-type", "").split(";")[0].strip() != "application/json":
        return _problem(415, "the content type must be application/json")
    length = headers.get("content-length", "")
    if not length.isdigit() or int(length) > _MOST_BYTES:
        return _problem(413, f"a body of at most {_MOST_BYTES} bytes is taken, with its length")
    return None


def _problem(status: int, message: object) -> Response:
    return JSONResponse({"error": str(message)}, status_code=status)


def _describe(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"


def _value(request: Request, name: str) -> str:
    try:
        return request.query_params[name]
    except KeyError as error:
        raise ValueError(f"the parameter {name!r} is missing") from error


def _number(request: Request, name: str) -> int:
    value = _value(request, name)
    if not value.isdecimal() or len(value) > 15:
        raise ValueError(f"{name}={value!r}: must be a number")
    return int(value)
