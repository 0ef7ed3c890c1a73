"""Progress: a bar on a terminal, plain lines elsewhere."""

import io
import re

import pytest

from dsmath.runs import progress as progress_module
from dsmath.runs.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])

    def pass_seconds(seconds: float) -> None:
        now[0] += seconds

    return pass_seconds


def test_plain_lines_show_count_rate_and_time_left(clock):
    stream = io.StringIO()
    with Progress(100, "sft", "step", stream=stream) as progress:
        clock(20)
        progress.advance(10, loss=0.123456)
    assert stream.getvalue() == "sft: 10/100 step  0.5 step/s  left 3:00  loss 0.1235\n"


def test_plain_lines_are_seldom_and_the_last_always_comes(clock):
    stream = io.StringIO()
    with Progress(30, "mine", "page", stream=stream) as progress:
        for _ in range(30):
            clock(1)
            progress.advance()
    counts = re.findall(r"mine: (\d+)/30", stream.getvalue())
    assert counts == ["10", "20", "30"]


def test_the_rate_of_a_resumed_run_counts_its_own_work_alone(clock):
    stream = io.StringIO()
    with Progress(10_000, "rl", "step", done=2_000, stream=stream) as progress:
        clock(10)
        progress.advance(10)
    assert stream.getvalue() == "rl: 2010/10000 step  1 step/s  left 2:13:10\n"


def test_the_rate_after_a_rollback_counts_what_is_done_since(clock):
    stream = io.StringIO()
    with Progress(200, "rl", "step", done=100, stream=stream) as progress:
        clock(5)
        progress.advance(-50)
        clock(10)
        progress.advance(10)
    assert stream.getvalue().splitlines()[-1] == "rl: 60/200 step  1 step/s  left 2:20"


def test_a_terminal_gets_one_bar_that_is_drawn_again_in_place():
    stream = _Terminal()
    with Progress(4, "sft", "step", done=1, stream=stream) as progress:
        for _ in range(3):
            progress.advance(loss=0.5)
    text = stream.getvalue()
    assert "4/4" in text
    assert "100%" in text
    assert "loss=0.5" in text
    assert text.count("\n") == 1
    assert "\r" in text
