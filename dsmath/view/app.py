"""The web application: routes, and what keeps hostile files and other pages of the browser out. It only reads."""

import base64
import functools
import hashlib
import importlib.metadata
import importlib.util
import mimetypes
import pathlib
from typing import Any

import jinja2
import pydantic_core
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import dsmath
from dsmath.runs.errors import InputError
from dsmath.view import samples
from dsmath.view.comparison import compare
from dsmath.view.curves import AXES, Tables
from dsmath.view.files import Broken, Folder
from dsmath.view.lineage import draw
from dsmath.view.runs import Run, Runs

MOST_CHOSEN = 24  # runs, and metrics, of one question
MOST_FILE = 64 * 2**20  # bytes of a report
_FOLDER = pathlib.Path(__file__).parent
_ASSETS = ("page.css", "plots.css", "page.js", "parts.js", "graph.js", "plots.js")
_HEADERS = {
    # Nothing but the page's own style sheets, scripts and answers, and no HTML from strings.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_OWN_SCRIPTS = ("rl/page.js", "evaluation/page.js")  # which stand in the reports that stages write
_FIGURES = 8  # of a result, that are shown


def make_app(folder: Folder) -> ASGIApp:
    """The application.

    Args:
      folder: the root; its files are read as they are asked for.
    Raises:
      InputError: Plotly is not installed.
    """
    runs, tables, plotly = Runs(folder), Tables(folder), _find_plotly()
    template = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True).get_template(
        "page.html.jinja"
    )
    version = importlib.metadata.version("plotly")

    def page(_: Request) -> Response:
        return HTMLResponse(template.render(root=str(folder.path), plotly=version))

    def asset(name: str):
        return lambda _: FileResponse(_FOLDER / name)

    def library(_: Request) -> Response:  # large, and its address has its version
        return FileResponse(plotly, headers={"Cache-Control": "private, max-age=604800, immutable"})

    def overview(request: Request) -> Response:
        found, problems = runs.read()
        answer = {
            "runs": [_describe(run) for run in found.values()],
            "graph": draw(found),
            "problems": problems[:50],
        }
        content = _to_json(answer)
        stamp = hashlib.sha256(content).hexdigest()[:16]
        if request.query_params.get("stamp") == stamp:
            return _answer({"stamp": stamp})
        return _answer({**answer, "stamp": stamp})

    def curves(request: Request) -> Response:
        axis, smoothing = request.query_params.get("axis", "step"), request.query_params.get("smoothing", "0")
        if axis not in AXES:
            raise ValueError(f"axis={axis!r}: must be one of {', '.join(AXES)}")
        try:
            weight = float(smoothing)
        except ValueError:
            weight = -1.0
        if not 0 <= weight < 1:
            raise ValueError(f"smoothing={smoothing!r}: must be a number from 0 to below 1")
        metrics = _several(request, "metric")
        drawn, names, notes = [], set(), []
        for run in _chosen(request, runs):
            if not run.has_metrics:
                continue
            table = tables.get(run)
            with table.lock:
                names.update(table.names())
                notes += [f"{run.name}: {note}" for note in _notes(table, axis)]
                for metric in metrics:
                    if curve := table.curve(metric, axis, weight):
                        drawn.append({"run": run.name, "metric": metric, **curve})
        return _answer({"names": sorted(names), "curves": drawn, "notes": notes})

    def comparison(request: Request) -> Response:
        return _answer(compare({run.name: run for run in _chosen(request, runs)}))

    def sample_files(request: Request) -> Response:
        return _answer({"files": samples.list_files(folder, runs.get(_value(request, "run")))})

    def sample_page(request: Request) -> Response:
        which = request.query_params.get("which", "all")
        if which not in samples.WHICH:
            raise ValueError(f"which={which!r}: must be one of {', '.join(samples.WHICH)}")
        run, name = runs.get(_value(request, "run")), _value(request, "file")
        return _answer(samples.read_page(folder, run, name, which=which, offset=_number(request, "offset")))

    def report(request: Request) -> Response:
        run_name, _, name = request.path_params["path"].rpartition("/")
        if name not in runs.get(run_name or ".").reports:
            raise LookupError(f"no report {request.path_params['path']!r} in this folder")
        return _show_report(folder, request.path_params["path"], name)

    gets = {
        "runs": overview, "curves": curves, "comparison": comparison, "sample_files": sample_files,
        "samples": sample_page,
    }  # fmt: skip
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/favicon.ico", lambda _: Response(status_code=204)),  # browsers ask for it unasked
            Route("/plotly.js", library),
            *(Route(f"/{name}", asset(name)) for name in _ASSETS),
            *(Route(f"/api/{name}", endpoint, methods=["GET"]) for name, endpoint in gets.items()),
            Route("/files/{path:path}", report, methods=["GET"]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),  # against DNS rebinding
        ],
        exception_handlers={
            HTTPException: lambda _, error: _problem(error.status_code, error.detail),
            Broken: lambda _, error: _problem(422, error),
            LookupError: lambda _, error: _problem(404, error.args[0] if error.args else error),
            ValueError: lambda _, error: _problem(400, error),
            Exception: lambda _, error: _problem(500, f"{type(error).__name__}: {error}"),
        },
    )
    return _Guard(app)  # around everything, so that errors bear the headers too


