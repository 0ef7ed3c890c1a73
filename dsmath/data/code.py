"""Source code that lies on every disk: Python's own library, as a small corpus of code."""

import os
import pathlib
import random
import sysconfig
from collections.abc import Iterator

_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "ensurepip", "__pycache__"}
_MOST_CHARACTERS = 20_000  # of a file: a few long tables must not own the corpus


def read_code(seed: int) -> Iterator[tuple[str, str]]:
    """The files of Python's library without its tests: name and text, in an order drawn by the seed.

    A longer file is cut: what a corpus needs of it is how code looks.
    """
    folder = pathlib.Path(sysconfig.get_path("stdlib"))
    files = []
    for inner, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _SKIPPED)  # what is installed may lie in the library's folder too
        files += [pathlib.Path(inner, name).relative_to(folder) for name in sorted(names) if name.endswith(".py")]
    random.Random(seed).shuffle(files)
    for file in files:
        text = (folder / file).read_text(encoding="utf-8", errors="replace")[:_MOST_CHARACTERS]
        if text.strip():
            yield file.as_posix(), text
