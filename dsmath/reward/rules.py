"""The rule reward of reinforcement learning: 1 for a right final answer, 0 for a wrong one or none."""

from collections.abc import Sequence

import numpy as np

from dsmath.reward.answers import extract_answer, is_equivalent


def answer_rewards(solutions: Sequence[str], golds: Sequence[str]) -> np.ndarray:
    """Rewards solutions whose extracted answer is equivalent to the gold answer.

    Args:
      solutions: N whole solutions; a solution without an answer has reward 0.
      golds: their N gold answers.
    Returns:
      float32 [N], each 0 or 1.
    Raises:
      ValueError: the lengths differ.
    """
    if len(solutions) != len(golds):
        raise ValueError(f"{len(solutions)} solutions, but {len(golds)} gold answers")
    memo: dict[tuple[str, str], float] = {}  # a group's samples share few answers
    rewards = np.zeros(len(solutions), np.float32)
    for index, (solution, gold) in enumerate(zip(solutions, golds, strict=True)):
        answer = extract_answer(solution)
        if answer is None:
            continue
        if (answer, gold) not in memo:
            memo[answer, gold] = float(is_equivalent(answer, gold))
        rewards[index] = memo[answer, gold]
    return rewards
