"""From verdicts to figures: accuracy, pass@k and maj@k with their intervals, by subject and by level."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute

from dsmath.evaluation import metrics, published
from dsmath.evaluation.runners import has_votes
from dsmath.reward.answers import extract_answer, is_equivalent

_DESCRIPTION = ("benchmark", "title", "mode", "split", "coverage", "upstream", "left_out", "shots")
_GROUPS = ("subject", "level", "language")


def grade(table: pyarrow.Table) -> pyarrow.Table:
    """Adds `answer` (extracted, null where there is none) and `correct` to a table of completions."""
    answers = [extract_answer(completion) for completion in table["completion"].to_pylist()]
    golds = table["gold"].to_pylist()
    correct = [answer is not None and is_equivalent(answer, gold) for answer, gold in zip(answers, golds, strict=True)]
    table = table.append_column("answer", pyarrow.array(answers, pyarrow.string()))
    return table.append_column("correct", pyarrow.array(correct, pyarrow.bool_()))


def summarize(greedy: pyarrow.Table, samples: pyarrow.Table | None) -> dict[str, Any]:
    """The figures of a task.

    Args:
      greedy: a verdict a problem.
      samples: verdicts, as many for each problem, in the problems' order; None where nothing was sampled.
    Returns:
      accuracy of the greedy solutions with its 95 % interval, by subject, level and language too, and by the paper's
      grader where its verdicts are there; of the greedy solutions the shares without an answer, cut at the token limit,
      of programs that ran out of time and that failed; pass@k and maj@k of the samples with their intervals.
    """
    correct = _floats(greedy, "correct")
    reasons = greedy["reason"].to_pylist()
    low, high = metrics.share_interval(correct)
    figures = {
        "questions": len(correct),
        "accuracy": float(correct.mean()),
        "low": low,
        "high": high,
        "paper_accuracy": float(_floats(greedy, "correct_paper").mean())
        if "correct_paper" in greedy.column_names
        else None,
        "no_answer": reasons.count("no_answer") / len(reasons),
        "truncated": float(_floats(greedy, "truncated").mean()),
        "timeouts": reasons.count("timeout") / len(reasons),
        "errors": reasons.count("error") / len(reasons),
        "mean_tokens": pyarrow.compute.mean(greedy["tokens"]).as_py(),  # None where another program sampled
        **{f"by_{name}": _by_group(greedy[name].to_pylist(), correct) for name in _GROUPS},
        "samples": 0,
    }
    return figures if samples is None else figures | summarize_samples(samples, len(correct))


def summarize_samples(samples: pyarrow.Table, questions: int) -> dict[str, Any]:
    """pass@k and maj@k of samples for k = 1, 2, 4, … and all; no maj@k where answers are not compared."""
    size = samples.num_rows // questions
    ks = [k for k in (2**power for power in range(20)) if k < size] + [size]
    correct = np.array(samples["correct"].to_pylist()).reshape(questions, size)
    passes = [[metrics.pass_at_k(size, int(count), k) for k in ks] for count in correct.sum(axis=1)]
    found = {"samples": size, **_at_ks("pass_at", ks, passes)}
    if has_votes(samples["benchmark"][0].as_py()):
        votes = samples["vote"].to_pylist()
        majorities = [
            metrics.maj_at_ks(votes[row * size : (row + 1) * size], correct[row], ks) for row in range(questions)
        ]
        found |= _at_ks("maj_at", ks, [[accuracies[k] for k in ks] for accuracies in majorities])
    return found


def add_published(figures: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The figures with what the paper has for this benchmark, mode and model beside them; a model "" has nothing."""
    found = {"published": None, "difference": None}
    if model:
        of = (model, figures["benchmark"], figures["mode"])
        found["published"] = published.find(*of, split=figures["split"])
        if found["published"] is not None:
            found["difference"] = figures["accuracy"] - found["published"]
    return {**figures, **found}


def keep_description(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What of a record is no figure: `tasks.Task.describe`."""
    return {name: figures[name] for name in _DESCRIPTION}


def to_result(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `result.json` holds: all records, and of a single one its figures by themselves too."""
    found = {"results": list(results)}
    if len(results) == 1:
        names = ("questions", "accuracy", "no_answer", "truncated", "mean_tokens", "by_language", "samples")
        kept = (*names, "pass_at", "maj_at", "best_of", "weighted_maj")
        (only,) = results
        found |= {name: only[name] for name in kept if name in only}
        found |= {"accuracy_low": only["low"], "accuracy_high": only["high"]}
    return found


def _at_ks(name: str, ks: Sequence[int], values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Means over the problems by k, and their intervals."""
    columns = dict(zip(map(str, ks), np.array(values).T, strict=True))
    return {
        name: {k: float(column.mean()) for k, column in columns.items()},
        f"{name}_interval": {k: metrics.bootstrap_interval(column) for k, column in columns.items()},
    }


def _by_group(names: Sequence[str], correct: np.ndarray) -> dict[str, dict[str, float]]:
    """The accuracy of each subject, level or language; nothing where the benchmark has none."""
    groups = np.array(names)
    found = {}
    for name in sorted({name for name in names if name}):
        part = correct[groups == name]
        low, high = metrics.share_interval(part)
        found[name] = {"accuracy": float(part.mean()), "low": low, "high": high, "questions": len(part)}
    return found


def _floats(table: pyarrow.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist(), np.float64)
