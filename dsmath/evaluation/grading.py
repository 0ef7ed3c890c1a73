"""Whether a completion solves its problem: what it answers, and how right that is.

No answer, a wrong one, a program that ran out of time and one that failed are kept apart.
"""

import dataclasses
import re

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.data.benchmarks.hendrycks_math import find_boxes
from dsmath.data.benchmarks.item import Item
from dsmath.evaluation import targets
from dsmath.evaluation.isabelle import Prover
from dsmath.evaluation.prompts import cut, modes_of, stops
from dsmath.reward import graders
from dsmath.reward.answers import extract_answer
from dsmath.reward.brackets import is_one_bracket
from dsmath.reward.extraction import BOX
from dsmath.runs.errors import InputError
from dsmath.sandbox.checks import Outcome, check
from dsmath.sandbox.pool import Pool
from dsmath.sandbox.session import Result

REASONS = ("right", "wrong", "no_answer", "timeout", "error")
# Where the released evaluation has conventions of its own. Source: its configs.
_RELEASED = {
    "few_shot": ("gsm8k", "math", "ocw", "sat", "mmlu_stem", "cmath", "gaokao_mathcloze", "gaokao_mathqa"),
    "few_shot_pot": ("gsm8k", "math"),
    "chat": ("gsm8k", "math", "mgsm_zh", "cmath"),
    "chat_tool": ("gsm8k", "math", "mgsm_zh", "cmath"),
}
_EXIT = "import builtins, sys; builtins.exit = builtins.quit = sys.exit"  # the jail's Python lacks the two
_LEFT = ("SystemExit: 0", "SystemExit: ")  # a program that ends itself, with nothing amiss
_LONGEST_VALUE = 30  # lines of a value that a program prints
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_TOOL_BLOCK = re.compile(r"```(?:python|output)[^\n]*\n.*?(?:```|\Z)", re.DOTALL)
_OUTPUT = re.compile(r"```output[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_MINERVA = re.compile(r"final answer is\s*((?:(?!answer is).){1,500}?)\. I hope it is correct", re.DOTALL)
_CLOSING = re.compile(r".*(?:answer is|答案是)(.*)", re.DOTALL | re.IGNORECASE)  # of all other layouts


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a completion.

    Attributes:
      answer: what it answers: the extracted text, the letters of a choice, the program of a code task; None if nothing.
      correct: whether that is right.
      reason: one of `REASONS`; "timeout" is a program's, a proof's or a comparison's, "error" a program's or a proof's.
      detail: what a program's run, its tests or Isabelle said; else empty.
    """

    answer: str | None
    correct: bool
    reason: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs what a model wrote, in the jail, and has its proofs checked.

    Attributes:
      pool: of the jail; None where no program is run.
      seconds: of a program, or of a program with all its tests.
      memory: bytes beyond Python, NumPy and SymPy.
      prover: of proofs; None where none is checked.
    """

    pool: Pool | None
    seconds: float
    memory: int
    prover: Prover | None = None

    def run(self, program: str, before: str = "") -> Result:
        """Runs a program whose output counts; before it, in its process, a block of ours."""
        with self.pool.open(self.memory) as session:
            if before:
                session.run(before, self.seconds)
            return session.run(program, self.seconds)

    def check(self, program: str, tests: str, entry_point: str, setup: str) -> Outcome:
        """Tests a program; see `dsmath.sandbox.checks`."""
        limits = {"seconds": self.seconds, "memory": self.memory, "pool": self.pool}
        return check(program, tests, entry_point=entry_point, setup=setup, **limits)


def grade(item: Item, mode: str, completion: str, grader: str = "strict", run: Runner | None = None) -> Verdict:
    """Grades one completion of `make_prompt(item, mode)`.

    Args:
      item: the problem, with its gold answer or its tests.
      mode: as the prompt was made.
      completion: what the model wrote, to its end or further; it is cut at the prompt's stops.
      grader: "strict", by which mathematics decides, or "paper": the released evaluation's conventions, where it has
        any for this benchmark in this mode.
      run: what runs programs and checks proofs; needed for "few_shot_pot", for code and for proofs, not used elsewhere.
    Raises:
      InputError: the benchmark has no such mode, there is no such grader, or nothing to run its programs with.
    """
    if mode not in modes_of(item.benchmark):
        raise InputError(f"{item.benchmark} has no mode {mode!r}; its modes are {', '.join(modes_of(item.benchmark))}")
    if grader not in graders.GRADERS:
        raise InputError(f"there is no grader {grader!r}, but {', '.join(graders.GRADERS)}")
    completion = cut(completion, stops(item, mode))
    grader = grader if item.benchmark in _RELEASED.get(mode, ()) else "strict"
    kind = BENCHMARKS[item.benchmark].kind if item.benchmark in BENCHMARKS else "answer"
    if kind == "proof":
        return _grade_proof(item, completion, run)
    if mode == "few_shot_pot" or kind == "code":
        if run is None:
            raise InputError(f"{item.benchmark} in the mode {mode} is graded by running programs; give it a runner")
        if kind == "code":
            return _grade_code(item, mode, completion, run)
        return _grade_program(item, completion, grader, run)
    if grader == "paper":
        return _grade_as_released(item, mode, completion)
    answer, is_printed = _find_answer(item, mode, completion)
    if item.choices:
        return _grade_choice(item, answer)
    if kind == "target":
        answer = targets.find_brackets(completion, item.answer) or answer
        return _judge(answer, answer is not None and targets.agree(answer, item.answer))
    return _grade_answer(item, _readings(item, completion, answer) + (_printed(answer) if is_printed else []))


def _judge(answer: str | None, correct: bool) -> Verdict:
    if answer is None:
        return Verdict(None, False, "no_answer")
    return Verdict(answer, correct, "right" if correct else "wrong")


def _find_answer(item: Item, mode: str, completion: str) -> tuple[str | None, bool]:
    """The text of the answer, and whether a program has printed it."""
    if mode == "chat_tool":
        return _find_answer_with_tool(completion)
    return _find_said_answer(item, mode, completion), False


def _find_answer_with_tool(completion: str) -> tuple[str | None, bool]:
    """The box, else what is said behind the last output, else that output: what is said before it may announce it."""
    prose, outputs = _TOOL_BLOCK.sub("\n", completion), list(_OUTPUT.finditer(completion))
    printed = _last_line(outputs[-1][1]) if outputs else None
    if printed and not BOX.search(prose):
        prose = _TOOL_BLOCK.sub("\n", completion[outputs[-1].end() :])
    said = extract_answer(prose)
    return (said, False) if said else (printed, printed is not None)


def _find_said_answer(item: Item, mode: str, completion: str) -> str | None:
    """In the chat what the last box holds, else what the last sentence of the layout says."""
    if mode == "choice" or (mode == "few_shot" and item.benchmark == "mmlu"):
        return completion.strip() or None
    if mode == "few_shot":
        whole, closing = _MINERVA.findall(completion), _CLOSING.fullmatch(completion)
        if whole:
            return whole[-1].strip() or None
        if closing and item.benchmark == "bbh" and not item.choices:  # words, of which none ends the answer
            return closing[1].strip(" :").split("\n")[0].rstrip().removesuffix(".") or None
        if closing:
            return extract_answer(f"The answer is {closing[1].lstrip(' :：')}") or extract_answer(completion)
    return extract_answer(completion)


def _readings(item: Item, completion: str, answer: str | None) -> list[str]:
    """The answer; and where the gold answer has several parts, as many of the last boxes, a part in each."""
    separator = ";" if ";" in item.answer else ","
    parts = item.answer.count(separator) + 1
    found = list(find_boxes(completion)) if parts > 1 else []
    joined = [f"{separator} ".join(found[-parts:])] if len(found) >= parts else []
    return [text for text in (answer, *joined) if text]


def _printed(text: str) -> list[str]:
    """What a program printed: as it stands, and as an answer is written.

    The imaginary unit is I to SymPy and j to Python. A list of solutions is a set, never an open interval or a point;
    with one tuple in it, it is that tuple.
    """
    written = re.sub(r"(?<!\w)I(?!\w)|(?<=\d)j(?!\w)", "i", text)
    readings = [text, written]
    if written[0] == "[" and written[-1] == "]" and is_one_bracket(written):
        inner = written[1:-1].strip()
        is_tuple = inner.startswith("(") and inner.endswith(")") and is_one_bracket(inner)
        readings.append(inner if is_tuple else f"\\{{{inner}\\}}")
    return list(dict.fromkeys(readings))


def _grade_answer(item: Item, answers: list[str], grader: str = "strict") -> Verdict:
    """The first of the readings that is right, else what becomes of the first one."""
    grades = [graders.grade_answer(answer, item.answer, item.benchmark, grader=grader) for answer in answers]
    if not grades:
        return _judge(None, False)
    found = next((grade for grade in grades if grade.outcome == "right"), grades[0])
    return Verdict(found.answer, found.outcome == "right", found.outcome)


def _grade_as_released(item: Item, mode: str, completion: str) -> Verdict:
    found = graders.grade(
        completion,
        item.answer,
        item.benchmark,
        grader="paper",
        few_shot=mode == "few_shot",
        question=item.question,
        gold_solution=item.solution,
    )
    return Verdict(found.answer, found.outcome == "right", found.outcome)


def _grade_choice(item: Item, answer: str | None) -> Verdict:
    """A choice by its letters; by an option's text where that is the only one it equals."""
    if answer is None:
        return _judge(None, False)
    letters = targets.read_letters(answer, len(item.choices))
    if letters is None or len(letters) > 1:  # the blood group "AB" is an option's text
        same = [letter for letter, text in targets.options(item) if targets.is_option(answer, text)]
        letters = same[0] if len(same) == 1 else letters
        if letters is None and not same:
            letters = targets.read_small_letters(answer, len(item.choices))
    return _judge(answer if letters is None else letters, letters == item.answer)


def _grade_program(item: Item, completion: str, grader: str, run: Runner) -> Verdict:
    """A program whose last printed line is the answer."""
    blocks = _BLOCK.findall(completion)
    program = (blocks[0] if blocks else completion).strip("\n")
    if not program.strip():
        return _judge(None, False)
    result = run.run(program, _EXIT if grader == "strict" else "")
    answer = _last_line(result.stdout)
    has_left = grader == "strict" and answer and result.kind == "exited" and result.error in _LEFT
    if result.kind != "done" and not has_left:
        return Verdict(None, False, "timeout" if result.kind == "timeout" else "error", result.error or result.kind)
    if answer is None:
        return _judge(None, False)
    return _grade_answer(item, _printed(answer) if grader == "strict" else [answer], grader)


def _grade_code(item: Item, mode: str, completion: str, run: Runner) -> Verdict:
    """A function by the benchmark's tests."""
    program = _find_program(item, mode, completion)
    if program is None:
        return _judge(None, False)
    entry_point = item.extra["entry_point"]
    setup = item.question if entry_point else item.extra["setup"]
    outcome = run.check(program, item.extra["tests"], entry_point, setup)
    reason = {"passed": "right", "failed": "wrong"}.get(outcome.reason, outcome.reason)
    return Verdict(program, outcome.passed, reason, outcome.detail)


def _grade_proof(item: Item, completion: str, run: Runner | None) -> Verdict:
    """A proof by Isabelle."""
    if run is None or run.prover is None:
        raise InputError(f"{item.benchmark} is graded by Isabelle; give the runner a prover")
    found = run.prover.check(item.extra["header"], item.extra["formal_statement"], completion)
    return Verdict(found.answer, found.correct, found.reason, found.detail)


def _find_program(item: Item, mode: str, completion: str) -> str | None:
    """The whole program: HumanEval's goes on from its question, a chat writes the function anew in a block."""
    entry_point = item.extra["entry_point"]
    if mode == "few_shot":
        text = item.question + completion if entry_point else completion
        return text if completion.strip() else None
    blocks = [block for block in _BLOCK.findall(completion) if f"def {entry_point}" in block]
    if not blocks:
        return None
    head = item.question[: item.question.index(f"def {entry_point}")] if entry_point else ""
    return f"{head}{blocks[0]}"


def _last_line(output: str) -> str | None:
    """The last line that is not empty, with those before it that its brackets open in: an array takes several."""
    lines = [line.strip() for line in output.splitlines() if line.strip()][-_LONGEST_VALUE:]
    for start in reversed(range(len(lines))):
        text = "\n".join(lines[start:])
        if sum(map(text.count, "([{")) == sum(map(text.count, ")]}")):
            return text
    return lines[-1] if lines else None
