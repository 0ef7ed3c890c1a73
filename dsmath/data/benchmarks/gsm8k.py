"""GSM8K, and MGSM-zh, which is the first 250 problems of its test set in Chinese.

Source: Cobbe et al. 2021, https://github.com/openai/grade-school-math; Shi et al. 2022 (MGSM).
"""

import pathlib
import re
from collections.abc import Sequence

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.item import Item

_ANNOTATION = re.compile(r"<<[^<>]*>>")  # of the calculator, as in 48/2 = <<48/2=24>>24
_MARK = "####"


def read(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """GSM8K as OpenAI has it, its answer behind the work, or as DeepSeek-Math has it, with the work in `cot`.

    Only the second has names for its problems, so that the question names them here, in both alike.
    """
    return [_read_problem(record) for path in paths for record in records.read_json_lines(path)]


def read_chinese(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """MGSM-zh as DeepSeek-Math has it: the question is what the user says."""
    return [_read_chat(record) for path in paths for record in records.read_json_lines(path)]


def _read_problem(record: records.Record) -> Item:
    question, answer = record.filled("question"), record.text("answer")
    if "cot" in record.fields:
        work = record.text("cot")
    else:
        work, mark, answer = answer.rpartition(_MARK)
        if not mark:
            raise record.error("answer", f"has no number after {_MARK!r}; its last line must be '{_MARK} 72'")
    answer = answer.strip().replace(",", "")
    if not answer:
        raise record.error("answer", "has no number")
    return Item(
        benchmark="gsm8k",
        id=records.name_by_text(question),
        question=question,
        answer=answer,
        solution=_ANNOTATION.sub("", work).strip(),
    )


def _read_chat(record: records.Record) -> Item:
    turns = record.fields.get("messages")
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict) or turns[0].get("role") != "user":
        raise record.error("messages", "does not begin with what the user says")
    question = records.Record(record.place, turns[0]).filled("content")
    return Item("mgsm_zh", record.id(), question, record.filled("answer").replace(",", ""), language="zh")
