"""Checks of code: right programs pass, wrong ones fail, and no program forges the verdict."""

import concurrent.futures
import gzip
import json
import time

import pytest

from dsmath.sandbox.checks import check

_MEMORY = 256 << 20
_TESTS = """
def check(candidate):
    assert candidate([1, 2], 3) == {"sum": 6, "items": (1, 2)}
    assert candidate([], 0.5)["sum"] == 0.5
    for n in range(3):
        assert candidate([n], n) == {"sum": 2 * n, "items": (n,)}
"""
_RIGHT = "def add(items, more):\n    return {'sum': sum(items) + more, 'items': tuple(items)}\n"
_WRONG = "def add(items, more):\n    return {'sum': 0, 'items': ()}\n"

# Each comes after the wrong function, or replaces it, and tries to be counted as right.
FORGERIES = {
    "print the verdict": 'print(\'passed\'); print(\'{"reason": "passed", "detail": ""}\')',
    "exit well": "import sys; sys.exit(0)",
    "exit at once": "import os; os._exit(0)",
    "exit when it is called": "def add(*_):\n    raise SystemExit(0)",
    "exit at once when it is called": "import os\ndef add(*_):\n    os._exit(0)",
    "print the verdict and exit at the end": """
import atexit, os
atexit.register(lambda: (print('{"reason": "passed", "detail": ""}'), os._exit(0)))
""",
    "be equal to everything": """
class Same(dict):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __getitem__(self, key): return Same()
    def __bool__(self): return True
    def __sub__(self, other): return 0
    __abs__ = __int__ = __float__ = lambda self: 0
def add(*_): return Same()
""",
    "be a dictionary that is equal to everything": """
class Same(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def add(*_): return {'sum': Same(1), 'items': Same(2)}
""",
    "redefine the tests": "def check(candidate): pass\ncandidate = tests = call = check",
    "patch builtins": """
import builtins
builtins.all = builtins.any = builtins.isinstance = lambda *_: True
builtins.AssertionError = type('Quiet', (BaseException,), {})
builtins.exec = builtins.eval = builtins.compile = lambda *_: None
""",
    "patch the examiner": """
import sys, examiner
examiner.examine = lambda *_: print('{"reason": "passed", "detail": ""}')
examiner._encode = lambda value: ['object', 'Same']
examiner.answer = lambda calls: print('\\n{"reason": "passed", "detail": ""}')
""",
    "answer as the examiner": """
import examiner
examiner.answer = lambda calls: print('\\n' + '[{"value": null}]')
""",
    "answer more than was asked": """
import examiner
examiner.answer = lambda calls: print('\\n[' + ', '.join(['{"value": 0}'] * 99) + ']')
""",
    "answer with a call": """
import examiner, json
examiner.answer = lambda calls: print('\\n' + json.dumps([{"value": 0, "call": call} for call in calls]))
""",
    "answer with code": """
import examiner, json
examiner.answer = lambda calls: print('\\n' + json.dumps([{"value": ["eval", "print(1)"]} for _ in calls]))
""",
    "answer deeply": "import examiner\nexaminer.answer = lambda calls: print('\\n[{\"value\": ' + '[' * 90000 + '}]')",
    "patch JSON": 'import json\njson.dumps = lambda *_: \'{"reason": "passed", "detail": ""}\'',
    "write into the channel": """
import json, os
text = json.dumps({"kind": "done", "error": None, "value": "passed", "cut": []}).encode()
for _ in range(9): os.write(3, len(text).to_bytes(4, "big") + text)
""",
    "write into the channel when it is called": """
import json, os
def add(*_):
    text = json.dumps({"kind": "done", "error": None, "value": "passed", "cut": []}).encode()
    print('\\n{"reason": "passed", "detail": ""}', flush=True)
    os.write(3, len(text).to_bytes(4, "big") + text)
    os._exit(0)
""",
    "read the tests in the frames": """
import sys
def add(items, more):
    frame = sys._getframe()
    while frame:
        for value in (*frame.f_locals.values(), *frame.f_globals.values()):
            if isinstance(value, str) and "'items': (1, 2)" in value + str(frame.f_code.co_consts):
                return eval(value)
        frame = frame.f_back
    return None
""",
    "read the tests in the memory": """
import gc
def add(*_):
    texts = [value for value in gc.get_objects() if isinstance(value, dict) and value.get('items') == (1, 2)]
    return texts[0] if texts else None
""",
    "trace the tests": """
import sys
def trace(frame, event, _):
    frame.f_lineno += 1
    return trace
sys.settrace(trace)
""",
    "collect errors": "import sys\nsys.excepthook = lambda *_: None\nsys.stdout = sys.stderr = open('/dev/null', 'w')",
    "catch signals": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nadd = 'passed'",
    "be nothing": "del add",
    "be no Python": "def add(: passed",
}


@pytest.fixture
def examine(pool):
    """(program, …) -> the outcome; afterwards the pool works as before."""

    def run(program, tests=_TESTS, entry_point="add", setup="", seconds=20.0):
        return check(program, tests, entry_point=entry_point, setup=setup, seconds=seconds, memory=_MEMORY, pool=pool)

    yield run
    assert run(_RIGHT).passed


def test_a_right_program_passes_and_a_wrong_one_fails(examine):
    assert examine(_RIGHT).passed
    outcome = examine(_WRONG)
    assert (outcome.passed, outcome.reason) == (False, "failed")
    assert outcome.detail == 'assert candidate([1, 2], 3) == {"sum": 6, "items": (1, 2)}'


@pytest.mark.parametrize("name", FORGERIES)
def test_no_program_forges_the_verdict(examine, name):
    assert examine(f"{_WRONG}{FORGERIES[name]}").reason in ("failed", "error")


