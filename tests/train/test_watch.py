"""What watches a loop: its heartbeat, its hangs, its profiles. How it is paused stands in test_loop."""

import json
import os
import signal
import time

import jax.numpy as jnp
import pytest

from dsmath.train.watch import Watch

NO_PROFILE = {"first_step": 0, "num_steps": 2}


def _steps(watch: Watch, first: int, last: int) -> None:
    for step in range(first, last + 1):
        watch.begin(step)
        watch.end(step, {"loss": jnp.ones(()) + step})


def test_the_heartbeat_tells_the_step_the_time_and_the_host(tmp_path):
    with Watch(tmp_path, 60.0, NO_PROFILE) as watch:
        _steps(watch, 1, 3)
        watch.log(3)
    beat = json.loads((tmp_path / "heartbeat.json").read_text())
    assert beat.keys() == {"step", "time", "host"}
    assert beat["step"] == 3
    assert beat["time"] == pytest.approx(time.time(), abs=60)


def test_a_hang_is_told_once_with_the_stacks_of_all_threads(tmp_path, capfd):
    with Watch(tmp_path, 0.05, NO_PROFILE) as watch:
        _steps(watch, 1, 1)
        while not (tmp_path / "hang-0.txt").exists():
            time.sleep(0.01)
        time.sleep(0.3)
    assert "test_a_hang_is_told_once" in (tmp_path / "hang-0.txt").read_text()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(
        "process 0: no step has ended for config.guards.hang_seconds=0.05 s; where its threads stand:"
    )


def test_steps_that_end_are_no_hang(tmp_path):
    with Watch(tmp_path, 60.0, NO_PROFILE) as watch:
        _steps(watch, 1, 5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("asked", [False, True])
def test_a_profile_of_the_next_steps_comes_when_planned_or_asked_for(tmp_path, asked, capfd):
    handler = signal.getsignal(signal.SIGUSR1)
    with Watch(tmp_path, 60.0, {"first_step": 0 if asked else 3, "num_steps": 2}) as watch:
        _steps(watch, 1, 2)
        if asked:
            os.kill(os.getpid(), signal.SIGUSR1)
        _steps(watch, 3, 3)
        assert not list(tmp_path.rglob("*.xplane.pb"))
        _steps(watch, 4, 4)
        assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1
        _steps(watch, 5, 8)
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1
    assert f"tensorboard --logdir={tmp_path / 'profile'}" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGUSR1) == handler


def test_a_profile_that_the_end_of_the_run_cuts_short_is_written(tmp_path):
    with Watch(tmp_path, 60.0, {"first_step": 2, "num_steps": 5}) as watch:
        _steps(watch, 1, 3)
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1
