"""The worked examples of the few-shot prompts, written for this project: no benchmark's problem is among them."""

import functools
import importlib.resources
import tomllib

from dsmath.data.benchmarks.item import Item

_FOLDER = importlib.resources.files("dsmath.evaluation.prompts") / "examples"
_CHINESE = ("cmath", "mgsm_zh", "gaokao_mathcloze", "gaokao_mathqa")


def read_shots(name: str) -> tuple[Item, ...]:
    """The examples of a benchmark, or of one task of BBH, "bbh/navigate", in the order of the prompt.

    Where an example has a program or tests they are in `extra`; a choice's answer is its letter.
    """
    benchmark = name.partition("/")[0]
    language = "zh" if name in _CHINESE else "en"
    return tuple(
        Item(
            benchmark=benchmark,
            id=f"{name}/shot-{number}",
            question=example["question"].strip(),
            answer=example.get("answer", ""),
            solution=example.get("solution", "").strip(),
            choices=tuple(example.get("choices", ())),
            language=language,
            subject=example.get("subject", ""),
            extra={key: example[key].strip() for key in ("program", "tests") if key in example},
        )
        for number, example in enumerate(_read(name)["examples"], start=1)
    )


def read_task(name: str) -> str:
    """What a task of BBH asks for, in a sentence."""
    return _read(name)["task"]


def has_shots(name: str) -> bool:
    """Whether there are examples of this name."""
    return (_FOLDER / f"{name}.toml").is_file()


@functools.cache
def _read(name: str) -> dict:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
