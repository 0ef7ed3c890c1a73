"""Metrics over n sampled answers a problem: accuracy, pass@k and maj@k."""

import itertools
import math
import random
from collections.abc import Sequence

from scipy import stats

from dsmath.reward.answers import is_equivalent


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of k samples is right: 1 - C(n-c, k) / C(n, k), unbiased.

    Args:
      n: samples of the problem.
      c: how many of them are right.
      k: samples that are drawn without replacement.
    Raises:
      ValueError: not 1 <= k <= n, or not 0 <= c <= n.
    Source: Chen et al. 2021 (Codex), §2.1.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} is not between 1 and the n = {n} samples")
    if not 0 <= c <= n:
        raise ValueError(f"c = {c} right samples are not between 0 and the n = {n} samples")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The answer with the most votes.

    Equivalent answers are votes for one answer, in the spelling that was seen first; None never votes; of answers with
    equally many votes the one seen first wins.

    Returns:
      The winner, None where nobody votes.
    """
    groups = group_answers(answers)
    winner = _winner(groups)
    return None if winner is None else answers[groups.index(winner)]


def group_answers(answers: Sequence[str | None]) -> list[int | None]:
    """Numbers the groups of equivalent answers in the order in which they are first seen; None for None.

    An answer joins the first group whose first member it is equivalent to.
    """
    leaders: list[str] = []
    group_of: dict[str, int] = {}
    for answer in answers:
        if answer is None or answer in group_of:
            continue
        group = next((index for index, leader in enumerate(leaders) if is_equivalent(answer, leader)), len(leaders))
        if group == len(leaders):
            leaders.append(answer)
        group_of[answer] = group
    return [None if answer is None else group_of[answer] for answer in answers]


def maj_at_k(answers: Sequence[str | None], gold: str, k: int, *, subsets: int = 200, seed: int = 0) -> float:
    """`maj_at_ks` for one k."""
    return maj_at_ks(answers, gold, [k], subsets=subsets, seed=seed)[k]


def maj_at_ks(
    answers: Sequence[str | None],
    gold: str,
    ks: Sequence[int],
    *,
    weights: Sequence[float] | None = None,
    subsets: int = 200,
    seed: int = 0,
) -> dict[int, float]:
    """The expected accuracy of the majority vote over k of a problem's n samples, for several k.

    The estimator averages over subsets of k samples drawn without replacement, each in sampling order (ties go to the
    earliest): all of them where there are no more than `subsets`, else `subsets` seeded random ones. It is unbiased
    for the vote of k samples; k = n is the one vote of all samples.

    Args:
      answers: n extracted answers, None where a solution names none.
      gold: the gold answer.
      ks: numbers of votes.
      weights: of the n votes, not negative; None: all alike.
      subsets: most subsets that are averaged for each k.
      seed: of the random subsets.
    Returns:
      The accuracy by k.
    Raises:
      ValueError: not 1 <= k <= n.
    """
    n = len(answers)
    groups = group_answers(answers)
    count = len({group for group in groups if group is not None})
    is_right = [is_equivalent(answers[groups.index(group)], gold) for group in range(count)]
    accuracies = {}
    for k in ks:
        if not 1 <= k <= n:
            raise ValueError(f"k = {k} is not between 1 and the n = {n} samples")
        if math.comb(n, k) <= subsets:
            chosen = list(itertools.combinations(range(n), k))
        else:
            rng = random.Random(f"{seed}/{k}")
            chosen = [sorted(rng.sample(range(n), k)) for _ in range(subsets)]
        winners = [
            _winner([groups[index] for index in subset], [weights[index] for index in subset] if weights else None)
            for subset in chosen
        ]
        accuracies[k] = sum(winner is not None and is_right[winner] for winner in winners) / len(chosen)
    return accuracies


def _winner(groups: Sequence[int | None], weights: Sequence[float] | None = None) -> int | None:
    """The group with the most votes, the first seen of several; None where nobody votes."""
    votes: dict[int, float] = {}
    for group, weight in zip(groups, weights or [1] * len(groups), strict=True):
        if group is not None:
            votes[group] = votes.get(group, 0) + weight
    return max(votes, key=votes.get) if votes else None


def accuracy_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of an accuracy.

    Args:
      correct: problems that were answered rightly.
      total: all problems.
      confidence: of the interval.
    Returns:
      Its lower and upper end.
    Raises:
      ValueError: no problems, or more right ones than problems.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} right answers of {total} problems have no accuracy")
    interval = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
