"""Hashes of what a stage reads: by content, so that a name or a place does not matter."""

import hashlib
import json
import pathlib
from typing import Any

from dsmath.runs.workdir import CONFIG, LINEAGE, RESULT, fingerprint


def content_hash(path: pathlib.Path) -> str:
    """A hash of a file or folder; of a stage's folder by its records alone, which name all that it was made from."""
    if path.is_file():
        return fingerprint(path)
    records = [path / name for name in (CONFIG, LINEAGE, RESULT)] if (path / LINEAGE).exists() else path.rglob("*")
    return hash_json(sorted([str(file.relative_to(path)), fingerprint(file)] for file in records if file.is_file()))


def hash_json(value: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a value's JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def existing(text: str) -> pathlib.Path | None:
    """The file or folder of this name, None where there is none."""
    try:
        return pathlib.Path(text) if text and pathlib.Path(text).exists() else None
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return None
