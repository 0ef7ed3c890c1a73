"""Metrics over n sampled answers a problem: accuracy, pass@k and maj@k, and how sure they are."""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy  # which imports scipy.stats, a second's work, where it is used

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
    voting = [group for group in groups if group is not None]
    return answers[groups.index(max(voting, key=voting.count))] if voting else None


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
    """`maj_at_ks` for one k, of answers that are graded here."""
    groups = group_answers(answers)
    right = {group for group in set(groups) - {None} if is_equivalent(answers[groups.index(group)], gold)}
    return maj_at_ks(groups, [group in right for group in groups], [k], subsets=subsets, seed=seed)[k]


def maj_at_ks(
    votes: Sequence[int | None],
    correct: Sequence[bool],
    ks: Sequence[int],
    *,
    weights: Sequence[float] | None = None,
    subsets: int = 200,
    seed: int = 0,
) -> dict[int, float]:
    """The expected accuracy of the majority vote over k of a problem's n samples, for several k.

    The estimator averages over subsets of k samples drawn without replacement: all of them where there are no more than
    `subsets`, else `subsets` seeded random ones. It is unbiased for the vote of k samples; k = n is the one vote of all
    samples. Of several groups with the most votes each wins with the same chance: what a vote gives must not depend on
    the order of its samples.

    Args:
      votes: the group of equivalent answers of each of n samples, as `group_answers` numbers them; None where a
        solution names no answer.
      correct: whether each sample is right. A group is right as often as its samples are.
      ks: numbers of votes.
      weights: of the n votes, not negative; None: all alike.
      subsets: most subsets that are averaged for each k.
      seed: of the random subsets.
    Returns:
      The accuracy by k.
    Raises:
      ValueError: not 1 <= k <= n.
    """
    n = len(votes)
    for k in ks:
        if not 1 <= k <= n:
            raise ValueError(f"k = {k} is not between 1 and the n = {n} samples")
    groups = sorted({vote for vote in votes if vote is not None})
    if not groups:
        return dict.fromkeys(ks, 0.0)
    member = np.array([[vote == group for group in groups] for vote in votes], np.float64)  # [n, groups]
    right = (member * np.array(correct, np.float64)[:, None]).sum(axis=0) / member.sum(axis=0)
    weighed = member if weights is None else member * np.array(weights, np.float64)[:, None]
    accuracies = {}
    for k in ks:
        chosen = _subsets(n, k, subsets, seed)
        counts = weighed[chosen].sum(axis=1)  # [subsets, groups]
        most = counts.max(axis=1, keepdims=True)
        winners = np.isclose(counts, most, rtol=1e-9, atol=0) & member[chosen].any(axis=1)
        shares = (winners * right).sum(axis=1) / np.maximum(winners.sum(axis=1), 1)
        accuracies[k] = float(shares.mean())
    return accuracies


@functools.cache
def _subsets(n: int, k: int, most: int, seed: int) -> np.ndarray:
    """Which samples vote, [subsets, k]; the same ones for each problem."""
    if math.comb(n, k) <= most:
        return np.array(list(itertools.combinations(range(n), k)))
    return np.random.default_rng((seed, n, k)).permuted(np.tile(np.arange(n), (most, 1)), axis=1)[:, :k]


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
    interval = scipy.stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap's interval of a mean over problems.

    A paired comparison gives the differences of two runs as values. Problems with the same value are one draw of a
    multinomial, so that a resample costs as much as there are different values.

    Args:
      values: one a problem, such as 1 for right and 0 for wrong, or the pass@k of its samples.
      confidence: of the interval.
      resamples: of the problems, with replacement.
      seed: of the resamples.
    Returns:
      Its lower and upper end. Where all values are the same both are that value.
    Raises:
      ValueError: no values.
    Source: Efron 1979.
    """
    if not len(values):
        raise ValueError("no values have no interval")
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn @ distinct / total, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(correct: Sequence[bool]) -> tuple[float, float]:
    """The bootstrap's 95 % interval of a share; Wilson's where all are right or all wrong, of which it knows nothing.

    Args:
      correct: one a problem.
    Returns:
      Its lower and upper end.
    Raises:
      ValueError: no problems.
    """
    right = int(np.sum(correct))
    return bootstrap_interval(correct) if 0 < right < len(correct) else accuracy_interval(right, len(correct))


def sign_test(differences: Sequence[float]) -> float:
    """The two-sided p-value of as many gains and losses as these, were both alike likely; McNemar's exact test.

    Args:
      differences: of two runs, one a problem; those of 0 do not count.
    Source: McNemar 1947.
    """
    wins, losses = (int((np.sign(differences) == sign).sum()) for sign in (1, -1))
    return float(scipy.stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
