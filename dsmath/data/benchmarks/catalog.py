"""The benchmarks of the paper, in the order of its tables, and the reader of them all."""

import collections
import dataclasses
import difflib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from dsmath.data.benchmarks import bbh, chinese, choices, gsm8k, hendrycks_math, minif2f, ocw, programs
from dsmath.data.benchmarks.item import Item
from dsmath.runs.errors import InputError

_DEEPSEEK = "https://github.com/deepseek-ai/DeepSeek-Math evaluation/datasets"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is known of a benchmark before its files are read.

    Attributes:
      name: as in configs and file names.
      title: as in tables.
      kind: what is graded: "answer" (a final answer), "choice" (letters of options), "target" (a text, or a letter
        where an item has options), "code" (a program that passes tests) or "proof".
      language: "en" or "zh".
      files: by split, patterns below the benchmark's folder; the first that matches is read.
      sizes: by split, upstream's number of records.
      source: where upstream has the files.
      licence: what upstream states.
      reader: (files, split) -> items.
    """

    name: str
    title: str
    kind: str
    language: str
    files: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int]
    source: str
    licence: str
    reader: Callable[[Sequence[pathlib.Path], str], list[Item]] = dataclasses.field(repr=False)


_MBPP_FILES = ("mbpp.jsonl", "mbpp.jsonl.gz")

_ALL = (
    Benchmark(
        name="gsm8k",
        title="GSM8K",
        kind="answer",
        language="en",
        files={"test": ("test.jsonl", "deepseek_format_test.jsonl"), "train": ("train.jsonl",)},
        sizes={"test": 1319, "train": 7473},
        source="https://github.com/openai/grade-school-math grade_school_math/data",
        licence="MIT",
        reader=gsm8k.read,
    ),
    Benchmark(
        name="math",
        title="MATH",
        kind="answer",
        language="en",
        files={
            "test": ("test.jsonl", "test/*/*.json"),
            "train": ("train.jsonl", "train_concatenated.jsonl", "train/*/*.json"),
            "math500": ("math500_test.json", "math500.jsonl"),
        },
        sizes={"test": 5000, "train": 7500, "math500": 500},
        source="https://github.com/hendrycks/math",
        licence="MIT",
        reader=hendrycks_math.read,
    ),
    Benchmark(
        name="ocw",
        title="OCW",
        kind="answer",
        language="en",
        files={"test": ("test.jsonl",)},
        sizes={"test": 272},
        source=f"{_DEEPSEEK}/ocw",
        licence="MIT",
        reader=ocw.read,
    ),
    Benchmark(
        name="sat",
        title="SAT",
        kind="choice",
        language="en",
        files={"test": ("test.jsonl",)},
        sizes={"test": 32},
        source=f"{_DEEPSEEK}/sat",
        licence="MIT",
        reader=choices.read_sat,
    ),
    Benchmark(
        name="mmlu_stem",
        title="MMLU-STEM",
        kind="choice",
        language="en",
        files={"test": ("test.jsonl",)},
        sizes={"test": 3018},
        source=f"{_DEEPSEEK}/mmlu_stem",
        licence="MIT",
        reader=choices.read_mmlu_stem,
    ),
    Benchmark(
        name="mgsm_zh",
        title="MGSM-zh",
        kind="answer",
        language="zh",
        files={"test": ("mgsm_zh.jsonl", "test.jsonl")},
        sizes={"test": 250},
        source=f"{_DEEPSEEK}/mgsm_zh",
        licence="MIT",
        reader=gsm8k.read_chinese,
    ),
    Benchmark(
        name="cmath",
        title="CMATH",
        kind="answer",
        language="zh",
        files={"test": ("test.jsonl",)},
        sizes={"test": 1098},
        source=f"{_DEEPSEEK}/cmath",
        licence="MIT",
        reader=chinese.read_cmath,
    ),
    Benchmark(
        name="gaokao_mathcloze",
        title="Gaokao-MathCloze",
        kind="answer",
        language="zh",
        files={"test": ("gaokao-mathcloze.jsonl", "test.jsonl")},
        sizes={"test": 118},
        source=f"{_DEEPSEEK}/agieval",
        licence="MIT",
        reader=chinese.read_cloze,
    ),
    Benchmark(
        name="gaokao_mathqa",
        title="Gaokao-MathQA",
        kind="choice",
        language="zh",
        files={"test": ("gaokao-mathqa.jsonl", "test.jsonl")},
        sizes={"test": 351},
        source=f"{_DEEPSEEK}/agieval",
        licence="MIT",
        reader=choices.read_gaokao,
    ),
    Benchmark(
        name="minif2f",
        title="miniF2F",
        kind="proof",
        language="en",
        files={"test": ("test.jsonl",), "validation": ("validation.jsonl", "valid.jsonl")},
        sizes={"test": 244, "validation": 244},
        source=f"{_DEEPSEEK}/minif2f",
        licence="MIT",
        reader=minif2f.read,
    ),
    Benchmark(
        name="mmlu",
        title="MMLU",
        kind="choice",
        language="en",
        files={
            split: (f"{split}.jsonl", f"{split}/*_{split}.csv", f"data/{split}/*_{split}.csv")
            for split in ("test", "val", "dev")
        },
        sizes={"test": 14042, "val": 1531, "dev": 285},
        source="https://github.com/hendrycks/test",
        licence="MIT",
        reader=choices.read_mmlu,
    ),
    Benchmark(
        name="bbh",
        title="BBH",
        kind="target",
        language="en",
        files={"test": ("*.json", "bbh/*.json")},
        sizes={"test": 6511},
        source="https://github.com/suzgunmirac/BIG-Bench-Hard bbh",
        licence="MIT",
        reader=bbh.read,
    ),
    Benchmark(
        name="humaneval",
        title="HumanEval",
        kind="code",
        language="en",
        files={"test": ("HumanEval.jsonl.gz", "HumanEval.jsonl")},
        sizes={"test": 164},
        source="https://github.com/openai/human-eval data",
        licence="MIT",
        reader=programs.read_humaneval,
    ),
    Benchmark(
        name="mbpp",
        title="MBPP",
        kind="code",
        language="en",
        files=dict.fromkeys(programs.MBPP_SPLITS, _MBPP_FILES),
        sizes={split: len(numbers) for split, numbers in programs.MBPP_SPLITS.items()},
        source="https://github.com/google-research/google-research mbpp",
        licence="Apache-2.0",
        reader=programs.read_mbpp,
    ),
)
BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
      InputError: there is none; names the nearest.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), BENCHMARKS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"{name!r} is no benchmark; {hint}known are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def find_files(name: str, folder: str | os.PathLike, split: str = "test") -> list[pathlib.Path]:
    """The files of one split, in order; see `read`."""
    benchmark, root = find_benchmark(name), pathlib.Path(folder)
    if split not in benchmark.files:
        raise InputError(f"{name} has no split {split!r}; known are {', '.join(benchmark.files)}")
    here = root / name
    if not here.is_dir():
        raise InputError(f"{here}: no such folder; put {benchmark.title}'s files there, from {benchmark.source}")
    for pattern in benchmark.files[split]:
        if files := sorted(path for path in here.glob(pattern) if path.is_file()):
            return files
    raise InputError(
        f"{here / benchmark.files[split][0]}: no such file; fetch {benchmark.title} ({split}) from {benchmark.source}"
    )


def read(name: str, folder: str | os.PathLike, split: str = "test") -> list[Item]:
    """The problems of one split of a benchmark, each with an id of its own.

    Args:
      name: of the benchmark.
      folder: holds one folder a benchmark, called as it is.
      split: "test", or another that the benchmark has.
    Raises:
      InputError: unknown name or split, no such folder or file, an empty file, or a damaged record; the message names
        file, line and field.
    """
    files = find_files(name, folder, split)
    items = find_benchmark(name).reader(files, split)
    if not items:
        raise InputError(f"{files[0]}: holds no record of the split {split!r}; fetch the whole file again")
    return _tell_apart(items)


def coverage(name: str, split: str, items: Sequence[Item]) -> str:
    """How much of upstream's split is here: "916 of 1,319", or "all 1,319"."""
    whole = find_benchmark(name).sizes[split]
    return f"all {whole:,}" if len(items) == whole else f"{len(items):,} of {whole:,}"


def _tell_apart(items: Sequence[Item]) -> list[Item]:
    """Gives what stands there twice a number behind its id."""
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for item in items:
        seen[item.id] += 1
        found.append(item if seen[item.id] == 1 else dataclasses.replace(item, id=f"{item.id}-{seen[item.id]}"))
    return found
