"""Reads the texts of benchmark files, whatever their format.

JSON lines, JSON (a list, one object or several one after another), CSV, TSV and Parquet, gzip around any of the text
formats, and the folders of MATH, one file a problem. Which fields hold text stands in one table.
"""

import csv
import fnmatch
import glob
import gzip
import io
import itertools
import json
import pathlib
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dsmath.runs.errors import InputError

# Fields that ask something, and where they come from. Texts of 3 to 9 grams are matched whole from these alone.
QUESTION_FIELDS = {
    "question": "GSM8K, CMATH, AGIEval, SAT, MMLU; in PRM800K an object that holds `problem`",
    "problem": "MATH, OCWCourses, PRM800K",
    "input": "BBH",
    "prompt": "HumanEval",
    "text": "MBPP",
    "passage": "AGIEval",
    "content": "MGSM's `messages`",
    "informal_statement": "miniF2F",
    "formal_statement": "miniF2F",
}
OTHER_FIELDS = {
    "answer": "GSM8K, AGIEval, MATH-500, OCWCourses, MGSM",
    "Answer": "SAT",
    "golden": "CMATH",
    "target": "BBH",
    "cot": "GSM8K as DeepSeek-Math has it",
    "solution": "MATH, OCWCourses",
    "ground_truth": "Math-Shepherd's examples",
    "ground_truth_solution": "PRM800K",
    "ground_truth_answer": "PRM800K",
    "options": "AGIEval and MMLU (a list), SAT (one string)",
    "choices": "MMLU and ARC as on the Hugging Face hub",
    "answers": "SQuAD",
    "informal_proof": "miniF2F",
    "canonical_solution": "HumanEval",
    "completion": "HumanEval's example of samples",
    "test": "HumanEval",
    "code": "MBPP",
    "test_list": "MBPP",
    "challenge_test_list": "MBPP",
}
_CONTAINERS = ("examples", "messages", "data", "rows", "row")  # BBH, MGSM, dumps of data sets
_IDS = ("id", "unique_id", "task_id", "problem_name", "idx", "path")
_FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_FORMAT_NAMES = "JSON lines, JSON, CSV, TSV or Parquet"
_BATCH = 1000  # rows of a Parquet file


class BenchmarkText(NamedTuple):
    """A text of a benchmark.

    Attributes:
      item: the record that holds it: its line or its number from 1, with its id where it has one, such as
        "17 (gsm8k-test-16)".
      text: the text.
      is_question: whether it asks something; else it is an answer, an option, a solution or a test.
    """

    item: str
    text: str
    is_question: bool


def read_benchmarks(pattern: str) -> dict[str, list[BenchmarkText]]:
    """The texts of benchmark files by the benchmark's name.

    Args:
      pattern: folders (all files below them that have a known format), files or globs, separated by commas; a part
        that starts with "!" leaves out what it matches: "benchmarks,!*train*" is all but training files.
    Returns:
      Texts by "folder/file", such as "gsm8k/test"; nothing where the pattern is empty. Files whose names are numbers,
      one problem each as MATH has them, count as items of their folder: "MATH/test/algebra".
    Raises:
      InputError: a part matches no file, a file is damaged, or it has none of the known fields.
    """
    benchmarks: dict[str, list[BenchmarkText]] = {}
    for path in find_files(pattern):
        name = path.name.removesuffix(".gz").rpartition(".")[0]
        is_item = name.isdecimal()
        benchmark = "/".join(path.parts[-4:-1]) if is_item else f"{path.parent.name}/{name}"
        found = benchmarks.setdefault(benchmark, [])
        found.extend(text._replace(item=name) if is_item else text for text in _read_file(path))
    return benchmarks


