"""Marked paths: patterns of addresses that people found to hold mathematics."""

import os
import pathlib
import re
import urllib.parse

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json

_PATTERN = re.compile(r"[^\s/?#]+(/[^\s#]*)?")


class MarkedPaths:
    """Says whether an address lies under a marked path.

    A pattern is a host and the beginning of a path, such as `mathoverflow.net/questions`: it matches that path and
    everything below it, on that very host, whatever the scheme. `*` stands for any characters, so that
    `*.example.org/tag/*algebra` is a pattern too.

    Args:
      patterns: see above; an empty list matches nothing.
    Raises:
      ValueError: names the first pattern that is malformed.
    """

    def __init__(self, patterns: list[str]):
        for pattern in patterns:
            _check(pattern)
        self.patterns = list(patterns)
        branches = "|".join(_regex(pattern) for pattern in self.patterns)
        self._regex = re.compile(branches) if branches else None

    def matches(self, url: str) -> bool:
        """Whether a pattern matches the address."""
        if self._regex is None:
            return False
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError:
            return False
        query = f"?{parts.query}" if parts.query else ""
        return self._regex.fullmatch(f"{parts.netloc.lower()}{parts.path or '/'}{query}") is not None


def read_marked_paths(path: str | os.PathLike) -> MarkedPaths:
    """Reads a JSON list of patterns.

    Raises:
      InputError: the file is absent, is no list of strings, or holds a malformed pattern.
    """
    if not pathlib.Path(path).is_file():
        raise InputError(f"{path}: no such file of marked paths; name one by --config.marked_paths, or none by ''")
    patterns = read_json(path)
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise InputError(f'{path}: must be a JSON list of patterns, such as ["mathoverflow.net/questions"]')
    try:
        return MarkedPaths(patterns)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _check(pattern: str) -> None:
    if "://" in pattern:
        raise ValueError(f"pattern {pattern!r} has a scheme; begin with the host, such as mathoverflow.net/questions")
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(f"pattern {pattern!r} is not a host and a path, such as mathoverflow.net/questions")
    if not pattern.partition("/")[0].replace("*", "").replace(".", ""):
        raise ValueError(f"pattern {pattern!r} names no host and would mark the whole crawl; name one")


def _regex(pattern: str) -> str:
    """The pattern, then nothing, or what follows it at the end of a part of the path."""
    host, _, path = pattern.partition("/")
    host = re.escape(host.lower()).replace(r"\*", "[^/]*")
    path = re.escape(path).replace(r"\*", ".*")
    return f"{host}/{path}" + ("(?:.*)" if not path or path.endswith("/") else "(?:[/?].*)?")
