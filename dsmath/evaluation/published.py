"""The paper's published results, quoted to stand beside our own: never ours, never measured here.

Only rows that our sources give without doubt: the summary of the paper has Minerva's MMLU-STEM in a wrong column (put
right here) and Table 6 shifted (left out). A share such as 0.642 is 64.2 % in the paper.
"""

import dataclasses
from collections.abc import Iterator, Mapping

BASE, INSTRUCT, RL = "DeepSeekMath-Base 7B", "DeepSeekMath-Instruct 7B", "DeepSeekMath-RL 7B"
ACCURACY = "accuracy"


@dataclasses.dataclass(frozen=True)
class Row:
    """One published figure.

    Attributes:
      model: as the paper calls it, with its size.
      benchmark, mode: this project's names.
      shots: examples in the prompt; None where our sources do not say it.
      value: a share of the problems.
      source: section and table of the paper.
      split: of the benchmark.
      metric: "accuracy", or "maj@k".
    """

    model: str
    benchmark: str
    mode: str
    shots: int | None
    value: float
    source: str
    split: str = "test"
    metric: str = ACCURACY


# Per cent, in the order of the paper's columns; None where the paper has a dash.
_TABLE_2_SHOTS = {
    "gsm8k": 8, "math": 4, "ocw": 4, "sat": 4, "mmlu_stem": 4, "cmath": 6, "gaokao_mathcloze": 5, "gaokao_mathqa": 5,
}  # fmt: skip
_TABLE_2 = {
    "Minerva 7B": (16.2, 14.1, 7.7, None, 35.6, None, None, None),
    "Minerva 62B": (52.4, 27.6, 12.0, None, 53.9, None, None, None),
    "Minerva 540B": (58.8, 33.6, 17.6, None, 63.9, None, None, None),
    "Mistral 7B": (40.3, 14.3, 9.2, 71.9, 51.1, 44.9, 5.1, 23.4),
    "Llemma 7B": (37.4, 18.1, 6.3, 59.4, 43.1, 43.4, 11.9, 23.6),
    "Llemma 34B": (54.0, 25.3, 10.3, 71.9, 52.9, 56.1, 11.9, 26.2),
    BASE: (64.2, 36.2, 15.4, 84.4, 56.5, 71.7, 20.3, 35.3),
}
_TABLE_4_SHOTS = {"mmlu": 5, "bbh": 3, "humaneval": 0, "mbpp": 3}
_TABLE_4 = {
    "DeepSeek-Coder-Base-v1.5 7B before its learning-rate decay": (42.9, 42.9, 40.2, 52.6),
    BASE: (54.9, 59.5, 40.9, 52.6),
}
_TABLE_5_SHOTS = {"gsm8k": 0, "math": 0, "mgsm_zh": 0, "cmath": 0}
_TABLE_5 = {
    "chat": {
        "Gemini Ultra": (94.4, 53.2, None, None),
        "GPT-4": (92.0, 52.9, None, 86.0),
        "InternLM2-Math 20B": (82.6, 37.7, None, None),
        "Qwen 72B": (78.9, 35.2, None, None),
        "WizardMath-v1.1 7B": (83.2, 33.0, None, None),
        "DeepSeek-LLM-Chat 67B": (84.1, 32.6, 74.0, 80.3),
        "MetaMath 70B": (82.3, 26.6, 66.4, 70.9),
        INSTRUCT: (82.9, 46.8, 73.2, 84.6),
        RL: (88.2, 51.7, 79.6, 88.8),
    },
    "chat_tool": {
        "GPT-4 Code Interpreter": (97.0, 69.7, None, None),
        "InternLM2-Math 20B": (80.7, 54.3, None, None),
        "DeepSeek-LLM-Chat 67B": (86.7, 51.1, 76.4, 85.4),
        "ToRA 34B": (80.7, 50.8, 41.2, 53.4),
        INSTRUCT: (83.7, 57.4, 72.0, 84.3),
        RL: (86.7, 58.8, 78.4, 87.6),
    },
}
_OURS = (BASE, INSTRUCT, RL)  # the models whose prompts our sources describe


def _read(
    table: Mapping[str, tuple[float | None, ...]], shots: Mapping[str, int], mode: str, source: str
) -> Iterator[Row]:
    for model, values in table.items():
        for benchmark, percent in zip(shots, values, strict=True):
            if percent is not None:
                known = shots[benchmark] if model in _OURS else None
                yield Row(model, benchmark, mode, known, _share(percent), source)


def _share(percent: float) -> float:
    return round(percent / 100, 4)


ROWS: tuple[Row, ...] = (
    *_read(_TABLE_2, _TABLE_2_SHOTS, "few_shot", "§2.3, Table 2"),
    Row(BASE, "gsm8k", "few_shot_pot", 8, _share(66.9), "§2.3, Table 3"),
    Row(BASE, "math", "few_shot_pot", 4, _share(31.4), "§2.3, Table 3"),
    Row(BASE, "minif2f", "few_shot", None, _share(25.8), "§2.3, Table 3", split="validation"),
    Row(BASE, "minif2f", "few_shot", None, _share(24.6), "§2.3, Table 3"),
    *_read(_TABLE_4, _TABLE_4_SHOTS, "few_shot", "§2.3, Table 4"),
    *(row for mode, table in _TABLE_5.items() for row in _read(table, _TABLE_5_SHOTS, mode, "§3, Table 5")),
    Row(RL, "math", "chat", 0, _share(60.9), "abstract", metric="maj@64"),
)
MODELS: tuple[str, ...] = tuple(dict.fromkeys(row.model for row in ROWS))


def find(model: str, benchmark: str, mode: str, *, split: str = "test", metric: str = ACCURACY) -> float | None:
    """The published share of problems, None where the paper has none.

    Args:
      model: one of `MODELS`, such as `RL`.
      benchmark, mode, split: of the evaluation.
      metric: "accuracy", or "maj@64".
    """
    wanted = (model, benchmark, mode, split, metric)
    return next((row.value for row in ROWS if wanted == _key(row)), None)


def _key(row: Row) -> tuple[str, ...]:
    return row.model, row.benchmark, row.mode, row.split, row.metric
