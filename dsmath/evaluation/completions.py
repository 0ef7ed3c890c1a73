"""What a model answers: texts for the tasks that want some, and choices by the likelihood of their letters."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
from jax import Array

from dsmath.evaluation.tasks import COLUMNS, Task
from dsmath.reward import generations
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Request, Tool
from dsmath.runs.errors import InputError

GREEDY, SAMPLES = "greedy", "samples"  # the kinds of completions
CHOICE = "choice"  # the mode without a text, and its reason to finish
SCHEMA = pyarrow.schema([*COLUMNS, ("option_logprobs", pyarrow.list_(pyarrow.float32()))])  # of the files


def complete(
    tasks: Sequence[Task],
    engine: Engine,
    params: Any,
    *,
    kind: str,
    workdir: str | os.PathLike,
    num_samples: int,
    decoding: Decoding,
    eos_id: int,
    tool: Tool | None,
    key: Array,
    chunk_size: int,
    on_request: Callable[[], None],
) -> None:
    """Completes the prompts of all tasks together; files and samples that exist are kept.

    Args:
      tasks: any but choices.
      engine: with a codec.
      params: the model's parameters.
      kind: `GREEDY` or `SAMPLES`; the files lie in `Task.folder` of it, below the workdir.
      workdir: of the evaluation.
      num_samples: of a problem.
      decoding: of all.
      eos_id: ends a completion.
      tool: for the tasks whose prompts have one.
      key: root random key; a sample depends on it, on the problem and the mode, and on its number.
      chunk_size: problems of a file.
      on_request: called when the samples of a problem are there.
    Raises:
      InputError: there are generations of other prompts.
    """
    requests, records, files = [], [], {}
    for task in tasks:
        first = len(requests)
        files |= generations.divide(task.folder(workdir, kind), len(task.items), chunk_size, first)
        records += task.records()
        requests += [
            Request(
                first + place,
                tokens,
                num_samples,
                decoding,
                (eos_id,),
                stop=prompt.stop,
                tool=tool if prompt.tool else None,
                seed=seed,
            )
            for place, (tokens, prompt, seed) in enumerate(zip(task.tokens, task.prompts, task.seeds(), strict=True))
        ]
    check_files(files, records)
    generations.generate(engine, params, requests, records, SCHEMA, key=key, files=files, on_request=on_request)


def choose(
    task: Task, engine: Engine, *, workdir: str | os.PathLike, chunk_size: int, on_items: Callable[[int], None]
) -> None:
    """Chooses the likeliest option of every problem by one pass over its prompt; files that exist are kept.

    Args:
      task: in the mode "choice".
      engine: loaded.
      workdir: of the evaluation.
      chunk_size: problems of a file.
      on_items: called with the number of problems that are done.
    Raises:
      InputError: there are generations of other prompts.
    """
    files = generations.divide(task.folder(workdir, GREEDY), len(task.items), chunk_size)
    records = task.records()
    check_files(files, records)
    for file, places in files.items():
        if not file.exists():
            texts, options = ([values[place] for place in places] for values in (task.tokens, task.options))
            rows = [
                records[place] | _row(task.prompts[place].choices, task.options[place], logprobs)
                for place, logprobs in zip(places, engine.score_next(texts, options), strict=True)
            ]
            generations.write_table(file, pyarrow.Table.from_pylist(rows, schema=generations.make_schema(SCHEMA)))
        on_items(len(places))


def _row(options: Sequence[str], tokens: Sequence[int], logprobs: np.ndarray) -> dict[str, Any]:
    best = int(logprobs.argmax())
    return {
        "sample_index": 0,
        "completion": options[best],
        "tokens": 1,
        "token_ids": [tokens[best]],
        "truncated": False,
        "finish_reason": CHOICE,
        "option_logprobs": logprobs.tolist(),
    }


def check_files(files: Mapping[pathlib.Path, range], records: Sequence[Mapping[str, Any]]) -> None:
    """Refuses generations that exist and answer other prompts, such as those of another version of this code.

    Raises:
      InputError: names the file.
    """
    for file, places in files.items():
        if file.exists():
            there = generations.read_table(file, ["prompt_hash"])["prompt_hash"].unique().to_pylist()
            if set(there) != {records[place]["prompt_hash"] for place in places}:
                raise InputError(f"{file}: answers other prompts than this run's; give another --workdir")
