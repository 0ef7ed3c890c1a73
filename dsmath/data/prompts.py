"""Prompts to complete, from a file: one JSON record a line."""

import dataclasses
import os
from typing import Any

from dsmath.data import chat
from dsmath.data.solutions import Solution, read_json_lines
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs.errors import InputError

_CHOICES = {"language": ("en", "zh"), "kind": ("cot", "pot", "tir")}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model is to go on from: a text, or a question that is put into the chat frame.

    Attributes:
      id: names the record.
      prompt: a text, read as it is; None where there is a question.
      question: see `dsmath.data.solutions`, as are answer, language and kind.
      answer: the gold answer, where it is known.
    """

    id: str
    prompt: str | None = None
    question: str | None = None
    answer: str | None = None
    language: str = "en"
    kind: str = "cot"

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """Token ids, <bos> first."""
        if self.question is None:
            return [tokenizer.bos_id, *tokenizer.encode(self.prompt)]
        solution = Solution(self.question, self.answer or "", "", self.kind, self.language)
        return chat.encode_prompt(solution, tokenizer)


def read_prompts(path: str | os.PathLike) -> list[Prompt]:
    """Reads a file of prompts; it leaves out fields that are not `Prompt`'s; a missing id is the line's number.

    Raises:
      InputError: names the file, the line and what is wrong there.
    """
    prompts, places = [], {}
    for number, (place, record) in enumerate(read_json_lines(path), start=1):
        prompt = _parse(place, record, str(number))
        if prompt.id in places:
            raise InputError(f"{place}: its id {prompt.id!r} is that of {places[prompt.id]} too; give each its own")
        places[prompt.id] = place
        prompts.append(prompt)
    return prompts


def _parse(place: str, record: Any, default_id: str) -> Prompt:
    if not isinstance(record, dict):
        raise InputError(f"{place}: no JSON object; a record has a prompt or a question")
    names = [field.name for field in dataclasses.fields(Prompt)]
    found = {name: record[name] for name in names if record.get(name) is not None}
    if isinstance(found.get("id"), int):
        found["id"] = str(found["id"])
    for name, value in found.items():
        if not isinstance(value, str):
            raise InputError(f"{place}: {name} is {value!r}, not a text")
        if value not in _CHOICES.get(name, (value,)):
            raise InputError(f"{place}: {name} {value!r} is none of {', '.join(_CHOICES[name])}")
    if ("prompt" in found) == ("question" in found):
        raise InputError(f"{place}: a record has a prompt (read as it is) or a question (put into the chat frame)")
    return Prompt(**{"id": default_id} | found)