class _Guard:
    """Puts the headers on every answer that has none of its own, and refuses what other pages ask for."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = scope["type"] == "http" and _is_foreign(Headers(scope=scope))
        app = _problem(403, "asked by another page") if refused else self._app
        await app(scope, receive, send_with_headers)


def _is_foreign(headers: Headers) -> bool:
    """Whether another page asks; a link that a person follows may stand anywhere, such as in a report."""
    follows = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not follows and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _show_report(folder: Folder, path: str, name: str) -> Response:
    """A file as the browser may see it: HTML and SVG in a sandbox, where no script runs but those of our reports."""
    content = folder.read(path, MOST_FILE)
    kind = mimetypes.guess_type(name)[0] or "text/plain"
    if kind == "text/html":
        policy = f"sandbox allow-scripts; default-src 'none'; script-src {_own_scripts()}; style-src 'unsafe-inline'"
    else:
        policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    if not kind.startswith("image/") and kind != "text/html":
        kind = "text/plain"
    policy += "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return Response(content, media_type=kind, headers={"Content-Security-Policy": policy})


@functools.cache
def _own_scripts() -> str:
    """The hashes under which a browser runs the scripts of our reports; pages of older versions do without."""
    files = [pathlib.Path(dsmath.__file__).parent / name for name in _OWN_SCRIPTS]
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in files if file.exists()]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"


def _find_plotly() -> pathlib.Path:
    """Plotly's JavaScript, which its Python package brings along."""
    found = importlib.util.find_spec("plotly")
    script = pathlib.Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    if script is None or not script.exists():
        raise InputError("plotly, which draws the curves, is not installed; pip install plotly")
    return script


def _describe(run: Run) -> dict[str, Any]:
    numbers = [(name, value) for name, value in run.result.items() if type(value) in (int, float)]
    results = run.result.get("results")  # of an evaluation, by benchmark and mode
    for one in results[:_FIGURES] if isinstance(results, list) else ():
        if isinstance(one, dict) and type(one.get("accuracy")) in (int, float):
            numbers.append((f"{one.get('title', one.get('benchmark'))}, {one.get('mode')}", one["accuracy"]))
    return {
        "name": run.name, "stage": run.stage, "status": run.status, "step": run.step, "num_steps": run.num_steps,
        "seen": round(run.seen, 1), "detail": run.detail, "reports": run.reports, "has_metrics": run.has_metrics,
        "has_samples": run.has_samples, "problems": run.problems, "code": str(run.lineage.get("code", ""))[:80],
        "result": [[name[:80], value] for name, value in numbers[: 2 * _FIGURES]],
    }  # fmt: skip


def _notes(table: Any, axis: str) -> list[str]:
    notes = list(table.problems)
    if table.broken:
        notes.append(f"{table.broken} broken line{'s' if table.broken > 1 else ''} of metrics.jsonl left out")
    if axis != "step" and table.columns and table.axis(axis) is None:
        notes.append(f"its metrics do not tell {axis}")
    return notes


def _to_json(value: Any) -> bytes:
    return pydantic_core.to_json(value, inf_nan_mode="null")  # JSON has no infinity, and files may hold some


def _answer(value: Any, status: int = 200) -> Response:
    return Response(_to_json(value), status_code=status, media_type="application/json")


def _problem(status: int, message: object) -> Response:
    return _answer({"error": str(message)[:1_000]}, status)


def _several(request: Request, name: str) -> list[str]:
    values = list(dict.fromkeys(request.query_params.getlist(name)))
    if len(values) > MOST_CHOSEN:
        raise ValueError(f"{len(values)} {name}s: at most {MOST_CHOSEN} at a time")
    return values


def _chosen(request: Request, runs: Runs) -> list[Run]:
    return [runs.get(name) for name in _several(request, "run")]


def _value(request: Request, name: str) -> str:
    try:
        return request.query_params[name]
    except KeyError as error:
        raise ValueError(f"the parameter {name!r} is missing") from error


def _number(request: Request, name: str) -> int:
    value = request.query_params.get(name, "0")
    if not value.isdecimal() or len(value) > 15:
        raise ValueError(f"{name}={value!r}: must be a number")
    return int(value)
