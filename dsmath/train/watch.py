"""Watches over a loop from beside it: a heartbeat, a report of a hang, the signal that ends it, profiles on demand."""

import faulthandler
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils

from dsmath.runs import processes
from dsmath.runs.workdir import write_json

HEARTBEAT, PROFILE = "heartbeat.json", "profile"


class Watch:
    """A context manager around a training loop, in each of its processes.

    SIGTERM asks the loop to save and end, see `preempted`. SIGUSR1 asks for a profile of the next steps; it lies in
    the workdir's `profile/`, for TensorBoard. Where no step ends for `hang_seconds`, the stacks of all threads go to
    `hang-PROCESS.txt`; nothing is killed.

    Args:
      workdir: the stage's folder.
      hang_seconds: longer than the longest step, compiling included.
      profile: `config.profile`: first_step (0 for none), num_steps.
    """

    def __init__(self, workdir: str | os.PathLike, hang_seconds: float, profile: Mapping[str, int]):
        self._workdir, self._hang_seconds, self._profile = pathlib.Path(workdir), hang_seconds, profile
        self._terminated = self._profile_asked = False
        self._last_profiled: int | None = None
        self._beat = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_for_hangs, name="watch", daemon=True)
        self._handlers: dict[int, Any] = {}

    def begin(self, step: int) -> None:
        """Call it before each step."""
        planned = step == self._profile["first_step"] and processes.is_main()
        if self._last_profiled is None and (planned or self._profile_asked):
            self._profile_asked, self._last_profiled = False, step + self._profile["num_steps"] - 1
            jax.profiler.start_trace(str(self._workdir / PROFILE))

    def end(self, step: int, metrics: Any) -> None:
        """Call it after each step, which may still run on the devices, with what it returns."""
        if step == self._last_profiled:
            jax.block_until_ready(metrics)
            self._end_profile()
        self._beat = time.monotonic()

    def log(self, step: int) -> None:
        """Writes the heartbeat; call it where metrics are written."""
        if processes.is_main():
            write_json(self._workdir / HEARTBEAT, {"step": step, "time": time.time(), "host": socket.gethostname()})

    def preempted(self, step: int) -> bool:
        """Whether the loop must save this step and end; the same in all processes, which call it at every step."""
        if jax.distributed.is_initialized():  # its own handler has the signal, and has all processes agree on a step
            return multihost_utils.reached_preemption_sync_point(step)
        return self._terminated

    def __enter__(self) -> "Watch":
        if threading.current_thread() is threading.main_thread():  # no other one may set a handler
            wanted = {signal.SIGUSR1: self._ask_for_profile}
            if not jax.distributed.is_initialized():
                wanted[signal.SIGTERM] = self._terminate
            self._handlers = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._last_profiled is not None:
            self._end_profile()
        self._ended.set()
        self._thread.join()

    def _terminate(self, *_) -> None:
        self._terminated = True

    def _ask_for_profile(self, *_) -> None:
        self._profile_asked = True

    def _end_profile(self) -> None:
        self._last_profiled = None
        jax.profiler.stop_trace()
        print(f"profile: tensorboard --logdir={self._workdir / PROFILE}", file=sys.stderr)

    def _look_for_hangs(self) -> None:
        told = None
        while not self._ended.wait(min(self._hang_seconds / 4, 10.0)):
            beat = self._beat
            if beat != told and time.monotonic() - beat > self._hang_seconds:
                told = beat  # once a hang
                path = self._workdir / f"hang-{processes.index()}.txt"
                with open(path, "w") as file:
                    faulthandler.dump_traceback(file, all_threads=True)
                print(
                    f"process {processes.index()}: no step has ended for config.guards.hang_seconds="
                    f"{self._hang_seconds:g} s; where its threads stand: {path}",
                    file=sys.stderr,
                    flush=True,
                )
