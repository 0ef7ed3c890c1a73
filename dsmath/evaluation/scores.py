"""From completions to figures: verdicts, accuracy, pass@k, maj@k."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow

from dsmath.evaluation import metrics
from dsmath.reward.answers import extract_answer, is_equivalent


def grade(table: pyarrow.Table) -> pyarrow.Table:
    """Adds `answer` (extracted, null where there is none) and `correct` to a table of completions."""
    answers = [extract_answer(completion) for completion in table["completion"].to_pylist()]
    golds = table["gold"].to_pylist()
    correct = [answer is not None and is_equivalent(answer, gold) for answer, gold in zip(answers, golds, strict=True)]
    table = table.append_column("answer", pyarrow.array(answers, pyarrow.string()))
    return table.append_column("correct", pyarrow.array(correct, pyarrow.bool_()))


def summarize(greedy: pyarrow.Table, samples: pyarrow.Table) -> dict[str, Any]:
    """The figures of an evaluation.

    Args:
      greedy: a graded row a problem.
      samples: graded rows, as many for each problem, in the problems' order.
    Returns:
      accuracy of the greedy solutions with its 95 % interval, by language too; pass@k and maj@k of the samples for
      k = 1, 2, 4, … and all; shares of greedy solutions without an answer and cut at the token limit.
    """
    correct = np.array(greedy["correct"].to_pylist())  # [questions]
    low, high = metrics.accuracy_interval(int(correct.sum()), len(correct))
    questions = len(correct)
    group_size = samples.num_rows // questions
    sampled = np.array(samples["correct"].to_pylist()).reshape(questions, group_size)
    ks = [k for k in (2**power for power in range(20)) if k < group_size] + [group_size]
    return {
        "questions": questions,
        "samples": group_size,
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "pass_at": {
            str(k): float(np.mean([metrics.pass_at_k(group_size, int(c), k) for c in sampled.sum(axis=1)])) for k in ks
        },
        "maj_at": _maj_at(samples, sampled, ks),
        "no_answer": greedy["answer"].null_count / questions,
        "truncated": float(np.mean(greedy["truncated"].to_pylist())),
        "mean_tokens": float(np.mean(greedy["tokens"].to_pylist())),
        "by_language": _by_language(greedy, correct),
    }


def _maj_at(samples: pyarrow.Table, sampled: np.ndarray, ks: list[int]) -> dict[str, float]:
    answers, golds = samples["answer"].to_pylist(), samples["gold"].to_pylist()
    questions, group_size = sampled.shape
    accuracies: dict[int, list[float]] = {k: [] for k in ks}
    for question in range(questions):
        start = question * group_size
        for k, accuracy in metrics.maj_at_ks(answers[start : start + group_size], golds[start], ks).items():
            accuracies[k].append(accuracy)
    return {str(k): float(np.mean(values)) for k, values in accuracies.items()}


def _by_language(greedy: pyarrow.Table, correct: np.ndarray) -> Mapping[str, dict[str, float]]:
    languages = np.array(greedy["language"].to_pylist())
    return {
        language: {
            "accuracy": float(correct[languages == language].mean()),
            "questions": int((languages == language).sum()),
        }
        for language in sorted(set(languages.tolist()))
    }
