"""The solution record, the prompts around it, and its file: one JSON record a line."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_atomically

SOLUTIONS = "solutions.jsonl"  # of a workdir that makes them
_CHOICES = {"kind": ("cot", "pot", "tir"), "language": ("en", "zh")}
# The released models' own prompts. Source: DeepSeekMath §3, model card.
_SUFFIX = {
    ("cot", "en"): "\nPlease reason step by step, and put your final answer within \\boxed{}.",
    ("cot", "zh"): "\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。",
    ("tool", "en"): (
        "\nPlease integrate natural language reasoning with programs to solve the problem above, "
        "and put your final answer within \\boxed{}."
    ),
    ("tool", "zh"): "\n请结合自然语言和Python程序语言来解答问题，并把最终答案放置于\\boxed{}中。",
}


@dataclasses.dataclass(frozen=True)
class Solution:
    """A question with its exact answer and one worked solution.

    Attributes:
      question: the problem's text.
      answer: the gold answer, as text.
      solution: the worked solution, with the final answer within \\boxed{}.
      kind: "cot" (chain of thought), "pot" (program of thought) or "tir" (tool-integrated reasoning).
      language: "en" or "zh".
      source: where the record comes from, e.g. "embedded/worked" or "gsm8k/train".
    """

    question: str
    answer: str
    solution: str
    kind: str = "cot"
    language: str = "en"
    source: str = ""


def chat_prompt(question: str, language: str = "en", kind: str = "cot") -> str:
    """The zero-shot prompt in the chat frame, up to the place where the solution starts.

    Source: DeepSeekMath §3; the released models' prompts.
    """
    suffix = _SUFFIX["cot" if kind == "cot" else "tool", language]
    return f"User: {question}{suffix}\n\nAssistant:"


def write_solutions(path: str | os.PathLike, records: Iterable[Solution]) -> None:
    """Writes records as JSON lines, atomically."""
    lines = (json.dumps(dataclasses.asdict(record), ensure_ascii=False) for record in records)
    write_atomically(path, "".join(line + "\n" for line in lines))


def read_solutions(path: str | os.PathLike) -> list[Solution]:
    """Reads JSON lines of solution records; an empty file has none.

    Raises:
      InputError: names the file, the line and the field that is missing, unknown or of another form.
    """
    records = []
    if pathlib.Path(path).is_file() and not pathlib.Path(path).stat().st_size:
        return records
    for place, record in read_json_lines(path):
        try:
            records.append(Solution(**record))
        except TypeError as error:
            raise InputError(f"{place}: {error}; fields are question, answer, solution, …") from error
        for name, value in record.items():
            if not isinstance(value, str):
                raise InputError(f"{place}: {name} is {value!r:.60}, not a text; mend the line")
            if value not in _CHOICES.get(name, (value,)):
                raise InputError(f"{place}: {name} {value!r} is none of {', '.join(_CHOICES[name])}; mend the line")
    return records


def read_json_lines(path: str | os.PathLike) -> Iterator[tuple[str, Any]]:
    """The records of a file of JSON lines, each with its place for messages, "FILE:LINE".

    Raises:
      InputError: names the file and the line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    # Not splitlines: a text may hold U+2028.
    for number, line in enumerate(_read_text(path).rstrip("\n").split("\n"), start=1):
        try:
            yield f"{path}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: no JSON record ({error.msg}); mend the line") from error


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from error
