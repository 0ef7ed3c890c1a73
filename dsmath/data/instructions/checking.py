"""Checks of drafts: the final answer is the gold, the code runs and prints it, the question is no benchmark's."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from dsmath.data.instructions.formats import Draft, Rejected, box_answer, write_program
from dsmath.data.solutions import Solution
from dsmath.data.turns import BLOCK, split_turns

Run = Callable[[Sequence[str]], list[tuple[str, bool]]]


@dataclasses.dataclass(frozen=True)
class Checks:
    """What the checks need of other layers.

    Attributes:
      extract: the final answer of a text, or None.
      equals: (answer, gold) -> whether they mean the same.
      run: runs the blocks of one solution with one state; gives what each printed, and whether it failed.
      is_benchmark: whether a question is a benchmark's, or most of it.
      golds: answers by `question_key`, for sets that name none.
    """

    extract: Callable[[str], str | None]
    equals: Callable[[str, str], bool]
    run: Run
    is_benchmark: Callable[[str], bool]
    golds: Mapping[str, str]


def check(draft: Draft, checks: Checks) -> tuple[Solution, str]:
    """The solution, and who named its gold: "set", "benchmark", or "itself" where nobody did.

    Without a gold the answer is the solution's own.

    Raises:
      Rejected: contaminated, no_answer, wrong_answer, fails (its code), prints_nothing, other_output.
    """
    if checks.is_benchmark(draft.question):
        raise Rejected("contaminated")
    answer = {"cot": _answer_of_text, "pot": _answer_of_program, "tir": _answer_of_turns}[draft.kind](draft, checks)
    known = checks.golds.get(question_key(draft.question))
    golds, witness = (draft.golds, "set") if draft.golds else ((known,), "benchmark") if known else ((), "itself")
    matching = next((gold for gold in golds if checks.equals(answer, _final(gold, checks))), None)
    if golds and matching is None:
        raise Rejected("wrong_answer")
    gold = answer if matching is None else _final(matching, checks)
    is_program = draft.kind == "pot"
    text = write_program(draft.solution) if is_program else box_answer(draft.solution, answer, draft.language)
    return Solution(draft.question, gold, text, draft.kind, draft.language, draft.source), witness


def question_key(question: str) -> str:
    """A question without white space and letter case."""
    return "".join(question.split()).casefold()


def _final(gold: str, checks: Checks) -> str:
    """The answer alone: some sets give a worked solution, "…\\n#### 72", as their answer."""
    return (checks.extract(gold) if "####" in gold or "\\boxed" in gold else None) or gold.strip()


def _answer_of_text(draft: Draft, checks: Checks) -> str:
    answer = checks.extract(draft.solution)
    if not answer:
        raise Rejected("no_answer")
    return answer.strip().strip("$").strip()


def _answer_of_program(draft: Draft, checks: Checks) -> str:
    ((printed, failed),) = checks.run([draft.solution])
    if failed:
        raise Rejected("fails")
    if not printed.strip():
        raise Rejected("prints_nothing")
    return checks.extract(printed) or printed.strip().split("\n")[-1].strip()


def _answer_of_turns(draft: Draft, checks: Checks) -> str:
    turns = split_turns(draft.solution)
    blocks = [BLOCK.search(f"{turn.text}\n")[1] for turn in turns[:-1] if not turn.is_output]
    recorded = [turn.text.split("\n", 1)[1].removesuffix("```\n").strip() for turn in turns if turn.is_output]
    for told, (printed, failed) in zip(recorded, checks.run(blocks), strict=True):
        if not _is_same_output(told, printed.strip(), failed, checks):
            raise Rejected("other_output")
    return _answer_of_text(dataclasses.replace(draft, solution=turns[-1].text), checks)


def _is_same_output(told: str, printed: str, failed: bool, checks: Checks) -> bool:
    if failed:  # a solution may correct itself; a message's text changes with Python's version
        return printed.split(":")[0] in told
    return told.split() == printed.split() or checks.equals(told, printed)
