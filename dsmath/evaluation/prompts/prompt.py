"""What a benchmark is asked in each mode."""

import dataclasses

from dsmath.data.benchmarks.item import Item
from dsmath.data.solutions import chat_prompt
from dsmath.evaluation.isabelle import prompts as isabelle
from dsmath.evaluation.prompts import layouts, shots
from dsmath.runs.errors import InputError

MODES = ("few_shot", "few_shot_pot", "chat", "chat_tool", "choice")
_ANSWER = ("few_shot", "chat", "chat_tool")
_CHOICE = ("few_shot", "chat", "chat_tool", "choice")
_MODES_OF = {
    "gsm8k": MODES[:-1],
    "math": MODES[:-1],
    "ocw": _ANSWER,
    "sat": _CHOICE,
    "mmlu_stem": _CHOICE,
    "mgsm_zh": _ANSWER,
    "cmath": _ANSWER,
    "gaokao_mathcloze": _ANSWER,
    "gaokao_mathqa": _CHOICE,
    "minif2f": ("few_shot",),
    "mmlu": ("few_shot", "chat", "choice"),
    "bbh": ("few_shot", "chat"),
    "humaneval": ("few_shot", "chat"),
    "mbpp": ("few_shot", "chat"),
    "embedded": ("chat", "chat_tool"),
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a model goes on from.

    Attributes:
      text: the whole prompt; <bos> is the tokenizer's to add.
      stop: texts at which a completion ends, besides <eos>; they are no part of it. See `cut`.
      tool: whether Python runs the blocks that the model writes.
      shots: worked examples in it.
      choices: in the mode "choice", one continuation an option: the likeliest is the completion. Empty elsewhere.
    """

    text: str
    stop: tuple[str, ...] = ()
    tool: bool = False
    shots: int = 0
    choices: tuple[str, ...] = ()


def modes_of(benchmark: str) -> tuple[str, ...]:
    """The modes of a benchmark.

    Raises:
      InputError: nothing is known of the benchmark.
    """
    if benchmark not in _MODES_OF:
        raise InputError(f"{benchmark!r} has no prompts; known are {', '.join(_MODES_OF)}")
    return _MODES_OF[benchmark]


def supports(benchmark: str, mode: str) -> bool:
    """Whether a benchmark can be asked in a mode."""
    return mode in _MODES_OF.get(benchmark, ())


def make_prompt(item: Item, mode: str) -> Prompt:
    """What a model is asked.

    Args:
      item: a problem of a benchmark.
      mode: for base models "few_shot" (worked examples), "few_shot_pot" (their solutions are programs) or "choice"
        (the letter of an option, by likelihood); for tuned ones, in the chat frame and without examples, "chat" or
        "chat_tool" (with Python).
    Raises:
      InputError: the benchmark has no such mode, or no examples for an unknown task of BBH; names what there is.
    Source: DeepSeekMath §2.3, §3 and the released evaluation; the examples are ours.
    """
    if mode not in modes_of(item.benchmark):
        raise InputError(f"{item.benchmark} has no mode {mode!r}; its modes are {', '.join(modes_of(item.benchmark))}")
    if mode in ("chat", "chat_tool"):
        return Prompt(_chat(item, mode), tool=mode == "chat_tool")
    if item.benchmark == "minif2f":
        text = isabelle.make_prompt(item)
        return Prompt(text, stop=isabelle.STOP, shots=text.count(isabelle.STOP[0]))
    layout = layouts.find_layout(item, mode)
    examples = [layout.ask(shot) + layout.solve(shot, _worked(shot, mode)) for shot in _find_shots(item)]
    parts = [part for part in (layout.head(item), *examples, layout.ask(item)) if part]
    letters = layouts.LETTERS[: len(item.choices)] if mode == "choice" else ""
    return Prompt(
        text="\n\n".join(parts),
        stop=layout.stop,
        shots=len(examples),
        choices=tuple(layout.solve(dataclasses.replace(item, answer=letter), "") for letter in letters),
    )


def stops(item: Item, mode: str) -> tuple[str, ...]:
    """Where a completion of a problem ends; see `Prompt.stop`."""
    if item.benchmark == "minif2f":
        return isabelle.STOP
    return () if mode in ("chat", "chat_tool") else layouts.find_layout(item, mode).stop


def cut(completion: str, stop: tuple[str, ...]) -> str:
    """A completion up to the first of the texts that end it."""
    return completion[: min((place for text in stop if (place := completion.find(text)) >= 0), default=None)]


def _chat(item: Item, mode: str) -> str:
    if item.benchmark == "humaneval":
        task = "Complete the following Python function. Answer with the whole function in a block of code."
        return f"User: {task}\n```python\n{item.question.strip()}\n```\n\nAssistant:"
    if item.benchmark == "mbpp":
        tests = f"Your code should pass these tests:\n```python\n{item.extra['tests']}\n```"
        return f"User: {item.question}\n{tests}\nAnswer with a block of Python code.\n\nAssistant:"
    return chat_prompt(layouts.pose(item), item.language, "tir" if mode == "chat_tool" else "cot")


def _find_shots(item: Item) -> tuple[Item, ...]:
    if item.benchmark == "humaneval":
        return ()
    name = f"bbh/{item.subject}" if item.benchmark == "bbh" else item.benchmark
    if not shots.has_shots(name):
        raise InputError(f"{name}: no examples are written for this task; leave it out, or ask in the mode chat")
    return shots.read_shots(name)


def _worked(shot: Item, mode: str) -> str:
    """The work of an example in a mode."""
    return shot.extra["program"] if mode == "few_shot_pot" or shot.benchmark == "mbpp" else shot.solution
