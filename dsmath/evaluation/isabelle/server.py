"""One Isabelle server: its process, a session in it, and checks of theories over TCP by the package isabelle-client.

Source: The Isabelle System Manual, chapter 4, "The Isabelle server".
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import math
import os
import pathlib
import re
import select
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping

from dsmath.runs.errors import InputError

VERSION = "Isabelle2022"
_SESSION = "HOL-Number_Theory"  # its image holds Complex_Main, HOL-Library and HOL-Computational_Algebra
_FURTHER = ("HOL-Library", "HOL-Computational_Algebra", "HOL-Analysis")
_CHECK_DELAY = 0.2  # seconds between two looks of the server at its theories
_SLACK = 30.0  # seconds that a server may take beyond the limit it was given
_INFO = re.compile(r'server "(?P<name>.+?)" = (?P<host>[\d.]+):(?P<port>\d+) \(password "(?P<password>.+?)"\)')


class ServerError(Exception):
    """The server has ended, or does not keep to the protocol; another one may do."""


@dataclasses.dataclass(frozen=True)
class Node:
    """What Isabelle says of a theory.

    Attributes:
      finished: every command has ended, within the time.
      errors: its messages; a theory holds where it is finished and has none.
      messages: all messages of other kinds, e.g. what Sledgehammer has found.
    """

    finished: bool
    errors: tuple[str, ...]
    messages: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every proof in it is accepted."""
        return self.finished and not self.errors


def find_isabelle(folder: str) -> pathlib.Path:
    """The executable of an installed Isabelle; to be called before any generation.

    Args:
      folder: where Isabelle was unpacked, e.g. /opt/Isabelle2022.
    Raises:
      InputError: there is none, or its client is absent.
    """
    install = (
        f"install it: unpack {VERSION}_linux.tar.gz (https://isabelle.in.tum.de/website-{VERSION}/) and set "
        f"config.isabelle to its folder, e.g. /opt/{VERSION}"
    )
    if not folder:
        raise InputError(f"config.isabelle is empty, and miniF2F's proofs are checked by Isabelle; {install}")
    executable = pathlib.Path(folder).expanduser() / "bin" / "isabelle"
    if not os.access(executable, os.X_OK):
        raise InputError(f"config.isabelle: {folder} holds no bin/isabelle that can be run; {install}")
    _import_client()
    return executable.absolute()


def _import_client():
    try:
        import isabelle_client
    except ImportError as error:
        raise InputError(
            "config.isabelle: the client of Isabelle's server is not installed: pip install 'dsmath[isabelle]'"
        ) from error
    return isabelle_client


class Server:
    """An Isabelle server with one session. To be used by one thread at a time.

    Args:
      executable: `find_isabelle`'s.
      start_seconds: for the server and its session; the first start builds the session's image, which takes long.
    Raises:
      InputError: Isabelle does not start.
    """

    def __init__(self, executable: pathlib.Path, start_seconds: float):
        self._names = itertools.count()
        self._folder = tempfile.TemporaryDirectory(prefix="dsmath-isabelle-")
        self._complaints = pathlib.Path(self._folder.name, "complaints")
        with self._complaints.open("wb") as complaints:
            self._process = subprocess.Popen(
                [executable, "server", "-n", f"dsmath-{uuid.uuid4()}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,  # it starts Java and Poly/ML, which are to end with it
            )
        try:
            self._client = self._connect(start_seconds)
            session = {"session": _SESSION, "include_sessions": list(_FURTHER)}
            self._session = self._ask("session_start", session, start_seconds)["session_id"]
        except (ServerError, TimeoutError, KeyError, TypeError) as error:
            self.close()
            raise InputError(
                f"config.isabelle: {executable} does not start ({type(error).__name__}: {error}); try: "
                f"{executable} build -b {_SESSION}"
            ) from error

    def _connect(self, seconds: float):
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline().decode(errors="replace") if ready else ""
        found = _INFO.search(line)
        if not found:
            said = (line + self._complaints.read_text(encoding="utf-8", errors="replace")).strip()[-300:]
            raise ServerError(f"it does not tell its address, but: {said!r}")
        return _import_client().IsabelleClient(found["host"], int(found["port"]), found["password"])

    def check(self, theories: Mapping[str, str], seconds: float) -> dict[str, Node]:
        """Checks theories, all at once.

        Args:
          theories: texts by names; a name is the theory's own.
          seconds: of wall time; then what is not finished is given up.
        Raises:
          ServerError: the server has ended or breaks the protocol.
          TimeoutError: it does not answer in time.
        """
        for name, text in theories.items():
            pathlib.Path(self._folder.name, f"{name}.thy").write_text(text, encoding="utf-8")
        place = {"session_id": self._session, "theories": list(theories), "master_dir": self._folder.name}
        limit = max(1, math.ceil(seconds / _CHECK_DELAY))
        try:
            result = self._ask(
                "use_theories", {**place, "check_delay": _CHECK_DELAY, "check_limit": limit}, seconds + _SLACK
            )
            nodes = {pathlib.PurePath(node["node_name"]).stem: _read_node(node) for node in result["nodes"]}
        except _Failed as error:
            nodes = dict.fromkeys(theories, Node(True, (str(error),)))
        except (KeyError, TypeError, AttributeError) as error:
            raise ServerError(f"its result has another form ({error!r})") from error
        self._ask("purge_theories", place, _SLACK, asynchronous=False)  # what still runs is stopped
        for name in theories:
            pathlib.Path(self._folder.name, f"{name}.thy").unlink()
        return {name: nodes.get(name, Node(False, ())) for name in theories}

    def make_name(self) -> str:
        """A theory's name that was not used before."""
        return f"Proof_{next(self._names)}"

    def _ask(self, command: str, arguments: dict, seconds: float, asynchronous: bool = True) -> dict:
        """The body of the last response."""

        async def execute():
            command_line = f"{command} {json.dumps(arguments)}"
            return await asyncio.wait_for(self._client.execute_command(command_line, asynchronous), seconds)

        try:
            response = asyncio.run(execute())[-1]
        except TimeoutError:
            raise
        except (OSError, EOFError, ValueError, IndexError) as error:
            raise ServerError(f"it ended or speaks otherwise ({type(error).__name__}: {error})") from error
        kind, body = response.response_type.value, response.response_body
        if kind == "ERROR":
            raise ServerError(f"{command}: {body}")
        if kind == "FAILED":
            raise _Failed(body.get("message", "") if isinstance(body, dict) else str(body))
        return body

    def close(self) -> None:
        """Ends the server and all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


class _Failed(ServerError):
    """The server says that a task has failed: of theories, that they cannot even be loaded."""


def _read_node(node: dict) -> Node:
    status, messages = node["status"], node["messages"]
    finished = bool(status["consolidated"]) and not (status["unprocessed"] or status["running"] or status["canceled"])
    errors = tuple(message["message"] for message in messages if message["kind"] == "error")
    if finished and not status["ok"] and not errors:
        errors = ("a command has failed",)
    return Node(finished, errors, tuple(message["message"] for message in messages if message["kind"] != "error"))
