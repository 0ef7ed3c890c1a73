"""A stage's folder: its config, its lineage, its result; files appear in it whole or not at all."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import subprocess
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dsmath
from dsmath.runs import processes
from dsmath.runs.errors import InputError

if TYPE_CHECKING:  # every worker of mining imports this file, and none has a config
    import ml_collections
    from etils import epath

CONFIG, LINEAGE, RESULT = "config.json", "lineage.json", "result.json"


def to_path(path: str | os.PathLike) -> "epath.Path":
    """A folder or file that is read: of this machine, or `gs://…` or `s3://…`."""
    from etils import epath  # not at the top: every worker of mining imports this file

    return epath.Path(path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary name beside `path`, which takes its place when the block ends well; the folder is made."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a whole file under a temporary name and renames it."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON, atomically."""
    write_atomically(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: the file is absent or damaged.
    """
    try:
        return json.loads(to_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; run the stage that writes it first") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); remove the file and run its stage again") from error


def check_workdir(path: str | os.PathLike) -> None:
    """Refuses what is no folder of a file system."""
    if not os.fspath(path):  # it would be the current folder
        raise InputError("--workdir: is empty; name a folder")
    if "://" in os.fspath(path):
        raise InputError(f"--workdir={path}: is no folder; mount the bucket, or take a file system that all hosts see")


def open_workdir(
    path: str | os.PathLike, config: "ml_collections.ConfigDict", stage: str, free: Collection[str] = ()
) -> pathlib.Path:
    """Makes a stage's folder, or opens it again under the same config.

    Args:
      path: the folder.
      config: the resolved config; it is written to `config.json`.
      stage: the stage's name, written there too.
      free: fields of the config that a resumed run may change; the newest values are kept.
    Raises:
      InputError: the folder belongs to another stage or another config; the message names the first field.
    """
    check_workdir(path)
    workdir = pathlib.Path(path)
    here = {"stage": stage, **json.loads(config.to_json())}
    record = workdir / CONFIG
    begun = (workdir / LINEAGE).exists() or (workdir / RESULT).exists()  # else the start failed: try another config
    if begun and record.exists():
        there = read_json(record)
        kept = {name: value for name, value in there.items() if name not in free}
        remedy = "give another --workdir, or the values with which this one began"
        check_same({name: value for name, value in here.items() if name not in free}, kept, record, remedy)
        if here != there:
            write_json(record, here)
        return workdir
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir={workdir}: this is a file; name a folder")
    try:
        write_json(record, here)
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be made ({error.strerror}); name another folder") from error
    return workdir


def require_finished(workdir: str | os.PathLike, field: str) -> None:
    """Refuses a parent whose stage has not ended; a folder that is no stage's passes.

    Args:
      workdir: the parent's folder.
      field: the config's field that names it, such as "config.init_from".
    """
    folder = to_path(workdir)
    try:
        begun, ended = (folder / CONFIG).exists(), (folder / RESULT).exists()
    except ImportError as error:  # what reads buckets is not installed with the rest
        package = "gcsfs" if str(workdir).startswith("gs:") else "s3fs"
        raise InputError(f"{field}={str(workdir)!r}: {error} (pip install {package})") from error
    if begun and not ended:
        raise InputError(f"{field}={str(workdir)!r}: its stage has not finished; run it to the end first")


@contextlib.contextmanager
def lock_workdir(workdir: str | os.PathLike) -> Iterator[None]:
    """Holds a stage's folder; the lock ends with the process, however it ends.

    Raises:
      InputError: another process holds it.
    """
    with open(pathlib.Path(workdir) / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"--workdir={workdir}: another process works there; wait for it or stop it") from error
        yield


def read_result(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """The result of a finished stage, None where the stage has not finished."""
    path = pathlib.Path(workdir) / RESULT
    return read_json(path) if path.exists() else None


def write_result(workdir: str | os.PathLike, result: Mapping[str, Any]) -> None:
    """Marks a stage as finished, with its figures."""
    write_json(pathlib.Path(workdir) / RESULT, dict(result))


def write_lineage(
    workdir: str | os.PathLike,
    *,
    parents: Mapping[str, str | os.PathLike] | None = None,
    data: Iterable[str | os.PathLike] | Mapping[str, str] = (),
    steps: Mapping[str, int] | None = None,
) -> None:
    """Records what a stage was made from: parent workdirs, the data files' fingerprints, the code's version.

    A resumed run keeps the record of its start. Call it when the inputs have been checked: from then on the workdir
    belongs to its config. Of many processes the first one writes it.

    Args:
      parents: workdirs by role, such as {"init_from": "runs/demo/pretrain"}; each parent's own fingerprint is that
        of its lineage, so that a chain can be followed and checked.
      data: files that were read, or the fingerprints of what was read by name.
      steps: checkpoints of parents by role; where there is none, or 0, it is the newest.
    Raises:
      InputError: a parent or a file has changed since the run began.
    """
    if not processes.is_main():
        return
    record = {
        "parents": {
            role: {
                "workdir": str(parent),
                "lineage": _fingerprint_or_none(to_path(parent) / LINEAGE),
                "step": (steps or {}).get(role) or _newest_step(to_path(parent)),
            }
            for role, parent in (parents or {}).items()
        },
        "data": dict(data) if isinstance(data, Mapping) else {str(path): fingerprint(path) for path in data},
        "code": _code_version(),
    }
    path = pathlib.Path(workdir) / LINEAGE
    if not path.exists():
        write_json(path, record)
        return
    before = read_json(path)
    for part in ("parents", "data"):
        for name, value in record[part].items():
            if before[part].get(name) != value:
                raise InputError(f"{path}: {name} has changed since this run began; give another --workdir")


def fingerprint(path: str | os.PathLike) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256."""
    with to_path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _fingerprint_or_none(path: "epath.Path") -> str | None:
    return fingerprint(path) if path.exists() else None


def _newest_step(parent: "epath.Path") -> int | None:
    """The parent's newest checkpoint, None where it has none."""
    folder = parent / "checkpoints"
    steps = [int(entry.name) for entry in (folder.iterdir() if folder.exists() else ()) if entry.name.isdigit()]
    return max(steps, default=None)


def _code_version() -> str:
    described = os.environ.get("DSMATH_CODE", "")  # of a copy or an image: what has launched it knows
    if not described:
        folder = pathlib.Path(dsmath.__file__).parent
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
        try:
            described = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return dsmath.__version__
    return f"{dsmath.__version__}+{described}"


def check_same(here: Any, there: Any, source: str | os.PathLike, remedy: str, field: str = "config") -> None:
    """Refuses a config that is not that of `source`; the message names the first field that differs."""
    if isinstance(here, dict) and isinstance(there, dict):
        for name in sorted(here.keys() | there.keys()):
            check_same(here.get(name), there.get(name), source, remedy, f"{field}.{name}")
    elif here != there:
        raise InputError(f"{source}: {field} is {there!r} there and {here!r} in this command; {remedy}")
