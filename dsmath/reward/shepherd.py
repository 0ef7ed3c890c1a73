"""Labels of steps without people: from each step's prefix, how many sampled completions reach the gold answer?

Source: Math-Shepherd (Wang et al. 2023) §3.3; DeepSeekMath §4.2.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import pyarrow
from jax import Array

from dsmath.data.tokenizer import Tokenizer
from dsmath.reward.rules import answer_rewards
from dsmath.reward.steps import step_ends
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Request
from dsmath.runs import processes


class _Prefix(NamedTuple):
    """A solution's beginning that is to be completed."""

    prompt: Sequence[int]
    tokens: Sequence[int]
    gold: str


def label(
    table: pyarrow.Table,
    prompts: Sequence[Sequence[int]],
    engine: Engine,
    params: Any,
    tokenizer: Tokenizer,
    *,
    num_completions: int,
    decoding: Decoding,
    key: Array,
) -> pyarrow.Table:
    """Labels every step of a table of graded samples; a prefix that several samples share is completed once.

    The last step is the whole solution: its label is whether the answer is right.

    Args:
      table: rows with question_index, gold, token_ids and correct.
      prompts: token ids by question_index.
      engine, params: of the model that completes.
      tokenizer: of that model.
      num_completions: N, of each prefix.
      decoding: of the samples; a prefix and its completion together have at most max_new_tokens.
      key: root random key; the table's first question is folded in.
    Returns:
      the table with step_ends, step_hits (how many completions of each step's prefix reach the gold answer; of the last
      step all or none) and completions (N).
    """
    rows = table.select(["question_index", "gold", "token_ids", "correct"]).to_pylist()
    ends = [step_ends(row["token_ids"], tokenizer.decode) for row in rows]
    prefixes: dict[tuple[int, str], _Prefix] = {}  # by question and text
    keys = [[] for _ in rows]  # of each row's steps; None for what is the whole solution
    for row, of_row, of_steps in zip(rows, ends, keys, strict=True):
        for end in of_row:
            begun = row["token_ids"][: end + 1]
            step = None if end == of_row[-1] else (row["question_index"], tokenizer.decode(begun))
            of_steps.append(step)
            if step and step not in prefixes:
                prefixes[step] = _Prefix(prompts[row["question_index"]], begun, row["gold"])
    hits = dict(
        zip(
            prefixes,
            _count_hits(
                list(prefixes.values()),
                engine,
                params,
                jax.random.fold_in(key, rows[0]["question_index"]),
                tokenizer,
                num_completions=num_completions,
                decoding=decoding,
            ),
            strict=True,
        )
    )
    step_hits = [
        [hits[step] if step else num_completions * row["correct"] for step in of_steps]
        for row, of_steps in zip(rows, keys, strict=True)
    ]
    table = table.append_column("step_ends", pyarrow.array(ends, pyarrow.list_(pyarrow.int32())))
    table = table.append_column("step_hits", pyarrow.array(step_hits, pyarrow.list_(pyarrow.int32())))
    return table.append_column("completions", pyarrow.array([num_completions] * len(rows), pyarrow.int32()))


def _count_hits(
    prefixes: Sequence[_Prefix],
    engine: Engine,
    params: Any,
    key: Array,
    tokenizer: Tokenizer,
    *,
    num_completions: int,
    decoding: Decoding,
) -> list[int]:
    """How many completions of each prefix reach the gold answer.

    One process grades for all: a limit of time may fall otherwise in another.
    """
    requests = [
        Request(
            index,
            [*prefix.prompt, *prefix.tokens],
            num_completions,
            dataclasses.replace(decoding, max_new_tokens=decoding.max_new_tokens - len(prefix.tokens)),
            (tokenizer.eos_id,),
        )
        for index, prefix in enumerate(prefixes)
    ]
    hits = [0] * len(prefixes)
    solutions: dict[int, list[str]] = collections.defaultdict(list)  # by prefix
    for completion in engine.generate(params, requests, key):
        index = completion.request_id
        prefix, of_prefix = prefixes[index], solutions[index]
        of_prefix.append(tokenizer.decode([*prefix.tokens, *completion.tokens]))
        if len(of_prefix) == num_completions:
            graded = solutions.pop(index)
            if processes.is_main():
                hits[index] = int(answer_rewards(graded, [prefix.gold] * num_completions).sum())
    return processes.broadcast(hits)
