"""Starts the template process in bubblewrap: a file system of Python's own files, read-only, and nothing else.

Source: bubblewrap's manual, bwrap(1).
"""

import functools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from importlib import metadata

from dsmath.runs.errors import InputError
from dsmath.sandbox import seccomp
from dsmath.sandbox.session import Session, hear

ISOLATIONS = ("bubblewrap", "none")
PACKAGES = ("numpy", "sympy", "mpmath", "scipy")  # what a solution can import beyond Python's own library
# What most programs use; parts of SymPy are imported when they are first used.
_WARM = """
import collections, decimal, fractions, functools, heapq, itertools, json, math, re, statistics, string, typing
import numpy.linalg, numpy.random
import sympy
x, n = sympy.symbols("x n")
sympy.solve([x + n - 3, x - n - 1], [x, n])
sympy.simplify(sympy.integrate(sympy.sin(x) * x, x) + sympy.factor(sympy.expand((x + 1) ** 3)))
sympy.latex(sympy.solve(x**2 - 2, x)), sympy.N(sympy.pi), sympy.sympify("1/2"), sympy.limit(sympy.sin(x) / x, x, 0)
sympy.summation(n, (n, 1, 10)), sympy.factorint(360), sympy.Matrix([[1, 2], [3, 4]]).det(), sympy.Rational(1, 3)
"""
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_START_SECONDS = 120.0
# One thread: threads are refused. No random hashes: a program gives the same output each time.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
_SCRATCH = "/tmp"


class Jail:
    """A template process and what it needs to fork solutions.

    Args:
      isolation: "bubblewrap"; or "none" for trusted code: limits and refused system calls, but all files can be read.
    Raises:
      InputError: this machine cannot isolate; it says what to install.
    """

    def __init__(self, isolation: str):
        if isolation not in ISOLATIONS:
            raise InputError(f"isolation: {isolation!r} is none of {', '.join(map(repr, ISOLATIONS))}")
        if sys.platform != "linux":
            raise InputError("sandbox: Python of a model runs on Linux alone; run this stage there")
        self._jailed = isolation == "bubblewrap"
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with theirs, tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                _command(self._jailed, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env=_ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
            try:
                self._template_bytes = self._hear_of_size()
            except OSError as error:
                self.close()
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip().splitlines()
                raise InputError(
                    f"sandbox: the jail did not start ({said[-1] if said else error}); bubblewrap needs user "
                    "namespaces: sysctl kernel.unprivileged_userns_clone=1, or where this is a container, its option "
                    "--security-opt seccomp=unconfined"
                ) from error

    def _hear_of_size(self) -> int:
        """Bytes of the template's address space, once it has imported everything."""
        _, process = hear(self._control, _START_SECONDS)
        pages = pathlib.Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[0]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def open(self, memory: int, turns: threading.Semaphore) -> Session:
        """A new solution.

        Args:
          memory: bytes that it may take.
          turns: how many blocks may run at once.
        Raises:
          OSError: the template is gone.
        """
        with self._lock:
            return Session(self._control, memory, self._template_bytes, _SCRATCH if self._jailed else None, turns)

    def close(self) -> None:
        """Ends the template, and in the jail all of its solutions."""
        self._control.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _command(jailed: bool, control: int) -> list[str]:
    folders = _package_folders()
    template = pathlib.Path(__file__).with_name("template.py")
    options = {
        "path": ["/packages"] if jailed else sorted({str(folder.parent) for folder in folders.values()}),
        "warm": _WARM,
        "examiner": pathlib.Path(__file__).with_name("examiner.py").read_text(encoding="utf-8"),
        "namespaces": jailed,
        "filter": seccomp.make_filter().hex(),
    }
    python = [os.path.realpath(sys.executable), "-s", "-S", "-P", "-B"]
    if not jailed:
        return [*python, str(template), str(control), json.dumps(options)]
    binds = []
    for path in dict.fromkeys((sys.base_prefix, *_SYSTEM)):
        if os.path.islink(path):
            binds += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path) and not (path != sys.base_prefix and path.startswith(f"{sys.base_prefix}/")):
            binds += ["--ro-bind", path, path]
    for name, folder in folders.items():
        binds += ["--ro-bind", str(folder), f"/packages/{name}"]
    return [
        *(_find_bubblewrap(), "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000"),
        *("--hostname", "sandbox", "--cap-add", "CAP_SYS_ADMIN"),  # in a user namespace: to mount the scratch folder
        *binds,
        *("--ro-bind", str(template), "/template.py", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--dev-bind", "/dev/null", "/dev/null", "--dir", _SCRATCH, "--remount-ro", "/", "--chdir", "/", "--"),
        *(*python, "/template.py", str(control), json.dumps(options)),
    ]


def _find_bubblewrap() -> str:
    path = shutil.which("bwrap")
    if path is None:
        raise InputError(
            "sandbox: bubblewrap is not installed, and Python that a model wrote must not run without it; install it: "
            'apt-get install bubblewrap (or give isolation="none" where you trust the code)'
        )
    return path


@functools.cache
def _package_folders() -> dict[str, pathlib.Path]:
    """What the packages have installed, by its name."""
    folders = {}
    for package in PACKAGES:
        files = metadata.distribution(package).files or ()
        for name in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not name.endswith((".dist-info", ".egg-info")):
                folders[name] = pathlib.Path(metadata.distribution(package).locate_file(name)).resolve()
    return folders
