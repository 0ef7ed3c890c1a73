"""Python as a tool: which text is a call, what it answers, whose state it sees."""

import threading

import pytest

from dsmath.rollout.tools import Caller
from dsmath.sandbox.tool import PythonTool, fence


@pytest.fixture
def tool(pool):
    return PythonTool(pool, seconds=20.0, memory=256 << 20, ends=50, max_calls=2, max_output_tokens=100)


def test_a_block_is_a_call_once_its_fence_has_closed(tool):
    text = "We compute.\n```python\nx = 1\nprint(x)\n```\n"
    assert tool.find(text) == "x = 1\nprint(x)\n"
    assert all(tool.find(text[:length]) is None for length in range(len(text)))
    assert tool.find(f"{text}and more\n```python\n2\n```\n") == "x = 1\nprint(x)\n"
    assert tool.find("```output\n1\n```\n") is None
    assert tool.find("```python\ns = '```'\n```\n") == "s = '```'\n"
    assert tool.find("```python\n```\n") == ""


def test_it_answers_with_what_was_printed_or_the_exceptions_last_line(tool):
    blocks = tool.begin()
    assert blocks.run("print(6 * 7)\n") == "```output\n42\n```\n"
    assert blocks.run("print(1)\n1 / 0\n") == "```output\nZeroDivisionError: division by zero\n```\n"
    assert blocks.run("7\n") == "```output\n\n```\n"
    blocks.end()


def test_a_long_output_keeps_its_ends(tool):
    blocks = tool.begin()
    text = blocks.run("print('a' * 60 + 'b' * 60)")
    assert text == f"```output\n{'a' * 50}...{'b' * 50}\n```\n"
    assert fence("a" * 100, 50) == f"```output\n{'a' * 100}\n```\n"
    blocks.end()


def test_each_sample_has_a_state_of_its_own(tool):
    one, other = tool.begin(), tool.begin()
    one.run("x = 1")
    assert other.run("print(x)") == "```output\nNameError: name 'x' is not defined\n```\n"
    assert one.run("print(x + 1)") == "```output\n2\n```\n"
    one.end()
    other.end()
    assert one.run("print(x)") == ""


def test_the_engines_caller_runs_its_calls_beside_each_other(tool):
    caller, samples = Caller(), [tool.begin() for _ in range(20)]
    for text, ends in (("x = {}", ""), ("print(x)", "{}")):
        calls = [caller.call(tool, blocks, text.format(n)) for n, blocks in enumerate(samples)]
        while not all(call.done for call in calls):
            caller.wait()
        assert [call.output() for call in calls] == [f"```output\n{ends.format(n)}\n```\n" for n in range(20)]
    for blocks in samples:
        blocks.end()


def test_after_a_block_that_was_killed_the_next_begins_anew(pool):
    tool = PythonTool(pool, seconds=0.5, memory=256 << 20, ends=50, max_calls=2, max_output_tokens=100)
    blocks = tool.begin()
    blocks.run("x = 1")
    assert blocks.run("while True: pass") == "```output\nTimeoutError: no end within 0.5 s\n```\n"
    assert "NameError" in blocks.run("print(x)")
    assert 0.5 < tool.timeout < 60
    assert tool.explain(TimeoutError("late")) == "```output\nTimeoutError: late\n```\n"
    blocks.end()


def test_a_sample_that_ends_while_its_block_runs_is_not_waited_for(tool):
    blocks = tool.begin()
    thread = threading.Thread(target=blocks.run, args=("import time; time.sleep(1)",))
    thread.start()
    blocks.end()
    assert thread.is_alive()
    thread.join()
    assert blocks._session is None