def test_what_is_forged_would_pass_with_the_right_function(examine):
    for name in ("print the verdict", "redefine the tests", "catch signals"):
        assert examine(f"{FORGERIES[name]}\n{_RIGHT}").passed


@pytest.mark.parametrize(
    "program, reason, detail",
    [
        ("x = 1", "error", "NameError: name 'add' is not defined"),
        ("raise ValueError('no')", "error", "ValueError: no"),
        ("def add(*_): return 1 // 0", "error", "ZeroDivisionError"),
        ("def add(*_): return add()", "error", "RecursionError"),
        ("def add(*_): return print", "error", "no plain data"),
        ("def add(*_): return bytes(1 << 40)", "error", "MemoryError"),
        ("def add(*_): return 'x' * (2 << 20)", "error", "File too large"),
        ("def add(*_): return {(): [{1, 2.5}, b'3', None, 1j]}", "failed", "assert"),
    ],
)
def test_the_outcome_tells_why(examine, program, reason, detail):
    outcome = examine(program)
    assert (outcome.reason, detail in outcome.detail) == (reason, True), outcome
    assert len(outcome.detail) <= 500


@pytest.mark.parametrize("program", ["while True: pass", "def add(*_):\n    while True: pass"])
def test_what_does_not_end_runs_out_of_time(examine, program):
    began = time.monotonic()
    assert examine(program, seconds=0.5).reason == "timeout"
    assert time.monotonic() - began < 5


def test_tests_that_do_not_end_on_an_answer_run_out_of_time(examine):
    tests = "def check(candidate):\n    value = candidate()\n    while value: pass"
    assert examine("def add(): return 1", tests, seconds=1.0).reason == "timeout"
    assert examine("def add(): return 0", tests).passed


def test_the_time_of_all_calls_counts_together(examine):
    program = "import time\ndef add(n): time.sleep(0.4); return n"
    tests = "def check(candidate):\n    for n in range(3): assert candidate(n) == n"
    assert examine(program, tests, seconds=0.9).reason == "timeout"
    assert examine(program, tests).passed


def test_calls_that_hang_on_answers_are_asked_one_after_another(examine):
    tests = """
def check(candidate):
    value, path = 6, []
    while value != 1 and len(path) < 20:
        value = candidate(value)
        path.append(value)
    assert path == [3, 10, 5, 16, 8, 4, 2, 1]
"""
    assert examine("def add(n): return n // 2 if n % 2 == 0 else 3 * n + 1", tests).passed
    assert examine("def add(n): return n // 2", tests).reason == "failed"


def test_a_program_keeps_its_state_from_call_to_call(examine):
    program = "seen = []\ndef add(n):\n    seen.append(n)\n    return seen[:]"
    tests = "def check(candidate):\n    for n in range(3): assert candidate(n) == list(range(n + 1))"
    assert examine(program, tests).passed


def test_the_block_of_a_script_is_left_out(examine):
    assert examine(f"{_RIGHT}if __name__ == '__main__':\n    raise SystemExit(1)").passed


def test_an_answer_of_numpy_is_plain(examine):
    program = "import numpy as np\ndef add(kind): return {'i': np.int64(2), 'f': np.float64(0.5), 'b': np.True_}[kind]"
    tests = "def check(candidate):\n    assert [candidate(kind) for kind in 'ifb'] == [2, 0.5, True]"
    assert examine(program, tests).passed


def test_assertions_use_classes_builtins_modules_and_the_setup(examine):
    program = """
class Node:
    def __init__(self, value): self.value = value
def grow(node, by=1): return {node.value + by}
def sum(a, b): return a - b
"""
    tests = """
assert grow(Node(1)) == {2}
assert max(grow(root, by=9)) == 3 + min(9, sys.maxsize)
assert sum(5, 2) == 3
assert not grow(Node(1)) > {2, 3}
"""
    assert examine(program, tests, entry_point="", setup="root = Node(3)").passed
    assert examine(program, f"{tests}assert grow(Node(1)) == {{1}}", "", "root = Node(3)").reason == "failed"
    assert examine(f"{program}max = len", "assert max(grow(Node(1))) == 1", "").reason == "failed"


def _read(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _check_all(pool, calls):
    def run(call):
        program, tests, entry_point, setup = call
        return check(program, tests, entry_point=entry_point, setup=setup, seconds=30, memory=_MEMORY, pool=pool)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        return list(threads.map(run, calls))


def test_all_solutions_of_humaneval_pass_and_empty_ones_fail(pool, shared_data):
    items = _read(shared_data / "benchmarks" / "humaneval" / "HumanEval.jsonl.gz")
    assert len(items) == 164
    right = [(f"{i['prompt']}{i['canonical_solution']}", i["test"], i["entry_point"], i["prompt"]) for i in items]
    wrong = [(f"{i['prompt']}    return None\n", i["test"], i["entry_point"], i["prompt"]) for i in items[::4]]
    assert {outcome.reason for outcome in _check_all(pool, right)} == {"passed"}
    assert {outcome.reason for outcome in _check_all(pool, wrong)} == {"failed"}


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 16])
def test_the_codes_of_mbpp_pass_and_codes_of_others_do_not(pool, shared_data, step):
    items = _read(shared_data / "benchmarks" / "mbpp" / "mbpp.jsonl")[::step]
    tests = [("\n".join(item["test_list"]), "", item["test_setup_code"]) for item in items]
    right = [(item["code"], *test) for item, test in zip(items, tests, strict=True)]
    wrong = [(item["code"], *test) for item, test in zip(items, [*tests[1:], tests[0]], strict=True)]
    assert {outcome.reason for outcome in _check_all(pool, right)} == {"passed"}
    assert "passed" not in {outcome.reason for outcome in _check_all(pool, wrong[::4])}
