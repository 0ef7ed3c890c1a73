"""The legend knows what a run writes; warnings name the figure, its limit and the remedy, and do not repeat."""

import jax
import numpy as np
import pytest
from absl import logging

from dsmath.rl import objectives
from dsmath.rl.legend import FILE, LEGEND, Alarm, find_entry, unknown, write_legend
from dsmath.runs.errors import InputError


@pytest.fixture
def warnings(monkeypatch):
    """The lines of absl's warnings."""
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def test_every_metric_of_the_objectives_has_an_entry():
    x = np.zeros((2, 3), np.float32)
    mask = np.ones_like(x)
    sums = [
        objectives.grpo(x, None, x, x, mask, clip_eps=0.2, beta=0.04)[1],
        objectives.ppo(x, x, x, mask, clip_eps=0.2, aggregation="token")[1],
        objectives.value_loss(x, x, x, mask, clip=0.2, aggregation="token")[1],
    ]
    names = {name for each in jax.device_get(sums) for name in each} - {"denominator"}
    assert "kl" in names
    assert unknown(names) == set()


def test_unknown_names_what_has_no_entry():
    assert unknown({"step": 1, "reward": 0.5, "reward/rule": 0.5, "surprise": 1.0, "rule/reward": 1}) == {
        "surprise",
        "rule/reward",
    }
    assert find_entry("reward/outcome_model") == LEGEND["reward/"]


def test_the_legend_is_a_file_of_the_workdir(tmp_path):
    write_legend(tmp_path)
    text = (tmp_path / FILE).read_text()
    assert all(f"`{name}" in text for name in LEGEND)
    assert "0 by construction at mu = 1" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == len(LEGEND) + 2
    assert {line.count("|") for line in rows} == {4}  # no text breaks the table


def test_a_figure_beyond_its_limit_warns_with_limit_and_remedy(warnings):
    alarm = Alarm({"truncated": 0.5, "zero_variance_groups": 0.5})
    alarm.look(3, {"truncated": 0.5, "zero_variance_groups": 0.75, "reward": 0.1})
    [line] = warnings
    assert "step 3: zero_variance_groups is 0.75, more than config.warnings.zero_variance_groups=0.5" in line
    assert "config.group_size" in line


def test_a_kind_of_warning_comes_once_in_so_many_steps(warnings):
    alarm = Alarm({"truncated": 0.5, "rollout_gap": 0.01}, every=10)
    for step in range(1, 25):
        alarm.look(step, {"truncated": 0.9, "rollout_gap": 0.02 if step == 5 else 0.0})
    assert [line.split(":")[0] for line in warnings] == ["step 1", "step 5", "step 11", "step 21"]


def test_a_limit_without_a_warning_is_refused():
    with pytest.raises(InputError, match=r"config\.warnings\.zero_variance: there is no such warning; known are trunc"):
        Alarm({"zero_variance": 0.5})
