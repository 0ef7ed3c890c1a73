"""Pages for the people at this machine: where they listen, and until when they are served."""

import contextlib
import errno
import socket
from typing import Any

import uvicorn

from dsmath.runs.errors import InputError

HOST = "127.0.0.1"  # this machine alone; from elsewhere: ssh -L PORT:127.0.0.1:PORT MACHINE


def listen(port: int) -> socket.socket:
    """Takes a port of this machine; 0 takes a free one.

    Raises:
      InputError: it cannot be had.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise InputError(f"--port={port}: {error.strerror.lower()}; name another, or 0 for a free one") from error


def serve(app: Any, listener: socket.socket) -> None:
    """Serves an ASGI application until it is interrupted."""
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when it has ended
        uvicorn.Server(config).run(sockets=[listener])
