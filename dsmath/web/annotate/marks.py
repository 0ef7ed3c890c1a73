"""The store of marks: every mark and every undo is a line that stays, in SQLite, on disk before it is answered."""

import dataclasses
import datetime
import os
import sqlite3
import threading
from collections.abc import Iterable
from typing import Any

from dsmath.runs.errors import InputError
from dsmath.web.paths import Pattern, parse_pattern

VERDICTS = ("math", "not math", "unsure")
_UNDO = "undo"
_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time TEXT NOT NULL,
  user TEXT NOT NULL,
  round INTEGER NOT NULL,
  domain TEXT NOT NULL,
  pattern TEXT NOT NULL,
  verdict TEXT NOT NULL,
  note TEXT NOT NULL,
  suggested INTEGER NOT NULL,
  undoes INTEGER UNIQUE REFERENCES events (id)
);
CREATE INDEX IF NOT EXISTS by_pattern ON events (domain, pattern);
CREATE TABLE IF NOT EXISTS effects (
  domain TEXT PRIMARY KEY,
  round INTEGER NOT NULL,
  event INTEGER NOT NULL,
  effect TEXT NOT NULL
);
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclasses.dataclass(frozen=True)
class Event:
    """A mark, or the undo of one.

    Attributes:
      id: grows with time.
      time: UTC, ISO 8601.
      user: who.
      round: of the offers that the person saw.
      domain, pattern: what was marked; the pattern has no `!`.
      verdict: one of `VERDICTS`, or "undo".
      note: why, in the person's words; may be empty.
      suggested: whether the mark accepts a suggestion of the scores.
      undoes: the id of the mark that an undo takes back, else None.
      undone_by: who took the mark back, else None.
    """

    id: int
    time: str
    user: str
    round: int
    domain: str
    pattern: str
    verdict: str
    note: str
    suggested: bool
    undoes: int | None
    undone_by: str | None


@dataclasses.dataclass(frozen=True)
class Mark:
    """The mark that stands on a pattern: the last that was not undone.

    Attributes:
      event: it.
      others: the last standing marks of other people on the same pattern whose verdict differs.
    """

    event: Event
    others: tuple[Event, ...]

    @property
    def pattern(self) -> Pattern:
        """As it is exported: all but "math" excludes, so that an unsure path is not taken with the one above it."""
        return parse_pattern(self.event.pattern)._replace(excludes=self.event.verdict != "math")


class Marks:
    """Opens or makes the store. Several threads and processes may use one file.

    Args:
      path: such as `marks.sqlite`.
    Raises:
      InputError: the file is no store of marks, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike):
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")  # a mark is on the disk when it is answered
            if self._version() == 0 and not self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._database.executescript(_SCHEMA)
            version = self._version()
        except sqlite3.Error as error:
            raise InputError(f"{path}: no store of marks ({error}); move the file away, or mend its folder") from error
        if version != _VERSION:
            raise InputError(f"{path}: a store of version {version}, not {_VERSION}; move the file away")

    def add(
        self, *, domain: str, pattern: str, verdict: str, user: str, round_number: int, note: str = "",
        suggested: bool = False,
    ) -> int:  # fmt: skip
        """Writes a mark to the disk.

        Returns:
          Its id.
        """
        values = (_now(), user, round_number, domain, pattern, verdict, note, suggested)
        return self._insert("time, user, round, domain, pattern, verdict, note, suggested", values)

    def undo(self, event_id: int, user: str, round_number: int) -> Event:
        """Takes a mark back; the one before it, if any, stands again.

        Returns:
          The mark that was taken back.
        Raises:
          LookupError: there is no such mark, or it is undone already.
        """
        found = self._select("e.id = ? AND e.undoes IS NULL", [event_id])
        if not found:
            raise LookupError(f"no mark {event_id}")
        event = found[0]
        values = (_now(), user, round_number, event.domain, event.pattern, _UNDO, "", False, event_id)
        try:
            self._insert("time, user, round, domain, pattern, verdict, note, suggested, undoes", values)
        except sqlite3.IntegrityError as error:
            raise LookupError(f"the mark of {event.pattern} was undone already") from error
        return event

    def last_of(self, user: str) -> Event | None:
        """The user's own last mark that was not undone."""
        events = self._select("e.user = ? AND e.undoes IS NULL AND u.id IS NULL", [user], "e.id DESC LIMIT 1")
        return events[0] if events else None

    def standing(self, domain: str | None = None) -> list[Mark]:
        """The marks that stand, of one domain or of all, by pattern."""
        condition = "e.undoes IS NULL AND u.id IS NULL" + ("" if domain is None else " AND e.domain = ?")
        by_pattern: dict[tuple[str, str], list[Event]] = {}
        for event in self._select(condition, [] if domain is None else [domain]):
            by_pattern.setdefault((event.domain, event.pattern), []).append(event)
        return [_stand(events) for _, events in sorted(by_pattern.items())]

    def history(self, domain: str, pattern: str) -> list[Event]:
        """What was done to a pattern, newest first."""
        return self._select("e.domain = ? AND e.pattern = ?", [domain, pattern], "e.id DESC")

    def since(self, event_id: int) -> list[Event]:
        """What was done after an event, oldest first."""
        return self._select("e.id > ?", [event_id])

    def last_id(self, domain: str | None = None) -> int:
        """The id of the newest event, of one domain or of all; 0 where there is none."""
        condition, values = ("", ()) if domain is None else (" WHERE domain = ?", (domain,))
        with self._lock:
            return self._database.execute(f"SELECT coalesce(max(id), 0) FROM events{condition}", values).fetchone()[0]

    def read_effects(self) -> dict[str, tuple[int, int, str]]:
        """What `keep_effect` kept, by domain: round, event, effect."""
        with self._lock:
            rows = self._database.execute("SELECT domain, round, event, effect FROM effects").fetchall()
        return {domain: (round_number, event, effect) for domain, round_number, event, effect in rows}

    def keep_effect(self, domain: str, round_number: int, event: int, effect: str) -> None:
        """Remembers what the marks of a domain up to an event do to its pages, so that it need not be counted again."""
        with self._lock:
            self._database.execute("REPLACE INTO effects VALUES (?, ?, ?, ?)", (domain, round_number, event, effect))

    def _version(self) -> int:
        return self._database.execute("PRAGMA user_version").fetchone()[0]

    def _insert(self, columns: str, values: Iterable[Any]) -> int:
        values = tuple(values)
        places = ", ".join("?" * len(values))
        with self._lock:
            return self._database.execute(f"INSERT INTO events ({columns}) VALUES ({places})", values).lastrowid

    def _select(self, condition: str, values: list[Any], order: str = "e.id") -> list[Event]:
        query = (
            "SELECT e.id, e.time, e.user, e.round, e.domain, e.pattern, e.verdict, e.note, e.suggested, e.undoes,"
            f" u.user FROM events e LEFT JOIN events u ON u.undoes = e.id WHERE {condition} ORDER BY {order}"
        )
        with self._lock:
            rows = self._database.execute(query, values).fetchall()
        return [Event(*row[:8], bool(row[8]), *row[9:]) for row in rows]


def _stand(events: list[Event]) -> Mark:
    """The standing mark of a pattern's marks, oldest first; of each other person only the last counts."""
    last = events[-1]
    by_user = {event.user: event for event in events}
    differ = [event for event in by_user.values() if event.verdict != last.verdict and event.user != last.user]
    return Mark(last, tuple(differ))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
