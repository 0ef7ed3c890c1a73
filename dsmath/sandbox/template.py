"""Runs inside the jail, by Python's own library alone: a process with warm imports that forks for each solution.

It is started as a script: `template.py CONTROL OPTIONS`, a socket's number and JSON. Each message on the socket brings
a request and three files: the solution's socket, its standard output, its standard error. The solution's process has a
scratch folder and process numbers of its own, no capability, and a filter of system calls; it reads blocks of Python
and answers how each ended. Nothing that it says is trusted by the other side.
"""

import ast
import ctypes
import gc
import io
import json
import os
import random
import resource
import signal
import socket
import struct
import sys
import traceback
import types

_NEWNS, _NEWPID = 0x20000, 0x20000000
_READ_ONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 1 << 5, 1 << 12
_RECURSIVE, _PRIVATE = 1 << 14, 1 << 18
_SET_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES, _AMBIENT, _CLEAR_ALL = 22, 2, 38, 47, 4
_CAPABILITIES_VERSION = 0x20080522
_SESSION = 3  # the solution's socket, once it runs
_STREAMS = ((1, 4, "stdout"), (2, 5, "stderr"))  # the second number is for when a block has closed the first
_OPEN_FILES = 64
_CHARACTERS = 10_000  # of a value or an error
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Serves requests until the other side closes the socket; in the jail all solutions end with it."""
    control, options = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    sys.path[:0] = options["path"]
    if options["namespaces"]:
        # bubblewrap binds no device read-only; the host's root would own it inside too, and could change its mode.
        _call("mount", None, b"/dev/null", None, _REMOUNT | _BIND | _READ_ONLY | _NOSUID | _NOEXEC, None)
    exec(options["warm"], {})
    sys.modules["examiner"] = types.ModuleType("examiner")
    exec(compile(options["examiner"], "<examiner>", "exec"), vars(sys.modules["examiner"]))
    gc.collect()
    gc.freeze()  # what is shared stays shared: a collection would write to every object
    control.sendmsg([b"ready"])
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 3)
        if not message:
            return
        _fork_solution(json.loads(message), fds, options)
        for fd in fds:
            os.close(fd)


def _fork_solution(request: dict, fds: list[int], options: dict) -> None:
    """Forks twice: only a child of the one that leaves the old process numbers gets new ones."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    try:
        if options["namespaces"]:
            _call("unshare", _NEWNS | _NEWPID)
        if os.fork() == 0:
            _confine(request, fds, options)
            _serve_blocks()
    except BaseException as error:  # the other side learns of it, and sees the socket close
        socket.socket(fileno=os.dup(fds[0])).sendall(_frame({"broken": repr(error)}))
    finally:
        os._exit(0)


def _confine(request: dict, fds: list[int], options: dict) -> None:
    """Makes this process a solution's; from here on it can do no more than any solution."""
    connection, output, error = (os.dup2(fd, 100 + place) for place, fd in enumerate(fds))
    for old, new in ((output, 1), (error, 2), (connection, _SESSION), (output, 4), (error, 5)):
        os.dup2(old, new)
    os.closerange(6, 1 << 16)
    if options["namespaces"]:
        size = f"size={request['scratch_bytes']},nr_inodes=4096,mode=700".encode()
        _call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
        _call("mount", b"tmpfs", request["scratch"].encode(), b"tmpfs", _NOSUID | _NODEV | _NOEXEC, size)
    os.chdir(request["scratch"])
    for limit, value in (
        (resource.RLIMIT_AS, request["address_bytes"]),
        (resource.RLIMIT_FSIZE, request["file_bytes"]),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    random.seed(0)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(0)
    with socket.socket(fileno=os.dup(_SESSION)) as connection:
        connection.sendmsg([_frame({"ready": True})])  # the kernel adds this process's number
    _call("prctl", _AMBIENT, _CLEAR_ALL, 0, 0, 0)
    _call("capset", struct.pack("Ii", _CAPABILITIES_VERSION, 0), bytes(24))
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    instructions = bytes.fromhex(options["filter"])
    held = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(held))
    _call("prctl", _SET_SECCOMP, _FILTER, program, 0, 0)


def _call(name: str, *arguments) -> None:
    """Calls the C library.

    Raises:
      OSError: it says what failed.
    """
    longs = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if getattr(_LIBC, name)(*longs):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _serve_blocks() -> None:
    """Runs block after block with one state, until the socket closes."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    while (header := _read(4)) and (block := _read(int.from_bytes(header, "big"))) is not None:
        for number, spare, name in _STREAMS:
            os.dup2(spare, number)
            raw = io.FileIO(number, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True))
        reply = _frame(_run(block.decode(errors="replace"), vars(module)))
        signal.setitimer(signal.ITIMER_REAL, 0)
        while reply:
            reply = reply[os.write(_SESSION, reply) :]


def _run(source: str, namespace: dict) -> dict:
    """Runs a block, and says how it ended, with the value of its last line where that is an expression."""
    value = None
    try:
        tree = ast.parse(source, "<block>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<block>", "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<block>", "eval"), namespace)
            value = None if value is None else repr(value)
        return {"kind": "done", "error": None, **_cut("value", value)}
    except SystemExit as error:
        return {"kind": "exited", "value": None, **_cut("error", f"SystemExit: {error}")}
    except BaseException as error:
        kind = "memory" if isinstance(error, MemoryError) else "raised"
        return {"kind": kind, "value": None, **_cut("error", _last_line(error))}


def _last_line(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    except BaseException:  # its text is made by the solution
        return type(error).__name__


def _cut(name: str, text: str | None) -> dict:
    return {name: text and text[:_CHARACTERS], "cut": [name] if text and len(text) > _CHARACTERS else []}


def _frame(message: dict) -> bytes:
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


def _read(count: int) -> bytes | None:
    """So many bytes, None where the socket has closed."""
    data = b""
    while len(data) < count:
        piece = os.read(_SESSION, count - len(data))
        if not piece:
            return None
        data += piece
    return data


if __name__ == "__main__":
    main()
