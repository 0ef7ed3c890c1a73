"""What an evaluation asks: the problems of each benchmark in each mode, with their prompts."""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow
from absl import logging

from dsmath.data import problems
from dsmath.data.benchmarks.catalog import BENCHMARKS, coverage, find_benchmark, find_files, read
from dsmath.data.benchmarks.item import Item
from dsmath.data.benchmarks.records import name_by_text
from dsmath.data.solutions import read_json_lines
from dsmath.data.tokenizer import Tokenizer
from dsmath.evaluation.prompts import MODES, Prompt, make_prompt, modes_of
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_atomically

COLUMNS = pyarrow.schema(
    (name, pyarrow.string())
    for name in ("benchmark", "mode", "id", "subject", "level", "language", "question", "gold", "prompt_hash")
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A benchmark's problems.

    Attributes:
      benchmark, title, split: of the benchmark.
      items: those that are asked.
      upstream: how many the whole split has.
      coverage: which part of them the items are: "916 of 1,319".
      files: that they were read from.
    """

    benchmark: str
    title: str
    split: str
    items: tuple[Item, ...]
    upstream: int
    coverage: str
    files: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """A benchmark in one mode.

    Attributes:
      source: its problems.
      mode: how they are asked.
      items: those whose prompts fit into the model's context.
      prompts: theirs.
      tokens: of the prompts.
      options: in the mode "choice", of each problem the token by which each option is told; else empty.
    """

    source: Source
    mode: str
    items: tuple[Item, ...]
    prompts: tuple[Prompt, ...]
    tokens: tuple[Sequence[int], ...]
    options: tuple[Sequence[int], ...]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.source.benchmark}-{self.mode}"

    def folder(self, workdir: str | os.PathLike, kind: str) -> pathlib.Path:
        """Where its generations lie; of kind "greedy" or "samples"."""
        return generations_folder(workdir, self.source.benchmark, self.mode, kind)

    def describe(self) -> dict[str, Any]:
        """What stands beside its figures."""
        source = self.source
        left_out = len(source.items) - len(self.items)
        asked = source.coverage if not left_out else f"{len(self.items):,} of {source.upstream:,}"
        return {
            "benchmark": source.benchmark,
            "title": source.title,
            "mode": self.mode,
            "split": source.split,
            "coverage": asked,
            "upstream": source.upstream,
            "left_out": left_out,
            "shots": max(prompt.shots for prompt in self.prompts),
        }

    def records(self) -> list[dict[str, Any]]:
        """What the rows of each problem hold besides the sample."""
        return [
            record(item, self.mode, hash_prompt(prompt.text), index)
            for index, (item, prompt) in enumerate(zip(self.items, self.prompts, strict=True))
        ]

    def seeds(self) -> list[int]:
        """A problem's random stream, whatever else is asked."""
        names = (f"{self.source.benchmark}/{self.mode}/{item.id}" for item in self.items)
        return [int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") for name in names]


def record(item: Item, mode: str, prompt_hash: str, index: int) -> dict[str, Any]:
    """What the rows of a problem hold besides the sample; `index` is its place among those that are asked."""
    return {
        "question_index": index,
        "benchmark": item.benchmark,
        "mode": mode,
        "id": item.id,
        "subject": item.subject,
        "level": item.level,
        "language": item.language,
        "question": item.question,
        "gold": item.answer,
        "prompt_hash": prompt_hash,
    }


def hash_prompt(text: str) -> str:
    """The first 16 hexadecimal digits of a prompt's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_sources(config: Any) -> list[Source]:
    """The problems of each benchmark that a config names.

    Args:
      config: benchmarks, problems, folder, split, num_problems, seed. "embedded" is what `problems` says.
    Raises:
      InputError: an unknown benchmark, one that is named twice, missing or damaged files; names the field.
    """
    names = split_names(config.benchmarks)
    if not names:
        raise InputError("config.benchmarks: empty; name one at least, such as 'gsm8k'")
    sources = [_embedded(config) if name == problems.EMBEDDED else _read(name, config) for name in names]
    found = [source.benchmark for source in sources]
    if repeated := {name for name in found if found.count(name) > 1}:
        raise InputError(f"config.benchmarks: {repeated.pop()!r} is there twice; name it once")
    return sources


def split_names(names: Sequence[str]) -> list[str]:
    """The names in a config's tuple, each of which may be several with commas."""
    return [name for part in names for name in part.replace(" ", "").split(",") if name]


def _embedded(config: Any) -> Source:
    records = problems.load(config.problems, "test", count=config.num_problems, seed=config.seed)
    files = tuple(problems.files(config.problems, "test"))
    name = "gsm8k" if files else problems.EMBEDDED
    items = tuple(
        Item(
            benchmark=name,
            id=name_by_text(record.question),
            question=record.question,
            answer=record.answer,
            solution=record.solution,
            language=record.language,
            subject="" if files else record.source.split("/")[1],  # the kind of problem
        )
        for record in records
    )
    if files:
        upstream = BENCHMARKS[name].sizes["test"]
        return Source(name, BENCHMARKS[name].title, "test", items, upstream, coverage(name, "test", items), files)
    title = "Embedded problems" + (" with large numbers" if config.problems == problems.LARGE else "")
    return Source(name, title, "test", items, len(items), f"all {len(items):,}", files)


def _read(name: str, config: Any) -> Source:
    try:
        benchmark = find_benchmark(name)
    except InputError as error:
        raise InputError(f"config.benchmarks: {error}") from error
    if config.split not in benchmark.sizes:
        raise InputError(f"config.split: {name} has no split {config.split!r}, but {', '.join(benchmark.sizes)}")
    try:
        return read_benchmark(name, config.folder, config.split, config.num_problems)
    except InputError as error:
        raise InputError(f"config.folder={config.folder!r}: {error}") from error


def read_benchmark(name: str, folder: str | os.PathLike, split: str, count: int = 0) -> Source:
    """A benchmark's problems from its files.

    Args:
      name: of the benchmark.
      folder: holds one folder a benchmark.
      split: of it.
      count: of the problems, spread over the file, which may be in the order of subjects; 0: all.
    Raises:
      InputError: see `dsmath.data.benchmarks.catalog.read`.
    """
    items = read(name, folder, split)
    count = min(count or len(items), len(items))
    items = tuple(items[index * len(items) // count] for index in range(count))
    benchmark, files = find_benchmark(name), tuple(find_files(name, folder, split))
    return Source(name, benchmark.title, split, items, benchmark.sizes[split], coverage(name, split, items), files)


def make_tasks(sources: Sequence[Source], modes: Any, tokenizer: Tokenizer, length: int) -> list[Task]:
    """Each benchmark in each mode that it has.

    Args:
      sources: the problems.
      modes: for all benchmarks, those that one does not have are left out of it; or by benchmark.
      tokenizer: the model's.
      length: tokens of the model's context; problems with longer prompts are left out, with a warning. 0: no limit.
    Raises:
      InputError: a benchmark has none of the modes, or none of its prompts fits.
    """
    tasks = []
    for source in sources:
        by_name = isinstance(modes, Mapping)
        asked = split_names(modes.get(source.benchmark, ()) if by_name else modes)
        for mode in asked:
            if mode not in MODES:
                raise InputError(f"config.modes: {mode!r} is none of {', '.join(MODES)}")
        here = [mode for mode in asked if mode in modes_of(source.benchmark)]
        if not here or (by_name and len(here) < len(asked)):
            raise InputError(
                f"config.modes: {source.benchmark} has {', '.join(modes_of(source.benchmark))}, and "
                f"{', '.join(asked) or 'no mode'} is asked; change config.modes or config.benchmarks"
            )
        tasks += [_make_task(source, mode, tokenizer, length) for mode in here]
    return tasks


def _make_task(source: Source, mode: str, tokenizer: Tokenizer, length: int) -> Task:
    prompts = [make_prompt(item, mode) for item in source.items]
    encoded = [encode(prompt, tokenizer) for prompt in prompts]
    tokens = [ids for ids, _ in encoded]
    fitting = [place for place, ids in enumerate(tokens) if not length or len(ids) < length]
    if not fitting:
        raise InputError(
            f"config.length: no prompt of {source.benchmark} in the mode {mode} fits into {length} tokens, the model's "
            f"context; the shortest has {min(map(len, tokens))}. Leave it out, or raise config.length"
        )
    if len(fitting) < len(tokens):
        logging.warning(
            "%s, %s: %d of %d prompts do not fit into config.length=%d tokens, the model's context; they are left out",
            *(source.title, mode, len(tokens) - len(fitting), len(tokens), length),
        )
    options = [ids for _, ids in encoded]
    chosen = ([values[place] for place in fitting] for values in (source.items, prompts, tokens, options))
    return Task(source, mode, *map(tuple, chosen))


def encode(prompt: Prompt, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """A prompt's tokens, and of a choice the token in which each option differs from the others.

    A tokenizer may join an option's first letters with the prompt's last ones, so the two are encoded as one text; what
    all options share belongs to the prompt.

    Raises:
      InputError: two options begin with one token.
    """
    if not prompt.choices:
        return [tokenizer.bos_id, *tokenizer.encode(prompt.text)], []
    texts = [[tokenizer.bos_id, *tokenizer.encode(prompt.text + option)] for option in prompt.choices]
    same = (len(set(column)) == 1 for column in zip(*texts, strict=False))
    shared = texts[0][: len(list(itertools.takewhile(bool, same)))]
    ends = [text[len(shared)] if len(text) > len(shared) else tokenizer.eos_id for text in texts]
    if len(set(ends)) < len(ends):
        raise InputError(f"the options {', '.join(map(repr, prompt.choices))} are no different tokens to this model")
    return shared, ends


def write_items(workdir: str | os.PathLike, source: Source, anew: bool = False) -> None:
    """Keeps a benchmark's problems beside what is made of them, for grading and for the page.

    Args:
      workdir: of the evaluation.
      source: the problems.
      anew: whether those that are there already are written over.
    """
    path = items_file(workdir, source.benchmark)
    if anew or not path.exists():
        lines = (json.dumps(dataclasses.asdict(item), ensure_ascii=False) for item in source.items)
        write_atomically(path, "".join(line + "\n" for line in lines))


def read_items(path: str | os.PathLike) -> dict[str, Item]:
    """Problems by id, as `write_items` wrote them.

    Raises:
      InputError: no such file, or a damaged one.
    """
    items = {}
    for place, record in read_json_lines(path):
        try:
            item = Item(**record | {"choices": tuple(record["choices"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{place}: {error}; it is no problem that an evaluation has kept") from error
        items[item.id] = item
    return items


def items_file(workdir: str | os.PathLike, benchmark: str) -> pathlib.Path:
    """Where `write_items` writes."""
    return pathlib.Path(workdir) / "items" / f"{benchmark}.jsonl"


def generations_folder(workdir: str | os.PathLike, benchmark: str, mode: str, kind: str) -> pathlib.Path:
    """Where the generations of a benchmark in a mode lie."""
    return pathlib.Path(workdir) / "generations" / benchmark / mode / kind
