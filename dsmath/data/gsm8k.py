"""Reader of real GSM8K files: `train.jsonl` and `test.jsonl` with the fields question and answer.

Source: Cobbe et al. 2021, https://github.com/openai/grade-school-math.
"""

import json
import os
import pathlib
import re

from dsmath.data.solutions import Solution
from dsmath.runs.errors import InputError

_ANNOTATION = re.compile(r"<<[^<>]*>>")  # of the calculator, as in 48/2 = <<48/2=24>>24
_MARK = "####"


def read(folder: str | os.PathLike, split: str) -> list[Solution]:
    """Reads one split; each solution is the work, closed by "The answer is \\boxed{72}.".

    Args:
      folder: holds `train.jsonl` and `test.jsonl`.
      split: "train" or "test".
    Raises:
      InputError: no such folder or file, an empty file, or a damaged record: the message names file, line and field.
    """
    folder = pathlib.Path(folder)
    path = folder / f"{split}.jsonl"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; config.problems takes 'embedded' or a folder with GSM8K's files")
    if not path.is_file():
        raise InputError(f"{path}: no such file; the folder needs GSM8K's {split}.jsonl")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a text may hold U+2028
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from error
    records = [_read_record(line, f"{path}:{number}", split) for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise InputError(f"{path}: the file is empty; it needs one JSON record a line")
    return records


def _read_record(line: str, place: str, split: str) -> Solution:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: no JSON record ({error.msg}); mend or remove the line") from error
    for field in ("question", "answer"):
        if not isinstance(record, dict) or not isinstance(record.get(field), str):
            raise InputError(f"{place}: field {field!r} is missing or no text; GSM8K records hold question and answer")
    work, mark, answer = record["answer"].rpartition(_MARK)
    answer = answer.strip().replace(",", "")
    if not mark or not answer:
        raise InputError(f"{place}: field 'answer' has no number after {_MARK!r}; its last line must be '{_MARK} 72'")
    work = _ANNOTATION.sub("", work).strip()
    closing = f"The answer is \\boxed{{{answer}}}."
    return Solution(
        question=record["question"].strip(),
        answer=answer,
        solution=f"{work}\n{closing}" if work else closing,
        source=f"gsm8k/{split}",
    )
