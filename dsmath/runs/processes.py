"""The processes of one run, one for each host or device: who is first, what they agree on, how they end together.

JAX is imported only where a run of many processes begins: stages without it never pay for it.
"""

import atexit
import contextlib
import itertools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from dsmath.runs.errors import InputError

_FAILURE = "dsmath/failure"
_POLL_SECONDS = 1.0  # between two looks whether another process has failed
_LAST_SECONDS = 5.0  # that a process which ends with an error gives the others to hear of it
_WAIT_MS = 7 * 24 * 3600 * 1000  # at a barrier: tokenizing a corpus takes long; a process that dies ends the wait
_ended = threading.Event()  # this process needs to hear of no other one any more
_numbers = itertools.count()  # names of what is exchanged: all processes exchange the same things in the same order


def start(coordinator: str | None, num_processes: int | None, process_id: int | None, detect: bool) -> None:
    """Joins the run's other processes, or does nothing where no argument asks for it.

    Args:
      coordinator: HOST:PORT of process 0, which the others can reach.
      num_processes: of the run.
      process_id: this one's number.
      detect: takes what is not given from the cluster: Slurm, GKE, Cloud TPU, Open MPI, as JAX knows them.
    Raises:
      InputError: arguments that do not fit together, or a cluster that cannot be told.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if not detect and len(missing) == len(given):
        return
    if not detect and missing:
        raise InputError(f"{missing[0]}: is missing; give {', '.join(given)} together, or --distributed")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise InputError(f"--process_id: {process_id} is not between 0 and --num_processes={num_processes} less one")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator={coordinator}: has no port; give HOST:PORT of process 0")
    import jax

    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, cluster_detection_method=None if detect else "deactivate"
        )
    except (ValueError, RuntimeError) as error:
        message = str(error).strip().splitlines()[0]
        raise InputError(f"--distributed: JAX cannot tell this cluster ({message}); give {', '.join(given)}") from error
    _watch_others()


def index() -> int:
    """The number of this process."""
    return _state().process_id if _state() else 0


def count() -> int:
    """How many processes the run has."""
    return _state().num_processes if _state() else 1


def is_main() -> bool:
    """Whether this is process 0, which alone writes the workdir and tells people what goes on."""
    return index() == 0


def barrier() -> None:
    """Waits until every process is here. It needs no device."""
    if count() > 1:
        _state().client.wait_at_barrier(f"dsmath/barrier/{next(_numbers)}", _WAIT_MS)


def broadcast(value: Any) -> Any:
    """Gives what process 0 gives to all processes; the others wait for it. It needs no device.

    Args:
      value: JSON; that of the other processes is not looked at.
    """
    if count() == 1:
        return value
    key = f"dsmath/broadcast/{next(_numbers)}"
    client = _state().client
    if is_main():
        client.key_value_set(key, json.dumps(value))
    found = json.loads(client.blocking_key_value_get(key, _WAIT_MS))
    barrier()
    if is_main():  # it stays in the memory of process 0 otherwise
        client.key_value_delete(key)
    return found


def gather(value: Any) -> list[Any]:
    """What every process gives, by its number. It goes over the devices, as much of it as there may be.

    Args:
      value: JSON.
    """
    if count() == 1:
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(data.size)).reshape(-1)
    room = 1 << int(sizes.max()).bit_length()  # few lengths, so few programs
    padded = np.pad(data, (0, room - data.size))
    rows = multihost_utils.process_allgather(padded)  # [processes, bytes]
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Process 0 goes through the block while the others wait; then they, who find what it has written."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def fail(line: str | None, status: int) -> None:
    """Ends all processes of the run with this line and status; the traceback is told where there is no line.

    Raises:
      SystemExit: in a run of one process.
    """
    _ended.set()
    if line is None:
        traceback.print_exc()
    _tell(line)
    if count() == 1:
        sys.exit(status)
    other = line or f"error: process {index()} failed; its output says why, and the same line resumes the run"
    with contextlib.suppress(Exception):  # process 0 may be gone, and with it who would hear
        _state().client.key_value_set(_FAILURE, json.dumps([other, status]))
    _leave(status)


def _leave(status: int) -> None:
    """Ends this process at once: in an orderly exit JAX would wait for the others, who wait for this one."""
    with contextlib.suppress(Exception):
        _state().client.wait_at_barrier(f"{_FAILURE}/heard", int(_LAST_SECONDS * 1000))
    sys.stdout.flush()
    sys.stderr.flush()
    if is_main():
        time.sleep(0.5)  # the others' connections to it must not break before they have ended
    os._exit(status)


def _watch_others() -> None:
    """Ends this process when another one has failed, whatever this one waits for."""

    def watch() -> None:
        while not _ended.wait(_POLL_SECONDS):
            try:
                line, status = json.loads(_state().client.key_value_try_get(_FAILURE))
            except Exception:  # it is not there
                continue
            _tell(line)
            _leave(status)

    thread = threading.Thread(target=watch, name="other processes", daemon=True)
    thread.start()
    atexit.register(lambda: (_ended.set(), thread.join()))  # before JAX leaves the others


def _tell(line: str | None) -> None:
    if line is not None:
        print(line, file=sys.stderr, flush=True)


def _state() -> Any:
    """JAX's own record of the run, None where there is no other process. It has no public name."""
    if "jax" not in sys.modules:
        return None
    from jax._src import distributed

    return distributed.global_state if distributed.global_state.client else None
