"""Completions that are right by construction, from the gold answers: what a perfect model would write in each mode."""

import re

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.data.benchmarks.item import Item
from dsmath.evaluation.prompts import layouts, modes_of
from dsmath.runs.errors import InputError


def solve(item: Item, mode: str) -> str:
    """A completion of `make_prompt(item, mode)` that solves the problem.

    It is upstream's own solution where there is one, closed as the mode asks for: by the layout's sentence, by a box,
    by a program that prints the answer, or by a tool's output and a box. A grader that does not find it right is wrong.

    Raises:
      InputError: the benchmark has no such mode, or is one of proofs, of which upstream has none.
    """
    if mode not in modes_of(item.benchmark):
        raise InputError(f"{item.benchmark} has no mode {mode!r}; its modes are {', '.join(modes_of(item.benchmark))}")
    kind = BENCHMARKS[item.benchmark].kind if item.benchmark in BENCHMARKS else "answer"
    if kind == "proof":
        raise InputError(f"{item.benchmark} has no formal proofs; there is no oracle of it")
    if kind == "code" and mode == "chat":
        return f" Here it is:\n```python\n{_whole_function(item)}\n```"
    if mode == "chat":
        return f" {item.solution}\n{_close(item)}" if item.solution else f" {_close(item)}"
    if mode == "chat_tool":
        program = f"print({item.answer!r})"
        return f" We compute it.\n```python\n{program}\n```\n```output\n{item.answer}\n```\n{_close(item)}"
    layout = layouts.find_layout(item, mode)
    return layout.solve(item, f"print({item.answer!r})" if mode == "few_shot_pot" else item.solution)


def _whole_function(item: Item) -> str:
    """The function with what stands before it in its prompt."""
    return item.question + item.solution if item.extra["entry_point"] else item.solution


def _close(item: Item) -> str:
    return f"The answer is $\\boxed{{{_balance(layouts.show_answer(item))}}}$."


def _balance(answer: str) -> str:
    """An answer whose braces do not end the box around it."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", answer):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    return answer if depth == 0 else re.sub(r"[{}]", r"\\\g<0>", answer)
