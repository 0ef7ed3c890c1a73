"""Samples are chosen by their reasoning and by their rewards."""

import numpy as np
import pytest

from dsmath.rl.selection import choose_pairs, distinct, reasoning, take
from dsmath.rollout.samples import Samples

PAD = 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("First 3+4=7. Then 7-2=5.", "We add: 3 + 4 = 7, so 7 - 2 = 5 are left."),
        ("48/2 = <<48/2=24>>24 clips", "half is 48/2 = 24"),
        ("it costs 1,200*2=2,400", "1200 * 2 = 2400"),
        ("The answer is 5.", "the  answer is 5."),
    ],
)
def test_the_same_equations_are_the_same_reasoning(one, other):
    assert reasoning(one) == reasoning(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("3+4=7. 7-2=5.", "3-2=1. 1+4=5."), ("3+4=7", "7=3+4"), ("The answer is 5.", "3+2=5"), ("so 5", "so 6")],
)
def test_other_equations_are_another_reasoning(one, other):
    assert reasoning(one) != reasoning(other)


def test_of_each_reasoning_the_first_kept_sample_stays():
    texts = [["2+2=4", "2 + 2 = 4", "1+3=4", "2+2=4"], ["2+2=4", "x", "x", "y"]]
    keep = np.array([[False, True, True, True], [True, True, True, False]])
    assert distinct(texts, keep).tolist() == [[False, True, True, False], [True, True, False, False]]


def test_pairs_join_the_best_with_the_worst():
    rewards = np.array([[0.1, 0.9, 0.5, 0.3]], np.float32)
    assert choose_pairs(rewards, 2, [(0, 0)]).tolist() == [[1, 2, 0, 3]]
    assert choose_pairs(rewards, 3, [(0, 0)]).tolist() == [[1, 2, -1, 0, 3, -1]]


def test_samples_of_equal_reward_make_no_pair():
    rewards = np.array([[1, 1, 1, 1], [0, 1, 0, 0]], np.float32)
    pairs = choose_pairs(rewards, 2, [(0, 0), (0, 1)])
    assert pairs[0].tolist() == [-1] * 4
    assert pairs[1][0] == 1
    assert pairs[1][2] in (0, 2, 3)
    assert pairs[1][[1, 3]].tolist() == [-1, -1]


def test_equal_rewards_are_drawn_by_the_seed():
    rewards = np.array([[1, 1, 0, 0, 0, 1, 1, 0]], np.float32)
    drawn = {tuple(choose_pairs(rewards, 1, [(0, seed)])[0]) for seed in range(50)}
    assert len(drawn) > 8
    assert {chosen for chosen, _ in drawn} == {0, 1, 5, 6}
    assert choose_pairs(rewards, 1, [(0, 3)]).tolist() == choose_pairs(rewards, 1, [(0, 3)]).tolist()


def test_take_gives_samples_at_places_and_empty_ones():
    tokens = np.arange(1, 13, dtype=np.int32).reshape(1, 4, 3)
    lengths = np.array([[3, 2, 1, 3]], np.int32)
    mask = (np.arange(3) < lengths[..., None]).astype(np.float32)
    samples = Samples(tokens, -mask, mask, lengths, np.array([[True, False, False, True]]))
    taken = take(samples, np.array([[3, -1, 0]]), PAD)
    assert taken.tokens.tolist() == [[[10, 11, 12], [PAD] * 3, [1, 2, 3]]]
    assert taken.lengths.tolist() == [[3, 0, 3]]
    assert taken.mask.sum(-1).tolist() == [[3, 0, 3]]
    assert taken.logprobs.sum(-1).tolist() == [[-3, 0, -3]]
    assert taken.truncated.tolist() == [[True, False, True]]
    assert samples.lengths.tolist() == [[3, 2, 1, 3]]  # untouched
