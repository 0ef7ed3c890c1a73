"""How well a reward model's scores agree with labels that it has not seen."""

from collections.abc import Sequence

import numpy as np
import scipy  # which imports scipy.stats, a second's work, where it is used

from dsmath.reward.groups import Group
from dsmath.reward.models import OUTCOME, SIGMOID, RewardModel


def summarize(
    reward_model: RewardModel, groups: Sequence[Group], scores: Sequence[Sequence[np.ndarray]], threshold: float
) -> dict[str, float | int | None]:
    """The figures of held-out solutions.

    Args:
      reward_model: kind and loss.
      groups: with labels.
      scores: of each solution of each group, as `dsmath.reward.training.make_scores` gives them.
      threshold: a probability, and likewise a soft label, from here on says right. A hard label is right
        where it is 1.
    Returns:
      `heldout_labels`, `heldout_right` (the share of right ones), `auc`; for probabilities `accuracy`; of outcomes
      `pair_accuracy`, see `order_pairs`; of steps what `find_first_errors` gives. A figure that no label speaks of is
      None.
    """
    pairs = [
        (s, score)
        for g, of_group in zip(groups, scores, strict=True)
        for s, score in zip(g.solutions, of_group, strict=True)
    ]
    if reward_model.kind == OUTCOME:
        known = [(solution.label >= threshold, score[0]) for solution, score in pairs if not np.isnan(solution.label)]
    else:
        known = [
            (label >= threshold, score)
            for solution, of_steps in pairs
            for label, score in zip(solution.step_labels, of_steps, strict=True)
        ]
    labels = np.array([label for label, _ in known], bool)
    values = np.array([score for _, score in known], np.float64)
    found = {
        "heldout_labels": len(known),
        "heldout_right": float(labels.mean()) if len(known) else None,
        "auc": auc(labels, values),
    }
    if reward_model.loss == SIGMOID:
        found["accuracy"] = float(np.mean((values >= threshold) == labels)) if len(known) else None
    if reward_model.kind == OUTCOME:
        return found | {"pair_accuracy": order_pairs(groups, scores)}
    whole = [
        (solution.step_labels >= threshold, of_steps >= threshold) for solution, of_steps in pairs if solution.whole
    ]
    return found | find_first_errors(*zip(*whole, strict=True)) if whole else found


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The share of right and wrong ones that are in order, equal scores counting half; None without both.

    Args:
      labels: bool [n].
      scores: [n].
    Source: Hanley and McNeil 1982.
    """
    right = int(labels.sum())
    wrong = len(labels) - right
    if not right or not wrong:
        return None
    ranks = scipy.stats.rankdata(scores)
    return float((ranks[labels].sum() - right * (right + 1) / 2) / (right * wrong))


def order_pairs(groups: Sequence[Group], scores: Sequence[Sequence[np.ndarray]]) -> float | None:
    """The share of a question's pairs of a right and a wrong solution that are in order, averaged over questions."""
    shares = []
    for group, of_group in zip(groups, scores, strict=True):
        labels = np.array([solution.label for solution in group.solutions])
        known = ~np.isnan(labels)
        shares.append(auc(labels[known] > 0.5, np.array([score[0] for score in of_group])[known]))
    shares = [share for share in shares if share is not None]
    return float(np.mean(shares)) if shares else None


def find_first_errors(labels: Sequence[np.ndarray], judged: Sequence[np.ndarray]) -> dict[str, float | int | None]:
    """How often the first wrong step is found.

    Args:
      labels: bool [steps] of each solution, whether a step is right.
      judged: bool [steps], whether it is held to be right.
    Returns:
      `first_error_found`, of the solutions with a wrong step those whose first one is named; `right_found`, of the
      others those in which no step is named; `first_error_f1`, the harmonic mean of both; and `solutions_with_error`
      and `solutions_without_error`. None where there is no such solution.
    Source: ProcessBench (Zheng et al. 2024), §3.
    """
    truths, named = np.array([_first(steps) for steps in labels]), np.array([_first(steps) for steps in judged])
    found = {
        name: float(np.mean(named[of] == truths[of])) if of.any() else None
        for name, of in (("first_error_found", truths >= 0), ("right_found", truths < 0))
    }
    wrong, right = found.values()
    f1 = None if wrong is None or right is None else 2 * wrong * right / (wrong + right) if wrong + right else 0.0
    counts = {"solutions_with_error": int((truths >= 0).sum()), "solutions_without_error": int((truths < 0).sum())}
    return found | {"first_error_f1": f1} | counts


def _first(steps: np.ndarray) -> int:
    """The first step that is not right, -1 where all are."""
    wrong = np.flatnonzero(~steps)
    return int(wrong[0]) if len(wrong) else -1
