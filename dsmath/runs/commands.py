"""Commands of stages: which overrides a config needs, and processes that die with the one that started them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Any

LARGE_PAGES = "glibc.malloc.hugetlb=1"


def stage_command(stage: str, preset: str, workdir: str | os.PathLike, overrides: Mapping[str, Any]) -> list[str]:
    """The command line of one stage.

    Args:
      stage: its name.
      preset: of its config.
      workdir: where it writes.
      overrides: values by the field's dotted name.
    """
    return [
        sys.executable,
        "-m",
        f"experiments.{stage}",
        f"--config=configs/{stage}.py:{preset}",
        f"--workdir={workdir}",
        *(f"--config.{field}={value}" for field, value in overrides.items()),
    ]


def differences(default: Mapping[str, Any], chosen: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields, dotted, whose chosen value is not the default."""
    if prefix and default.keys() != chosen.keys():  # a mapping whose keys are the user's, such as corpora
        return {prefix[:-1]: dict(chosen)}
    found = {}
    for name, value in chosen.items():
        if isinstance(value, Mapping):
            found |= differences(default[name], value, f"{prefix}{name}.")
        elif value != default[name]:
            found[f"{prefix}{name}"] = value
    return found


def start(
    command: list[str], cores: Collection[int] = (), env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen:
    """Starts a command that dies with this process: what comes after it would work in its folder too.

    Linux ends it with the thread that started it, so start it in the main thread. It gets large pages from glibc where
    the environment says nothing else: on a CPU, XLA asks for its temporaries anew in every step.

    Args:
      command: the words of the command line.
      cores: it runs on these alone; none: on all. Linux only.
      env: its environment; None: this process's.
      options: others of `subprocess.Popen`.
    """
    parent = os.getpid()

    def prepare() -> None:
        if sys.platform == "linux":
            pr_set_pdeathsig = 1
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
            if os.getppid() != parent:  # it died before this was said
                os._exit(1)
            if cores:
                os.sched_setaffinity(0, cores)

    env = {"GLIBC_TUNABLES": LARGE_PAGES, **(os.environ if env is None else env)}
    return subprocess.Popen(command, preexec_fn=prepare, env=env, **options)
