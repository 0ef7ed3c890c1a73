"""Samples chosen by a reward model: the best of n, and a majority whose votes weigh what their samples score."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow

from dsmath.evaluation import metrics
from dsmath.reward.groups import Group, Labelled
from dsmath.reward.models import PROCESS, SIGMOID
from dsmath.reward.steps import step_ends
from dsmath.runs.errors import InputError

AGGREGATES = ("min", "product", "last")


def check(how: str) -> None:
    """Refuses a way to aggregate steps that is none.

    Raises:
      InputError: names the field.
    """
    if how not in AGGREGATES:
        raise InputError(f"config.aggregate: {how!r} is none of {', '.join(AGGREGATES)}")


def aggregate(scores: np.ndarray, how: str) -> float:
    """One score of a solution, of those of its steps.

    Args:
      scores: float32 [steps], one at least.
      how: "min" (Math-Shepherd §3.4), "product" (Lightman et al. 2023 §2.6) or "last" (Snell et al. 2024).
    """
    return float({"min": np.min, "product": np.prod, "last": lambda x: x[-1]}[how](scores))


def to_groups(samples: pyarrow.Table, prompts: Sequence[Sequence[int]], kind: str, decode: Any) -> list[Group]:
    """Samples as a reward model reads them.

    Args:
      samples: rows with question_index and token_ids, as many for each question, in order.
      prompts: token ids by question.
      kind: of the reward model.
      decode: token ids to text.
    """
    groups: list[Group] = []
    for row in samples.select(["question_index", "token_ids"]).to_pylist():
        if row["question_index"] == len(groups):
            groups.append(Group(prompts[len(groups)], []))
        ends = np.array(step_ends(row["token_ids"], decode) if kind == PROCESS else [], np.int32)
        tokens = np.array(row["token_ids"], np.int32)
        groups[-1].solutions.append(Labelled(tokens, np.nan, ends, np.zeros(len(ends), np.float32), False))
    return groups


def best_of_ks(scores: Sequence[float], correct: Sequence[bool], ks: Sequence[int]) -> dict[int, float]:
    """The chance that the best of k of a problem's n samples is right, for several k, over all subsets of k.

    Args:
      scores: of the n samples; of equal ones the earlier counts as better.
      correct: whether each is right.
      ks: sizes of the choice, up to n.
    Returns:
      the chance by k.
    Source: Nakano et al. 2021 (WebGPT), the estimator of best-of-n.
    """
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    n = len(order)
    # The sample of rank r is the best of the subsets that hold it and k - 1 of those behind it.
    return {
        k: sum(math.comb(n - 1 - rank, k - 1) for rank, index in enumerate(order) if correct[index]) / math.comb(n, k)
        for k in ks
    }


def summarize(samples: pyarrow.Table, group_size: int, ks: Sequence[int], loss: str) -> dict[str, dict[str, float]]:
    """`best_of` and `weighted_maj` of graded samples at every k.

    Equivalent answers share their votes. A vote weighs the score of its sample where that is a probability, else the
    score behind a sigmoid, after the mean of the problem's scores is taken away: pairs fix differences alone.

    Args:
      samples: rows with vote (its group of equivalent answers), correct and score; `group_size` of them for each
        problem.
      group_size: n.
      ks: up to n.
      loss: of the reward model.
    Source: Math-Shepherd (Wang et al. 2023) §3.4.
    """
    columns = {name: samples[name].to_pylist() for name in ("vote", "correct", "score")}
    best: dict[int, list[float]] = {k: [] for k in ks}
    voted: dict[int, list[float]] = {k: [] for k in ks}
    for start in range(0, samples.num_rows, group_size):
        votes, correct, scores = (column[start : start + group_size] for column in columns.values())
        for k, share in best_of_ks(scores, correct, ks).items():
            best[k].append(share)
        values = np.array(scores, np.float64)
        weights = values if loss == SIGMOID else 1 / (1 + np.exp(values.mean() - values))
        for k, share in metrics.maj_at_ks(votes, correct, ks, weights=weights.tolist()).items():
            voted[k].append(share)
    return {
        name: {str(k): float(np.mean(shares)) for k, shares in found.items()}
        for name, found in (("best_of", best), ("weighted_maj", voted))
    }
