"""Runs inside the jail, by Python's own library alone: a process with warm imports that forks for each solution.

It is started as a script: `template.py CONTROL OPTIONS`, a socket's number and JSON. Each message on the socket brings
a request and three files: the solution's socket, its standard output, its standard error. The solution's process has a
scratch folder and process numbers of its own, no capability, and a filter of system calls; it reads blocks of Python
and answers how each ended. Nothing that it says is trusted by the other side.

A short program's time goes into copies of memory pages, one for each page that a process writes to for the first time.
So whatever a solution needs is made ready before the fork, and the fork is the kernel's own, without Python's hooks.
"""

import ast
import ctypes
import gc
import io
import json
import os
import random
import resource
import selectors
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
_LIBC = ctypes.PyDLL(None, use_errno=True)  # it keeps the interpreter's lock: there is one thread
_CLONE = 56 if os.uname().machine == "x86_64" else 220
_HUGE, _COLLAPSE = 1 << 21, 25
_READY = b"\0\0\0\4true"
_TRIALS = (
    "import math\nprint(math.comb(5, 2))\nmath.sqrt(16)",
    "def f(n):\n    return n\nprint(sum(map(f, [1, 2.5])))",
    "1/0",
)


def main() -> None:
    """Serves requests until the other side closes the socket; in the jail all solutions end with it."""
    control, options = socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2])
    sys.path[:0] = options["path"]
    if options["namespaces"]:
        # bubblewrap binds no device read-only; the host's root would own it inside too, and could change its mode.
        _call("mount", None, b"/dev/null", None, _REMOUNT | _BIND | _READ_ONLY | _NOSUID | _NOEXEC, None)
        _call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    _call("prctl", _AMBIENT, _CLEAR_ALL, 0, 0, 0)
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # solutions that ended leave nothing to be waited for
    exec(options["warm"], {})
    selectors.DefaultSelector = selectors.PollSelector  # of asyncio; epoll is refused
    sys.modules["examiner"] = types.ModuleType("examiner")
    exec(compile(options["examiner"], "<examiner>", "exec"), vars(sys.modules["examiner"]))
    _warm_up()
    random.seed(0)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(0)
    instructions = bytes.fromhex(options["filter"])
    held = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(held))
    gc.collect()
    _collapse_pages()
    gc.freeze()  # what is shared stays shared: a collection would write to every object
    control.sendmsg([b"ready"])
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 3)
        if not message:
            return
        _fork_solution(json.loads(message), fds, options["namespaces"], program)
        for fd in fds:
            os.close(fd)


def _warm_up() -> None:
    """Runs blocks of trusted code as a solution does: the interpreter's code and caches are then as they will be."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    spared = [os.dup(number) for number, _, _ in _STREAMS]
    for number, _, _ in _STREAMS:
        os.dup2(nowhere, number)
    for _ in range(20):
        for source in _TRIALS:
            _make_streams()
            _frame(_run(source, {}))
    for (number, _, _), old in zip(_STREAMS, spared, strict=True):
        os.dup2(old, number)
        os.close(old)
    os.close(nowhere)
    _make_streams()


def _collapse_pages() -> None:
    """Puts Python's objects into huge pages where the kernel has them: a fork then copies a much shorter page table."""
    for place in {id(thing) // _HUGE for thing in gc.get_objects()}:
        _LIBC.madvise(ctypes.c_void_p(place * _HUGE), ctypes.c_size_t(_HUGE), _COLLAPSE)


def _fork_solution(request: dict, fds: list[int], namespaces: bool, program: bytes) -> None:
    """Forks, into new namespaces at once. Python's hooks would undo the random seed and touch many pages."""
    flags = signal.SIGCHLD | (_NEWNS | _NEWPID if namespaces else 0)
    process = _LIBC.syscall(*map(ctypes.c_long, (_CLONE, flags, 0, 0, 0, 0)))
    if process > 0:
        return
    try:
        if process < 0:
            raise OSError(ctypes.get_errno(), f"clone: {os.strerror(ctypes.get_errno())}")
        _confine(request, fds, namespaces, program)
        _serve_blocks()
    except BaseException as error:  # the other side learns of it, and sees the socket close
        socket.socket(fileno=os.dup(fds[0])).sendall(_frame({"broken": repr(error)}))
    finally:
        if process == 0:
            os._exit(0)


def _confine(request: dict, fds: list[int], namespaces: bool, program: bytes) -> None:
    """Makes this process a solution's; from here on it can do no more than any solution."""
    connection, output, error = (os.dup2(fd, 100 + place) for place, fd in enumerate(fds))
    for old, new in ((output, 1), (error, 2), (connection, _SESSION), (output, 4), (error, 5)):
        os.dup2(old, new)
    os.closerange(6, 1 << 16)
    if namespaces:
        size = f"size={request['scratch_bytes']},nr_inodes=4096,mode=700".encode()
        _call("mount", b"tmpfs", request["scratch"].encode(), b"tmpfs", _NOSUID | _NODEV | _NOEXEC, size)
    os.chdir(request["scratch"])
    for limit, value in (
        (resource.RLIMIT_AS, request["address_bytes"]),
        (resource.RLIMIT_FSIZE, request["file_bytes"]),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    os.write(_SESSION, _READY)  # the kernel adds this process's number
    _call("capset", struct.pack("Ii", _CAPABILITIES_VERSION, 0), bytes(24))
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
        reply = _frame(_run(block.decode(errors="replace"), vars(module)))
        signal.setitimer(signal.ITIMER_REAL, 0)
        while reply:
            reply = reply[os.write(_SESSION, reply) :]
        for number, spare, _ in _STREAMS:
            os.dup2(spare, number)
        _make_streams()


def _make_streams() -> None:
    for number, _, name in _STREAMS:
        raw = io.FileIO(number, "w", closefd=False)
        setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True))


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
