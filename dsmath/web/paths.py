"""Marked paths: patterns of addresses that people found to hold mathematics, or not to."""

import contextlib
import functools
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterable
from typing import NamedTuple

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json

_PATTERN = re.compile(r"[^\s/?#!]+([/?][^\s#]*)?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)([^?#]*)(\?[^#]*)?")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
# An escape, or what must be one. Letters, digits and "-._~" mean the same escaped and plain. Source: RFC 3986 §2.3
_SPELLED = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~!$&'()+,;=:@/?-]")
_UNRESERVED = re.compile("[A-Za-z0-9._~-]")
_MOST_HOSTS = 100_000  # whose rules are remembered


class Pattern(NamedTuple):
    """A pattern in its normal spelling; make one by `parse_pattern`.

    Attributes:
      address: host and path as `normalise_address` spells them; `*` stands for any characters.
      excludes: whether it was written with a `!`.
    """

    address: str
    excludes: bool

    @property
    def specificity(self) -> int:
        """Characters but for the `*`: of the patterns that match an address the most specific decides."""
        return len(self.address) - self.address.count("*")

    def compile(self) -> re.Pattern:
        """A regular expression whose `fullmatch` takes the normal addresses under this pattern."""
        host, path = _split(self.address)
        return re.compile(_glob(host, "[^/?]") + _path_regex(path), re.DOTALL)

    def __str__(self) -> str:
        return f"{'!' * self.excludes}{self.address}"


def parse_pattern(text: str) -> Pattern:
    """Reads a pattern: `host/path`, with `*` for any characters, `!` before it for an exclusion.

    Raises:
      ValueError: says what is malformed.
    """
    written = text.removeprefix("!")
    if "://" in written:
        raise ValueError(f"pattern {text!r} has a scheme; begin with the host, such as mathoverflow.net/questions")
    if not _PATTERN.fullmatch(written):
        raise ValueError(f"pattern {text!r} is not a host and a path, such as mathoverflow.net/questions")
    host, path = _split(written)
    if not host.replace("*", "").strip(".:"):
        raise ValueError(f"pattern {text!r} names no host and would mark the whole crawl; name one")
    path, mark, query = re.sub(r"\*+", "*", _spell(path, kept="*")).partition("?")
    path = path.rstrip("/") + mark + query
    host = _normalise_host(re.sub(r"\*+", "*", host), kept="*")
    return Pattern(host + ("" if path == "/*" else path), text != written)


def normalise_address(url: str) -> str | None:
    """Host, path and query of a URL in the spelling that patterns are compared with; None where it has no host, or one
    that no pattern can name.

    Scheme, user, default port, fragment and the slashes at the end of the path are left out, the host is in lower
    case, and every escape is spelled alike; a `*` is escaped.
    """
    parts = _URL.match(url)
    if parts is None or not parts[1]:
        return None
    host = _normalise_host(parts[1])
    return host + _normalise_path(parts[2], parts[3]) if host and "!" not in host else None


class MarkedPaths:
    """Says whether an address lies under a marked path.

    A pattern is a host and the beginning of a path, such as `mathoverflow.net/questions`: it matches that path and
    everything below it, on that very host, whatever the scheme. `*` stands for any characters, so that
    `*.example.org/tag/*algebra` is a pattern too. A query is part of the path and ends at an `&`. With `!` before it
    a pattern excludes: the most specific of the matching patterns decides (that with the most characters, `*` not
    counted; among equals one that excludes), so that `!mathoverflow.net/questions/tagged` cuts a part out.

    Args:
      patterns: see above, in any order; an empty list matches nothing.
    Raises:
      ValueError: names the first pattern that is malformed.
    """

    def __init__(self, patterns: Iterable[str]):
        written = {}
        for text in patterns:
            written.setdefault(parse_pattern(text), text)
        self.patterns = list(written.values())
        self._by_host: dict[str, list[Pattern]] = {}
        self._by_many_hosts: list[tuple[re.Pattern, Pattern]] = []
        for pattern in sorted(written, key=lambda pattern: (pattern.specificity, pattern.excludes), reverse=True):
            host, _ = _split(pattern.address)
            if "*" in host:
                self._by_many_hosts.append((re.compile(_glob(host, ".")), pattern))
            else:
                self._by_host.setdefault(host, []).append(pattern)
        self._rules: dict[str, _Rules | None] = {}  # by host as it is written in addresses

    def matches(self, url: str) -> bool:
        """Whether the pattern that decides on the address exists and includes it."""
        pattern = self.find(url)
        return pattern is not None and not pattern.excludes

    def find(self, url: str) -> Pattern | None:
        """The pattern that decides on the address, None where no pattern matches it."""
        parts = _URL.match(url)
        if parts is None:
            return None
        try:
            rules = self._rules[parts[1]]
        except KeyError:
            if len(self._rules) >= _MOST_HOSTS:
                self._rules.clear()
            rules = self._rules[parts[1]] = self._find_rules(_normalise_host(parts[1]))
        return None if rules is None else rules.find(_normalise_path(parts[2], parts[3]))

    def _find_rules(self, host: str) -> "_Rules | None":
        patterns = [*self._by_host.get(host, ())]
        patterns += [pattern for regex, pattern in self._by_many_hosts if regex.fullmatch(host)]
        return _Rules(patterns) if patterns else None


