"""Compiled programs are kept for the next process; a kill in the middle of a save costs one compilation."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

_DRIVER = """
import jax
from dsmath.runs.programs import keep_programs

keep_programs()
jax.monitoring.register_event_listener(lambda event, **_: print(event.rpartition("/")[2]))
print(float(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((4, 4)))))
"""
_VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE")


@pytest.fixture
def compute(tmp_path):
    """(variables) -> the events of JAX in a process that computes."""

    def run(**variables: str) -> list[str]:
        kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
        # The tests' program takes no time to compile
        kept |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "XDG_CACHE_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", _DRIVER], env=kept | variables, capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "64.0", done.stderr
        return done.stdout.splitlines()

    return run


def programs(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*-cache")}


def test_a_program_is_compiled_once_in_a_months_use(compute, tmp_path):
    folder = tmp_path / "dsmath" / "programs"
    assert "cache_misses" in compute()
    kept = programs(folder)
    assert kept and folder.stat().st_mode & 0o077 == 0  # who writes there runs code here
    events = compute()
    assert "cache_hits" in events and "cache_misses" not in events

    cut, *others = sorted(kept)
    (folder / cut).write_bytes(kept[cut][:100])  # killed while it was written
    (folder / cut.replace("-cache", "-atime")).unlink()
    for other in others:
        os.utime(folder / other.replace("-cache", "-atime"), (0, time.time() - 40 * 24 * 3600))
    assert compute().count("cache_misses") == len(kept)
    assert programs(folder).keys() == kept.keys()
    assert "cache_misses" not in compute()


def test_what_the_user_says_of_the_folder_holds(compute, tmp_path):
    compute(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert programs(tmp_path / "mine") and not (tmp_path / "dsmath").exists()
    assert "cache_hits" not in compute(JAX_COMPILATION_CACHE_DIR="")
    assert not (tmp_path / "dsmath").exists()


def test_programs_without_a_limit_to_their_size_are_kept_too(compute):
    compute(JAX_COMPILATION_CACHE_MAX_SIZE="-1")
    assert "cache_misses" not in compute(JAX_COMPILATION_CACHE_MAX_SIZE="-1")


def test_a_home_that_cannot_be_written_costs_only_time(compute, tmp_path):
    (tmp_path / "file").touch()
    compute(XDG_CACHE_HOME=str(tmp_path / "file"))
