"""The page over a folder of runs: their lineage, curves, configs, samples and reports, live while runs go.

python -m experiments.view --workdir=runs

It only reads: runs need not know of it, and it may be started and ended at any time.
"""

import contextlib
import errno
import pathlib
import socket

import uvicorn
from absl import flags

from dsmath.runs import driver
from dsmath.runs.errors import InputError
from dsmath.view.app import make_app
from dsmath.view.files import Folder

_HOST = "127.0.0.1"  # this machine alone; from elsewhere: ssh -L 8081:127.0.0.1:8081 MACHINE

_WORKDIR = flags.DEFINE_string("workdir", None, "folder that holds workdirs, at any depth; links are not followed")
_PORT = flags.DEFINE_integer("port", 8081, "port on 127.0.0.1; 0 takes a free one", 0, 65535)
flags.mark_flag_as_required("workdir")


def start() -> None:
    """Serves the page until it is interrupted."""
    root = pathlib.Path(_WORKDIR.value)
    if not _WORKDIR.value or not root.is_dir():
        raise InputError(f"--workdir={_WORKDIR.value}: no such folder; name one that holds runs")
    with _listen(_PORT.value) as listener:
        app = make_app(Folder(root))
        print(f"view: http://{_HOST}:{listener.getsockname()[1]}/  (Ctrl-C ends)", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when it has ended
            uvicorn.Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise InputError(f"--port={port}: {error.strerror.lower()}; name another, or 0 for a free one") from error


if __name__ == "__main__":
    driver.run_program("view", start)
