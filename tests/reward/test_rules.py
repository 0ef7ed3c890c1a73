"""The rule reward."""

import time

import numpy as np
import pytest

from dsmath.data import problems
from dsmath.reward.rules import answer_rewards


def test_right_wrong_and_missing_answers():
    rewards = answer_rewards(["The answer is \\boxed{0.5}.", "答案是\\boxed{3}。", "no idea"], ["\\frac12", "4", "5"])
    assert rewards.dtype == np.float32
    assert rewards.tolist() == [1.0, 0.0, 0.0]


def test_every_generated_solution_is_rewarded_and_fast():
    records = problems.generate("train", 4000, seed=1)
    started = time.monotonic()
    rewards = answer_rewards([record.solution for record in records], [record.answer for record in records])
    assert rewards.min() == 1.0
    assert time.monotonic() - started < 4.0  # about 0.1 s on an idle core


def test_another_problems_answer_is_not_rewarded():
    records = problems.generate("train", 200, seed=1)
    pairs = [(a, b) for a in records for b in records[:20] if a.answer != b.answer]
    assert answer_rewards([a.solution for a, _ in pairs], [b.answer for _, b in pairs]).max() == 0.0


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 solutions, but 1 gold"):
        answer_rewards(["1", "2"], ["1"])
