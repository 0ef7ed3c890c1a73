"""The outer side of one solution: it sends blocks, waits no longer than it must, and believes nothing."""

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import socket
import struct
import tempfile
import threading
import time

from dsmath.runs.errors import InputError

STREAM_BYTES = 1 << 20  # of each standard stream, and of each file that a solution writes
_SCRATCH_BYTES = 64 << 20
_REPLY_BYTES = 1 << 20
_START_SECONDS = 30.0
_CREDENTIALS = struct.Struct("3i")  # process, user, group
_KINDS = ("done", "raised", "exited", "memory")


@dataclasses.dataclass(frozen=True)
class Result:
    """How a block of Python ended, by its own account: a block can lie about itself, and about nothing else.

    Attributes:
      kind: "done", "raised", "exited" (`SystemExit`), "memory" (`MemoryError`), "timeout", or "died" (killed by the
        kernel, `os._exit`, or nonsense on the channel); after the last two the solution's state is lost.
      stdout, stderr: what was written there, also by a block that died.
      error: the last line of the exception; a sentence for "timeout" and "died"; None for "done".
      value: of the last line where it is an expression whose value is not None, as `repr` gives it.
      seconds: of wall time.
      truncated: the names of the fields above that were cut.
    """

    kind: str
    stdout: str
    stderr: str
    error: str | None
    value: str | None
    seconds: float
    truncated: tuple[str, ...]


class Session:
    """A solution: blocks of Python run one after another with one state. To be used by one thread at a time.

    Args:
      control: the socket to the template process; the caller holds its lock.
      memory: bytes that the solution may take beyond what the template has.
      template_bytes: the template's address space.
      scratch: the scratch folder's path inside; None for a folder of its own outside any jail.
      turns: how many blocks may run at once.
    Raises:
      OSError: the template is gone.
      InputError: it cannot confine a process on this machine.
    """

    def __init__(
        self,
        control: socket.socket,
        memory: int,
        template_bytes: int,
        scratch: str | None,
        turns: threading.Semaphore,
    ):
        self._turns = turns
        self._folder = None if scratch else tempfile.TemporaryDirectory(prefix="dsmath-sandbox-")
        self._streams = [_make_stream(name) for name in ("stdout", "stderr")]
        self._socket, theirs = socket.socketpair()
        self._process = None
        request = {
            "address_bytes": template_bytes + memory,
            "file_bytes": STREAM_BYTES,
            "scratch": scratch or self._folder.name,
            "scratch_bytes": _SCRATCH_BYTES,
        }
        try:
            with theirs:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                socket.send_fds(control, [json.dumps(request).encode()], [theirs.fileno(), *self._streams])
            self._process = os.pidfd_open(self._hear_of_process())
        except BaseException:
            self.close()
            raise

    def _hear_of_process(self) -> int:
        """Its number, which the kernel vouches for: before it runs anything, the process tells that it is ready."""
        data, process = hear(self._socket, _START_SECONDS)
        reply = json.loads(data[4:])
        if reply is not True:
            raise InputError(f"sandbox: this machine cannot confine a process ({reply['broken']})")
        return process

    @property
    def alive(self) -> bool:
        """Whether another block can run."""
        return self._process is not None

    def run(self, code: str, timeout: float) -> Result:
        """Runs a block after those before it; waits for its turn first.

        Args:
          code: Python.
          timeout: seconds of wall time; then the solution is killed.
        """
        if not self.alive:
            raise ValueError("the solution has ended; open another session")
        with self._turns:
            for stream in self._streams:
                os.ftruncate(stream, 0)
                os.lseek(stream, 0, os.SEEK_SET)
            began = time.monotonic()
            reply, kind, error = None, "died", "the process ended"
            try:
                reply = self._ask(code.encode(errors="replace"), began + timeout)
                kind, error = reply["kind"], reply["error"]
            except TimeoutError:
                kind, error = "timeout", f"TimeoutError: no end within {timeout:g} s"
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                pass
            seconds = time.monotonic() - began
            self._pause() if reply else self._kill()
        streams = {name: _read_stream(fd) for name, fd in zip(("stdout", "stderr"), self._streams, strict=True)}
        cut = [name for name, (_, whole) in streams.items() if not whole] + (reply["cut"] if reply else [])
        value = reply["value"] if reply else None
        return Result(kind, streams["stdout"][0], streams["stderr"][0], error, value, seconds, tuple(cut))

    def _ask(self, code: bytes, deadline: float) -> dict:
        if _is_readable(self._socket.fileno(), 0):
            raise ValueError("it spoke without being asked")
        signal.pidfd_send_signal(self._process, signal.SIGCONT)
        self._wait(deadline)
        self._socket.sendall(len(code).to_bytes(4, "big") + code)
        length = int.from_bytes(self._receive(4, deadline), "big")
        if length > _REPLY_BYTES:
            raise ValueError("its reply is too long")
        return _check(json.loads(self._receive(length, deadline)))

    def _receive(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._wait(deadline)
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return bytes(data)

    def _wait(self, deadline: float) -> None:
        """Sets how long the next call on the socket may take."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _pause(self) -> None:
        """Stops it between blocks: whatever it left behind takes no time."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGSTOP)

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            _is_readable(self._process, 1.0)  # it is gone then, and its files with it
            os.close(self._process)
            self._process = None
        self._socket.close()

    def close(self) -> None:
        """Kills the solution; its files go with it."""
        self._kill()
        while self._streams:
            os.close(self._streams.pop())
        if self._folder:
            self._folder.cleanup()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __del__(self):
        if getattr(self, "_streams", None):
            self.close()


def hear(connection: socket.socket, seconds: float) -> tuple[bytes, int]:
    """A message of a trusted process, and the process's number, which the kernel adds; the socket has SO_PASSCRED.

    Raises:
      OSError: nothing came, or the other side has closed.
    """
    connection.settimeout(seconds)
    data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(_CREDENTIALS.size))
    connection.settimeout(None)
    if not data:
        raise ConnectionResetError("it ended at once")
    return data, _CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])[0]


def _is_readable(file: int, seconds: float) -> bool:
    """Whether there is something to read, or a process has ended, within so many seconds."""
    poll = select.poll()  # select.select knows no number above 1023
    poll.register(file, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _make_stream(name: str) -> int:
    """A file in memory that is written at its end."""
    stream = os.memfd_create(name)
    fcntl.fcntl(stream, fcntl.F_SETFL, os.O_APPEND)
    return stream


def _read_stream(stream: int) -> tuple[str, bool]:
    """The text, and whether it is whole."""
    data = os.pread(stream, STREAM_BYTES, 0)
    return data.decode(errors="replace"), os.fstat(stream).st_size < STREAM_BYTES


def _check(reply: object) -> dict:
    """Refuses a reply that the template does not write."""
    if not isinstance(reply, dict) or reply.keys() != {"kind", "error", "value", "cut"}:
        raise ValueError("it has other fields")
    texts = all(isinstance(reply[name], str | None) for name in ("error", "value"))
    if not texts or reply["kind"] not in _KINDS or reply["cut"] not in ([], ["error"], ["value"]):
        raise ValueError("its fields hold something else")
    return reply