def find_files(pattern: str) -> list[pathlib.Path]:
    """The files of `read_benchmarks`."""
    parts = [part.strip() for part in pattern.split(",") if part.strip()]
    left_out = [part[1:] for part in parts if part.startswith("!")]
    found: set[pathlib.Path] = set()
    for part in (part for part in parts if not part.startswith("!")):
        folder = pathlib.Path(part)
        if folder.is_dir():
            files = {path for path in folder.rglob("*") if _format(path) and path.is_file()}
        else:
            files = {path for path in map(pathlib.Path, glob.glob(part, recursive=True)) if path.is_file()}
        if not files:
            raise InputError(f"config.benchmarks: {part!r} matches no file; give {_FORMAT_NAMES} files or their folder")
        found |= files
    kept = [path for path in sorted(found) if not any(fnmatch.fnmatch(str(path), name) for name in left_out)]
    if found and not kept:
        raise InputError(
            f"config.benchmarks={pattern!r}: leaves out every file that it names; narrow the part with '!'"
        )
    return kept


def _format(path: pathlib.Path) -> str:
    """The ending that tells the format, "" where it tells none."""
    ending = pathlib.Path(path.name.removesuffix(".gz")).suffix.lower()
    return ending if ending in _FORMATS else ""


def _read_file(path: pathlib.Path) -> list[BenchmarkText]:
    found: list[BenchmarkText] = []
    seen: dict[str, None] = {}
    for number, record in _read_records(path):
        if not isinstance(record, dict):
            raise InputError(f"{path}:{number}: not a JSON object; config.benchmarks takes records with named fields")
        seen.update(dict.fromkeys(record))
        name = next((str(record[field]) for field in _IDS if record.get(field) not in (None, "")), None)
        item = str(number) if name is None else f"{number} ({name})"
        found += [BenchmarkText(item, text, is_question) for text, is_question in _record_texts(record)]
    if not found:
        raise InputError(
            f"{path}: no record has a text in a known field; it has {', '.join(map(str, seen)) or 'none'}, known are "
            f"{', '.join(QUESTION_FIELDS | OTHER_FIELDS)}; rename its fields, or leave it out of config.benchmarks "
            f"with '!{path.name}'"
        )
    return found


def _record_texts(record: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The texts of a record's known fields, and whether each asks something."""
    for field, value in record.items():
        if field in QUESTION_FIELDS or field in OTHER_FIELDS:
            yield from _value_texts(value, field in QUESTION_FIELDS)
        elif field in _CONTAINERS:
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    yield from _record_texts(part)


def _value_texts(value: Any, is_question: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(value, str):
        if value:
            yield value, is_question
    elif isinstance(value, dict):
        yield from _record_texts(value)
    elif isinstance(value, list):
        for part in value:
            yield from _value_texts(part, is_question)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value), is_question


def _read_records(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """A file's records, each with its number from 1, in JSON lines its line."""
    ending = _format(path)
    if ending == ".parquet":
        return enumerate(_read_parquet(path), 1)
    if ending == ".jsonl":
        return _read_json_lines(path, _read_text(path))
    if ending == ".json":
        return enumerate(_read_json(path, _read_text(path)), 1)
    if ending in (".csv", ".tsv"):
        return enumerate(_read_csv(path, _read_text(path), "," if ending == ".csv" else "\t"), 1)
    raise InputError(f"{path}: its name does not tell its format; config.benchmarks takes {_FORMAT_NAMES} files")


def _read_text(path: pathlib.Path) -> str:
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert it with iconv") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is damaged ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it again") from error


def _read_json_lines(path: pathlib.Path, content: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(content.split("\n"), 1):  # not splitlines: U+2028
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}: damaged JSON ({error}); mend the line or remove it") from error


def _read_json(path: pathlib.Path, content: str) -> Iterator[Any]:
    """The records of a JSON file: the parts of its lists and of BBH's `examples`, or its objects."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(content):
        if content[position] in " \t\r\n":
            position += 1
            continue
        try:
            value, position = decoder.raw_decode(content, position)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}: damaged JSON ({error.msg}); mend it or fetch it again") from error
        except RecursionError as error:
            raise InputError(f"{path}: its JSON is nested too deeply; leave it out of config.benchmarks") from error
        if isinstance(value, dict) and isinstance(value.get("examples"), list):
            value = value["examples"]
        yield from value if isinstance(value, list) else [value]


def _read_csv(path: pathlib.Path, content: str, delimiter: str) -> Iterator[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is less than a long passage
    try:
        yield from csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise InputError(f"{path}: damaged CSV ({error}); mend it or fetch it again") from error


def _read_parquet(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            yield from itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(_BATCH))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error
