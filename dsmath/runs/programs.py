"""What XLA has compiled, kept for the processes to come."""

import os
import pathlib
import sys
import time

from dsmath.runs import processes

_OPTIONS = {
    "jax_persistent_cache_min_compile_time_secs": 0.1,  # what compiles faster is not kept
    "jax_compilation_cache_max_size": 4 * 2**30,  # bytes of all programs; the least recently used goes first
}
_MAX_AGE = 30 * 24 * 3600  # seconds since a program was last used; JAX looks at all of them whenever it keeps one


def keep_programs() -> None:
    """Has JAX keep what it compiles in the user's cache folder, and take from there what is compiled already.

    JAX's own variables come first: `JAX_COMPILATION_CACHE_DIR` names another folder, or none where it is empty. A run
    of many processes keeps nothing by itself, since only a folder that all of them see would serve it. Nothing is kept
    either where the folder cannot be written, and where JAX is not imported, which a driver that computes has done.
    """
    if "jax" not in sys.modules or processes.count() > 1:
        return
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(root) / "dsmath" / "programs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can write there can run code here
        for name, value in _OPTIONS.items():
            if name.upper() not in os.environ:
                jax.config.update(name, value)
        if jax.config.jax_compilation_cache_max_size != -1:  # else JAX writes no times of use
            _tidy(folder)
    except (ImportError, OSError, RuntimeError):  # no filelock, no folder, no home: programs are compiled again
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _tidy(folder: pathlib.Path) -> None:
    """Removes what has not been used for long, and what a kill has cut.

    JAX writes a program in place and then the time of its use: one without a time may be cut, and JAX would neither
    read it nor write it anew.
    """
    import filelock  # JAX needs it too where the size is limited

    with filelock.FileLock(folder / ".lockfile", timeout=10):  # JAX's own: no other process writes meanwhile
        for program in folder.glob("*-cache"):
            used = program.with_name(f"{program.name.removesuffix('-cache')}-atime")
            if not used.exists() or time.time() - used.stat().st_mtime > _MAX_AGE:
                program.unlink()
                used.unlink(missing_ok=True)
