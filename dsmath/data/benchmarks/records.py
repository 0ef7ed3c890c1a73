"""Records of upstream files: JSON lines, JSON and CSV, each with its place for messages."""

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

from dsmath.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
      place: "FILE:LINE", or "FILE: record NUMBER" where a file is not read by lines.
      fields: its fields by name.
    """

    place: str
    fields: Mapping[str, Any]

    def text(self, field: str) -> str:
        """The text of a field.

        Raises:
          InputError: the field is missing or no text.
        """
        value = self.fields.get(field)
        if not isinstance(value, str):
            raise self.error(field, "is missing" if field not in self.fields else f"is {value!r:.60}, not a text")
        return value

    def texts(self, field: str) -> list[str]:
        """The texts of a list.

        Raises:
          InputError: the field is missing or no list of texts.
        """
        value = self.fields.get(field)
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise self.error(field, "is missing" if field not in self.fields else "is no list of texts")
        return value

    def number(self, field: str) -> int:
        """The whole number of a field.

        Raises:
          InputError: the field is missing or no whole number.
        """
        value = self.fields.get(field)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(field, "is missing" if field not in self.fields else f"is {value!r:.60}, no whole number")
        return value

    def id(self, field: str = "id") -> str:
        """A name, be it a text or a whole number.

        Raises:
          InputError: the field is missing, empty or neither.
        """
        value = self.fields.get(field)
        return str(self.number(field)) if isinstance(value, int) else self.filled(field)

    def filled(self, field: str) -> str:
        """The text of a field without white space around it.

        Raises:
          InputError: the field is missing, no text or empty.
        """
        text = self.text(field).strip()
        if not text:
            raise self.error(field, "is empty")
        return text

    def error(self, field: str, reason: str) -> InputError:
        """What to raise where a field is not as upstream has it."""
        return InputError(f"{self.place}: field {field!r} {reason}; mend or remove the record, or fetch the file again")


def read_json_lines(path: pathlib.Path) -> list[Record]:
    """The records of a file of JSON lines, gzip around it or not; empty lines do not count.

    Raises:
      InputError: a damaged or empty file; names file and line.
    """
    lines = _read_text(path).split("\n")  # not splitlines: a text may hold U+2028
    return _checked(
        path, [_record(f"{path}:{n}", _parse(line, f"{path}:{n}")) for n, line in enumerate(lines, 1) if line.strip()]
    )


def read_json_list(path: pathlib.Path, field: str | None = None) -> list[Record]:
    """The records of a JSON file: a list, or the list in one field of an object.

    Raises:
      InputError: a damaged or empty file; names file and record.
    """
    value = _parse(_read_text(path), str(path))
    if field is not None:
        value = _record(str(path), value).fields.get(field)
    if not isinstance(value, list):
        raise InputError(f"{path}: holds no list{f' in field {field!r}' if field else ''}; fetch the file again")
    return _checked(path, [_record(f"{path}: record {number}", part) for number, part in enumerate(value, 1)])


def read_json_object(path: pathlib.Path) -> Record:
    """The one record of a file.

    Raises:
      InputError: a damaged file.
    """
    return _record(str(path), _parse(_read_text(path), str(path)))


def read_csv(path: pathlib.Path, columns: tuple[str, ...]) -> list[Record]:
    """The rows of a CSV file without a header.

    Raises:
      InputError: a damaged or empty file, or a row with another number of columns; names file and line.
    """
    reader, found = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True), []
    try:
        for row in reader:
            if len(row) != len(columns):
                raise InputError(
                    f"{path}:{reader.line_num}: has {len(row)} columns, not {len(columns)} ({', '.join(columns)}); "
                    "mend the row, or fetch the file again"
                )
            found.append(Record(f"{path}:{reader.line_num}", dict(zip(columns, row, strict=True))))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: damaged CSV ({error}); fetch the file again") from error
    return _checked(path, found)


def name_by_text(*texts: str) -> str:
    """A name for a record without one, the same in every subset and format: 12 hex digits."""
    return hashlib.sha256("\0".join(text.strip() for text in texts).encode()).hexdigest()[:12]


def _read_text(path: pathlib.Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: the gzip file is damaged ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); fetch it again") from error


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: no JSON record ({error}); mend or remove it, or fetch the file again") from error


def _record(place: str, value: Any) -> Record:
    if not isinstance(value, dict):
        raise InputError(f"{place}: no JSON object but {value!r:.60}; mend or remove it, or fetch the file again")
    return Record(place, value)


def _checked(path: pathlib.Path, records: list[Record]) -> list[Record]:
    if not records:
        raise InputError(f"{path}: the file is empty; fetch it again")
    return records
