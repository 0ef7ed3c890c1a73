"""Exploration: the stream of questions, groups that teach nothing, samples that wait for the next step."""

import dataclasses
import threading

import numpy as np
import pytest

from dsmath.rl.ahead import Ahead, load_stage, save_stage
from dsmath.rl.exploration import choose_questions, explore
from dsmath.rl.rewards import Rewards
from dsmath.rollout.samples import Samples
from dsmath.runs.errors import InputError

G, L = 3, 4


def _choose(step: int, seed: int = 0) -> list[int]:
    return choose_questions(range(4 * step, 4 * step + 4), 10, seed).tolist()


def test_each_epoch_holds_every_question_once():
    order = [question for step in range(15) for question in _choose(step)]
    epochs = [order[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_a_question_depends_on_seed_and_place_alone():
    assert _choose(7) == _choose(7)
    assert _choose(7) != _choose(7, seed=1)


def test_a_stage_may_be_longer_than_an_epoch():
    chosen = choose_questions(range(7), 3, 0).tolist()
    assert sorted(chosen[:3]) == sorted(chosen[3:6]) == [0, 1, 2]


def _sample(equal, broken=()):
    """Samples whose tokens are their request; the requests in `equal` have equal rewards, those in `broken` a NaN."""

    def sample(questions, requests):
        shape = (len(requests), G, L)
        tokens = np.broadcast_to(requests[:, None, None], shape).astype(np.int32)
        ones = np.ones(shape, np.float32)
        rewards = np.tile(np.arange(G, dtype=np.float32), (len(requests), 1))
        rewards[np.isin(requests, list(equal))] = 1
        rewards[np.isin(requests, list(broken)), 0] = np.nan
        samples = Samples(tokens, -ones, ones, np.full(shape[:2], L, np.int32), np.zeros(shape[:2], bool))
        return samples, Rewards(rewards, rewards > 1)

    return sample


def _explore(sample, zero_variance="keep", cursor=0, max_resamples=4):
    return explore(
        sample,
        cursor=cursor,
        num_groups=4,
        num_questions=10,
        seed=0,
        zero_variance=zero_variance,
        max_resamples=max_resamples,
        mask_truncated=False,
        version=5,
    )


def test_a_stage_keeps_all_groups_in_the_order_of_the_stream():
    stage = _explore(_sample({1}), cursor=8)
    assert stage.requests.tolist() == [8, 9, 10, 11]
    assert stage.questions.tolist() == choose_questions(range(8, 12), 10, 0).tolist()
    assert stage.samples.tokens[:, 0, 0].tolist() == stage.requests.tolist()
    assert (stage.cursor, stage.version) == (12, 5)
    assert stage.figures["zero_variance_groups"] == 0


def test_groups_that_teach_nothing_are_skipped():
    stage = _explore(_sample({0, 2}), "skip")
    assert stage.requests.tolist() == [1, 3]
    assert stage.figures["zero_variance_groups"] == 0.5
    assert stage.cursor == 4


def test_where_all_groups_teach_nothing_they_stay():
    assert _explore(_sample(range(4)), "skip").requests.tolist() == [0, 1, 2, 3]


def test_others_are_asked_until_enough_groups_teach():
    stage = _explore(_sample({0, 1, 2, 5, 6}), "resample")
    assert stage.requests.tolist() == [3, 4, 7, 8]
    assert stage.cursor == 12
    assert stage.figures["rounds"] == 3
    assert stage.figures["zero_variance_groups"] == 5 / 12  # of all that was sampled


def test_groups_with_broken_rewards_are_asked_again_too():
    stage = _explore(_sample({0}, broken={1, 2}), "resample")
    assert stage.requests.tolist() == [3, 4, 5, 6]


def test_asking_others_ends():
    stage = _explore(_sample(set(range(100)) - {6}), "resample", max_resamples=2)
    assert stage.requests.tolist() == [6]
    assert stage.cursor == 12


def test_a_group_with_a_reward_that_is_no_number_is_left_out_and_counted():
    stage = _explore(_sample((), broken={2}))
    assert stage.requests.tolist() == [0, 1, 3]
    assert stage.figures["nonfinite_rewards"] == 0.25
    assert np.isfinite(stage.figures["reward"])
    with pytest.raises(InputError, match=r"config\.reward: no group .* rewards that are numbers"):
        _explore(_sample((), broken=range(4)))


@pytest.mark.parametrize("process", [False, True])
def test_a_stage_can_be_written_and_read(tmp_path, process):
    stage = _explore(_sample({1}))
    if process:
        steps = np.arange(4 * G * 2, dtype=np.float32).reshape(4, G, 2)
        rewards = stage.rewards._replace(steps=steps, ends=np.full(steps.shape, 3, np.int32))
        stage = dataclasses.replace(stage, rewards=rewards, old_logprobs=np.ones((4, G, L), np.float32))
    save_stage(tmp_path / "a" / "000003.npz", stage)
    found = load_stage(tmp_path / "a" / "000003.npz")
    assert found.figures == stage.figures
    assert (found.cursor, found.version) == (stage.cursor, stage.version)
    for name in ("questions", "requests", "samples", "rewards", "old_logprobs"):
        for one, other in zip(
            *(
                value if isinstance(value, tuple) else (value,)
                for value in (getattr(found, name), getattr(stage, name))
            ),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


class _Explorer:
    """Explores with the policy's name as the version, and remembers where."""

    def __init__(self):
        self.calls, self.threads = [], set()

    def __call__(self, params, cursor, version):
        self.calls.append((params, cursor, version))
        self.threads.add(threading.current_thread().name)
        return dataclasses.replace(_explore(_sample(()), cursor=cursor), version=version)


def _steps(workdir, lag, start, end, explorer, cursor=0, saves=()):
    """Runs steps with policies that are named by their step."""
    with Ahead(workdir, lag, explorer) as ahead:
        stages = []
        for step in range(start + 1, end + 1):
            stage = ahead.begin(step, f"policy {step - 1}", cursor, step - 1)
            cursor = stage.cursor
            ahead.go_on(lambda step=step: f"copy of policy {step - 1}", cursor, step - 1)
            stages.append(stage)
            if step in saves:
                ahead.save(step)
                ahead.forget({step})
        return stages, cursor


def test_without_a_lag_every_stage_is_the_newest_policys(tmp_path):
    explorer = _Explorer()
    stages, cursor = _steps(tmp_path, 0, 0, 3, explorer)
    assert explorer.calls == [("policy 0", 0, 0), ("policy 1", 4, 1), ("policy 2", 8, 2)]
    assert [stage.version for stage in stages] == [0, 1, 2]
    assert cursor == 12


def test_with_a_lag_the_next_stage_is_sampled_beside_by_the_policy_before_the_update(tmp_path):
    explorer = _Explorer()
    stages, _ = _steps(tmp_path, 1, 0, 3, explorer)
    assert explorer.calls[:3] == [("policy 0", 0, 0), ("copy of policy 0", 4, 0), ("copy of policy 1", 8, 1)]
    assert [stage.version for stage in stages] == [0, 0, 1]
    assert any(name.startswith("rollout") for name in explorer.threads)


def test_a_resumed_run_learns_from_what_was_sampled_ahead(tmp_path):
    whole, _ = _steps(tmp_path / "whole", 1, 0, 5, _Explorer())
    _, cursor = _steps(tmp_path / "cut", 1, 0, 3, _Explorer(), saves=(2, 3))
    assert [path.name for path in (tmp_path / "cut" / "pending").iterdir()] == ["000004.npz"]
    explorer = _Explorer()
    resumed, _ = _steps(tmp_path / "cut", 1, 3, 5, explorer, cursor=cursor)
    assert explorer.calls[0] == ("copy of policy 3", 16, 3)  # step 4's stage was there
    for one, other in zip(resumed, whole[3:], strict=True):
        assert one.requests.tolist() == other.requests.tolist()
        assert one.version == other.version