class _Rules:
    """The patterns of one host: plain paths are looked up, the others are one regular expression, in their order."""

    def __init__(self, patterns: list[Pattern]):
        ranked = sorted(((pattern.specificity, pattern.excludes, pattern) for pattern in patterns), reverse=True)
        self._plain: dict[str, tuple[int, bool, Pattern]] = {}
        self._starred: list[tuple[int, bool, Pattern]] = []
        for entry in ranked:
            path = _split(entry[2].address)[1]
            if "*" in path:
                self._starred.append(entry)
            else:
                self._plain.setdefault(path, entry)
        branches = "|".join(f"({_path_regex(_split(pattern.address)[1])})" for _, _, pattern in self._starred)
        self._regex = re.compile(branches, re.DOTALL) if branches else None

    def find(self, path: str) -> Pattern | None:
        plain = self._find_plain(path)
        match = self._regex.fullmatch(path) if self._regex is not None else None
        if match is None:
            return plain and plain[2]
        starred = self._starred[match.lastindex - 1]
        return (starred if plain is None else max(plain, starred))[2]

    def _find_plain(self, path: str) -> tuple[int, bool, Pattern] | None:
        """The longest pattern that equals the path or a beginning of it that ends before a "/", "?" or "&"."""
        plain, query, end = self._plain, path.find("?"), len(path)
        while end:
            if (found := plain.get(path[:end])) is not None:
                return found
            end = max(path.rfind("&", query, end), query) if end > query >= 0 else max(path.rfind("/", 0, end), 0)
        return plain.get("")


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


def _split(address: str) -> tuple[str, str]:
    """The host, and the path with its slash or a query that follows the host at once."""
    end = min((place for place in (address.find("/"), address.find("?")) if place >= 0), default=len(address))
    return address[:end], address[end:]


@functools.lru_cache(maxsize=_MOST_HOSTS)
def _normalise_host(host: str, kept: str = "") -> str:
    host = host.rpartition("@")[2].lower().removesuffix(":80").removesuffix(":443").rstrip(".")
    if not host.isascii():
        with contextlib.suppress(UnicodeError):
            host = host.encode("idna").decode()
    return _spell(host, kept) if _SPELLED.search(host) else host


def _normalise_path(path: str, query: str | None) -> str:
    address = path.rstrip("/")
    if query is not None and len(query) > 1:
        address += query
    return _spell(address) if _SPELLED.search(address) else address


def _spell(text: str, kept: str = "") -> str:
    """Spells every escape alike, and as escapes what must be one, but for the characters in `kept`."""

    def spell(match: re.Match) -> str:
        found = match[0]
        if _ESCAPE.fullmatch(found):
            character = chr(int(found[1:], 16))
            return character if _UNRESERVED.fullmatch(character) else found.upper()
        return found if found in kept else urllib.parse.quote(found, safe="", errors="replace")

    return _SPELLED.sub(spell, text)


def _path_regex(path: str) -> str:
    """The path, then nothing, or what follows it at the end of a part."""
    if path.endswith("*"):
        return _glob(path, ".")
    marks = "&" if "?" in path else "/?&" if "*" in path else "/?"
    return f"{_glob(path, '.')}(?:[{marks}].*)?"


def _glob(text: str, any_character: str) -> str:
    """`*` as a regular expression. Up to the last part the first find will do, so that nothing is tried twice."""
    first, *others = map(re.escape, text.split("*"))
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>{any_character}*?{part})" for part in middle) + f"{any_character}*?{last}"
