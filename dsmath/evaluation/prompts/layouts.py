"""How questions, and worked examples of them, are set out for a base model to go on from.

A layout is three functions of an item: what stands above all, the question up to where the solution starts, and the
solution as the model is to write it. The oracle writes in the same layouts.
"""

import dataclasses
from collections.abc import Callable

from dsmath.data.benchmarks.item import Item
from dsmath.evaluation.prompts import shots

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class Layout:
    """A way to set out a prompt.

    Attributes:
      ask: an item's question, up to the place where the solution starts.
      solve: (item, its solution) -> what follows there.
      stop: where one of these begins a completion is over.
      head: what stands above the examples.
    """

    ask: Callable[[Item], str]
    solve: Callable[[Item, str], str]
    stop: tuple[str, ...]
    head: Callable[[Item], str] = lambda item: ""


def pose(item: Item) -> str:
    """A question with its options, as the released evaluation poses them.

    Source: DeepSeekMath's released evaluation.
    """
    if not item.choices:
        return item.question
    options = [f"({letter}) {option}" for letter, option in zip(LETTERS, item.choices, strict=False)]
    if item.benchmark == "bbh":
        return "\n".join([item.question, "Options:", *options])
    if item.language == "zh":
        return f"{item.question}\n从以下选项中选择:    {' '.join(options)}"
    joint = " " if item.benchmark == "sat" else ", "
    return f"{item.question}\nWhat of the following is the right choice? Explain your answer.\n{joint.join(options)}"


def show_answer(item: Item) -> str:
    """The gold answer as a solution states it: a choice in brackets."""
    return f"({item.answer})" if item.choices and item.language == "en" else item.answer


def _list_options(item: Item) -> str:
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, item.choices, strict=False)]
    return "\n".join([item.question, *options])


def _formula(item: Item) -> str:
    answer = show_answer(item)
    return answer if item.choices else f"${answer}$"


def _bbh_task(item: Item) -> str:
    return shots.read_task(f"bbh/{item.subject}")


_WORDS = Layout(
    ask=lambda item: f"Question: {item.question}\nAnswer:",
    solve=lambda item, solution: f" {solution} The answer is {item.answer}.",
    stop=("\nQuestion:",),
)
_MINERVA = Layout(  # Source: Lewkowycz et al. 2022 (Minerva), appendix D
    ask=lambda item: f"Problem:\n{pose(item)}\nSolution:",
    solve=lambda item, solution: (
        f"\n{solution}\nFinal Answer: The final answer is {_formula(item)}. I hope it is correct."
    ),
    stop=("\nProblem:",),
)
_CHINESE_WORDS = Layout(
    ask=lambda item: f"问题：{item.question}\n答案：",
    solve=lambda item, solution: f"{solution}所以答案是：{item.answer}。",
    stop=("\n问题：",),
)
_CHINESE_EXAM = Layout(
    ask=lambda item: f"问题：{pose(item)}\n解析：",
    solve=lambda item, solution: f"{solution}\n答案是 {item.answer}",
    stop=("\n问题：",),
)
_BBH = Layout(  # Source: Suzgun et al. 2022 (BIG-Bench Hard)
    ask=lambda item: f"Q: {pose(item)}\nA: Let's think step by step.",
    solve=lambda item, solution: f"\n{solution}\nSo the answer is {show_answer(item)}.",
    stop=("\nQ:",),
    head=_bbh_task,
)
_MBPP = Layout(  # Source: Austin et al. 2021 (MBPP), §3.1
    ask=lambda item: (
        f"You are an expert Python programmer, and here is your task: {item.question} "
        f"Your code should pass these tests:\n\n{item.extra['tests']}\n[BEGIN]"
    ),
    solve=lambda item, solution: f"\n{solution}\n[DONE]",
    stop=("[DONE]",),
)
_HUMANEVAL = Layout(
    ask=lambda item: item.question,
    solve=lambda item, solution: solution,
    stop=("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\nassert "),  # Source: Chen et al. 2021 (HumanEval), §3.1
)
_LETTER = Layout(  # Source: Hendrycks et al. 2021 (MMLU)
    ask=lambda item: f"{_list_options(item)}\nAnswer:",
    solve=lambda item, solution: f" {item.answer}",
    stop=("\n",),
    head=lambda item: "The following are multiple choice questions (with answers).",
)
_CHINESE_LETTER = Layout(
    ask=lambda item: f"{_list_options(item)}\n答案：",
    solve=lambda item, solution: item.answer,
    stop=("\n",),
    head=lambda item: "以下是选择题，附有答案。",
)
PROGRAM = Layout(
    ask=lambda item: f"Problem:\n{item.question}\n\nA Python program that prints the answer:\n```python",
    solve=lambda item, solution: f"\n{solution}\n```",
    stop=("\n```",),
)

_LAYOUTS = {
    "gsm8k": _WORDS,
    "math": _MINERVA,
    "ocw": _MINERVA,
    "sat": _MINERVA,
    "mmlu_stem": _MINERVA,
    "mgsm_zh": _CHINESE_WORDS,
    "cmath": _CHINESE_WORDS,
    "gaokao_mathcloze": _CHINESE_EXAM,
    "gaokao_mathqa": _CHINESE_EXAM,
    "mmlu": _LETTER,
    "bbh": _BBH,
    "humaneval": _HUMANEVAL,
    "mbpp": _MBPP,
}


def find_layout(item: Item, mode: str) -> Layout:
    """The layout of a benchmark in a mode for base models."""
    if mode == "few_shot_pot":
        return PROGRAM
    if mode == "choice":
        return _LETTER if item.language == "en" else _CHINESE_LETTER
    return _LAYOUTS[item.benchmark]
