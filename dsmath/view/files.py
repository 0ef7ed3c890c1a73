"""Files below one folder, read without following links; what lies there is not trusted."""

import os
import pathlib
import stat
from typing import BinaryIO

MOST_JSON = 4 * 2**20  # bytes of a record such as config.json
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe must not wait for its writer


class Broken(ValueError):
    """A file that cannot be read as what it should be; the message names it."""


class Folder:
    """A folder, and what lies below it.

    Args:
      path: the folder; it may be reached through links itself.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).resolve()

    def open(self, name: str) -> BinaryIO:
        """Opens a regular file below the folder.

        Args:
          name: relative, with slashes.
        Raises:
          LookupError: there is no such file, or the name leads out of the folder or through a link.
        """
        parts = name.split("/")
        if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise LookupError(f"no file {name!r} here")
        opened = []
        try:
            opened.append(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY))
            for part in parts[:-1]:
                opened.append(os.open(part, _FOLDER, dir_fd=opened[-1]))
            file = os.open(parts[-1], _FILE, dir_fd=opened[-1])
        except OSError as error:
            raise LookupError(f"no file {name!r} here ({error.strerror.lower()})") from error
        finally:
            for descriptor in opened:
                os.close(descriptor)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise LookupError(f"no file {name!r} here (not a regular file)")
        return os.fdopen(file, "rb")

    def read(self, name: str, most: int = MOST_JSON) -> bytes:
        """Reads a file of at most `most` bytes.

        Raises:
          LookupError: as `open`.
          Broken: the file is larger.
        """
        with self.open(name) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise Broken(f"{name}: larger than {most >> 20} MiB, not read")
        return content

    def read_end(self, name: str, most: int) -> str:
        """The last `most` bytes of a text file.

        Raises:
          LookupError: as `open`.
        """
        with self.open(name) as file:
            file.seek(max(os.fstat(file.fileno()).st_size - most, 0))
            return file.read(most).decode(errors="replace")
