"""Records of public instruction sets as drafts: a question, a solution of some kind, golds where the set names them.

Known are the forms of MathInstruct, Lila, ToRA and NuminaMath (text or turns of a chat), MetaMath, GSM8K, MATH and
plain records of a question and a solution; a record's fields tell which it has.

Source: MAmmoTH (arXiv 2309.05653), Lila (2210.17517), ToRA (2309.17452), MetaMath (2309.12284), NuminaMath (2024).
"""

import ast
import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from dsmath.data.turns import BLOCK, split_turns, write_block, write_output

_QUESTIONS = ("question", "problem", "query", "instruction", "input", "prompt")
_SOLUTIONS = ("solution", "response", "output", "generation", "completion", "code")
_PROGRAMS = ("output_program", "programs", "program")
_GOLDS = ("output_answer", "expected_answer", "final_answer", "answers", "answer", "gt", "gold")
_CHATS = ("messages", "conversations")
_SOURCES = ("source", "dataset", "type")
# What sets add to the last line of their questions; our prompts say it in their own words. Of a sentence only the first
# word that may begin a request is tried, as what follows the others follows it too: a long line costs its length once.
_REQUESTS = (
    re.compile(
        r"(?:\A|[.?!])(?>[^.?!]*?(please|let'?s|let us)\b)[^.?!]*\b(?:programs?|python|code|step by step|\\boxed)\b",
        re.IGNORECASE,
    ),
    re.compile(r"(?:\A|[。？])(?>[^。？]*?(请))[^。？]*(?:逐步推理|程序|\\boxed)"),
)
# Last lines or sentences that name the answer; the box takes their place.
_CLOSING = re.compile(
    r"""(?:(?:\A|\n|(?<=[.!?。\s]))
        (?:\#\#\#\#[^\n]*
        |(?:(?:therefore|so|thus|hence),?[ ])?the[ ](?:final[ ])?answer[ ]is[^\n.]*(?:\.\d[^\n.]*)*\.?
        |(?:所以|因此)?[，,]?答案(?:是|为|：|:)[^\n。]*。?
        )\s*)+\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_FENCED = re.compile(r"\A\s*```(?:python|py)?[^\n]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_OUTPUT_FENCE = re.compile(r"\A\s*```(?:output)?[^\n]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's
_DOES = (ast.Call, ast.FunctionDef, ast.Import, ast.ImportFrom, ast.For, ast.While)
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_LEAST_HAN = 0.1  # of a Chinese question's characters


class Rejected(Exception):
    """A record that does not become a solution; the message is the reason, one word that statistics count."""


@dataclasses.dataclass(frozen=True)
class Draft:
    """A solution before its checks.

    Attributes:
      question, solution, kind, language, source: as in `dsmath.data.solutions.Solution`; of kind "pot" the solution is
        the bare program.
      golds: answers that the set names as right, any of which counts; none where it names none.
    """

    question: str
    solution: str
    kind: str
    language: str
    source: str
    golds: tuple[str, ...]


def read_record(record: Mapping[str, Any], default_source: str) -> list[Draft]:
    """The solutions of a record; one of Lila may have several programs.

    Args:
      record: of one of the known forms.
      default_source: where the record names none.
    Raises:
      Rejected: no_question, no_solution, or no_output (a block of code that nothing answers).
    """
    fields = {str(name).strip().lower().replace(" ", "_"): value for name, value in record.items()}
    chat = next((fields[name] for name in _CHATS if isinstance(fields.get(name), list | tuple)), None)
    asked, told = _read_chat(chat) if chat else ("", "")
    question = strip_request(_text(fields, _QUESTIONS) or asked)
    if not question:
        raise Rejected("no_question")
    programs, golds = _texts(fields, _PROGRAMS), tuple(_texts(fields, _GOLDS))
    text = _text(fields, _SOLUTIONS)
    if not text and golds and "####" in golds[0]:
        text, golds = _ANNOTATION.sub("", golds[0]), (golds[0].rpartition("####")[2].strip(),)
    # A program needs no text beside it, and of two tellings of a solution the one with code has more.
    solutions = programs or [told if "```" in told and "```" not in text else text or told]
    if not solutions[0].strip():
        raise Rejected("no_solution")
    source = _text(fields, _SOURCES) or default_source
    language = "zh" if len(_HAN.findall(question)) > _LEAST_HAN * len(question) else "en"
    drafts = []
    for solution in solutions:
        kind, form = _read_solution(solution.strip(), is_program=bool(programs))
        drafts.append(Draft(question, form, kind, language, source, golds))
    return drafts


def strip_request(question: str) -> str:
    """A question without the request behind it to reason or to write a program."""
    question = question.strip()
    for request in _REQUESTS:
        start = question.rfind("\n") + 1
        if found := request.search(question[start:]):
            question = question[: start + found.start(1)].rstrip() or question
    return question


def box_answer(solution: str, answer: str, language: str) -> str:
    """A worked solution whose last line boxes its answer; one with a box stays as it is."""
    if "\\boxed" in solution:
        return solution
    work = _CLOSING.sub("", solution).rstrip()
    final = f"答案是\\boxed{{{answer}}}。" if language == "zh" else f"The answer is \\boxed{{{answer}}}."
    return f"{work}\n{final}" if work else final


def _read_solution(text: str, is_program: bool) -> tuple[str, str]:
    """The kind of a solution and its form with us."""
    fenced = _FENCED.fullmatch(text)
    if fenced and "```" not in fenced[1]:
        return "pot", fenced[1]
    if BLOCK.search(f"{text}\n"):
        turns = split_turns(text)
        # Every block but one that ends the solution has its output.
        if any(len(BLOCK.findall(f"{turn.text}\n")) > 1 for turn in turns) or BLOCK.search(f"{turns[-1].text}\n"):
            raise Rejected("no_output")
        return "tir", "".join(turn.text for turn in turns)
    return ("pot" if is_program or _is_program(text) else "cot"), text


def _is_program(text: str) -> bool:
    """Whether a text is Python that does something: "x = 5" alone may be prose."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of prose that is nearly Python
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, _DOES) for node in ast.walk(tree))


