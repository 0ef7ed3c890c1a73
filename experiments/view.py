"""The page over a folder of runs: their lineage, curves, configs, samples and reports, live while runs go.

python -m experiments.view --workdir=runs

It only reads: runs need not know of it, and it may be started and ended at any time.
"""

import pathlib

from absl import flags

from dsmath.runs import driver, pages
from dsmath.runs.errors import InputError
from dsmath.view.app import make_app
from dsmath.view.files import Folder

_WORKDIR = flags.DEFINE_string("workdir", None, "folder that holds workdirs, at any depth; links are not followed")
_PORT = flags.DEFINE_integer("port", 8081, "port on 127.0.0.1; 0 takes a free one", 0, 65535)
flags.mark_flag_as_required("workdir")


def start() -> None:
    """Serves the page until it is interrupted."""
    root = pathlib.Path(_WORKDIR.value)
    if not _WORKDIR.value or not root.is_dir():
        raise InputError(f"--workdir={_WORKDIR.value}: no such folder; name one that holds runs")
    with pages.listen(_PORT.value) as listener:
        app = make_app(Folder(root))
        print(f"view: http://{pages.HOST}:{listener.getsockname()[1]}/  (Ctrl-C ends)", flush=True)
        pages.serve(app, listener)


if __name__ == "__main__":
    driver.run_program("view", start)