def _read_chat(turns: Sequence[Any]) -> tuple[str, str]:
    """What the user asks first, and all that follows: what the assistant writes, and what an interpreter answers."""
    question, parts = "", []
    for turn in turns:
        if not isinstance(turn, dict):
            raise Rejected("damaged")
        role = str(turn.get("role") or turn.get("from") or "").lower()
        content = turn.get("content") or turn.get("value") or ""
        if not isinstance(content, str):
            raise Rejected("damaged")
        if role in ("assistant", "gpt"):
            is_answered = parts and parts[-1].startswith("```output")
            parts.append(content if is_answered or not parts else f"\n{content}")
        elif question and parts and "```" in parts[-1]:  # whoever speaks for the interpreter
            inner = _OUTPUT_FENCE.fullmatch(content)
            parts[-1] = parts[-1].rstrip() + "\n"
            parts.append(write_output(inner[1] if inner else content))
        elif role in ("user", "human"):
            if question:
                raise Rejected("conversation")
            question = content
    return question, "".join(parts)


def _text(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of the fields that holds a text."""
    return next((fields[name] for name in names if isinstance(fields.get(name), str) and fields[name].strip()), "")


def _texts(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The texts of the first of the fields that holds any: one, or a list; numbers become texts."""
    for name in names:
        value = fields.get(name)
        parts = value if isinstance(value, list | tuple) else [value]
        found = [str(part) for part in parts if isinstance(part, str | int | float) and not isinstance(part, bool)]
        if any(part.strip() for part in found):
            return [part for part in found if part.strip()]
    return []


def write_program(program: str) -> str:
    """A program as the solution of kind "pot" has it."""
    return write_block(program).rstrip("\n")
