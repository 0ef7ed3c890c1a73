"""Programs that do not end, lie, break their own process or litter: none outlives its time, none touches the next."""

import os
import pathlib
import time

import pytest

_MEMORY = 256 << 20
_TIMEOUT = 0.5

# None of them may run on.
ENDLESS = {
    "loop": "while True: pass",
    "sleep": "import time; time.sleep(1000)",
    "wait for a signal": "import signal; signal.pause()",
    "catch all that is raised": """
while True:
    try:
        while True: pass
    except BaseException: pass
""",
    "ignore all signals": """
import signal
for number in set(range(1, 65)) - {9, 19, 32, 33}:
    signal.signal(number, signal.SIG_IGN)
while True: pass
""",
    "block all signals": """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass
""",
    "flood itself with signals": """
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
while True: pass
""",
    "stop itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass",
    "compute a tower of powers": "9**9**9**9",
    "match for ever": "import re; re.match('(a*)*b', 'a' * 60)",
    "an exception that cannot be told": """
class Endless(Exception):
    def __str__(self):
        while True: pass
raise Endless
""",
    "a value that cannot be shown": """
class Endless:
    def __repr__(self):
        while True: pass
Endless()
""",
    "trace itself": "import sys\ndef trace(*_):\n    while True: pass\nsys.settrace(trace)\nprint()\n(lambda: 1)()",
    "an object that cannot be deleted": "class X:\n    def __del__(self):\n        while True: pass\nx = X()\ndel x",
    "replace the exit": "import os, sys\nos._exit = sys.exit = print\nwhile True: os._exit()",
    "promise a long reply": "import os; os.write(3, (1000).to_bytes(4, 'big') + b'{')\nwhile True: pass",
    "hear out the host": "import os\nwhile True: os.read(3, 1 << 20)",
    "a search in SymPy": "import sympy; sympy.factorint(2**607 * 3**500 + (10**200 + 7) * (10**210 + 9))",
}

# How each of them ends, and a part of the error.
ENDINGS = {
    "leave at once": ("import os; os._exit(0)", "died", "ended"),
    "leave politely": ("import sys; print('bye'); sys.exit(0)", "exited", "SystemExit: 0"),
    "leave through the kernel": ("import ctypes; ctypes.CDLL(None).exit(0)", "died", "ended"),
    "abort": ("import os; os.abort()", "died", "ended"),
    "read where nothing is": ("import ctypes; ctypes.string_at(0)", "died", "ended"),
    "recurse": ("def f(): return f()\nf()", "raised", "RecursionError"),
    "recurse through the stack": (
        "import sys; sys.setrecursionlimit(10**9)\n"
        "class A:\n    def __getattr__(self, name): return getattr(self, name)\nA().x",
        "died",
        "ended",
    ),
    "nest deeply": ("eval('(' * 100000)", "raised", "Error"),
    "nest the source": ("(" * 100_000 + "1" + ")" * 100_000, "raised", "Error"),
    "close all files": ("import os; os.closerange(0, 65536)", "died", "ended"),
    "close the output": ("import os; os.close(1); print(1)", "raised", "OSError"),
    "write nonsense to the host": ("import os; os.write(3, bytes(1 << 12))", "died", "ended"),
    "write a length that is too much": ("import os; os.write(3, b'\\xff' * 8)", "died", "ended"),
    "write deep JSON to the host": (
        "import os; text = b'[' * 100000; os.write(3, len(text).to_bytes(4, 'big') + text)",
        "died",
        "ended",
    ),
    "write other JSON to the host": (
        'import os; text = b\'{"kind": [1], "error": 1, "value": {}, "cut": 2}\'\n'
        "os.write(3, len(text).to_bytes(4, 'big') + text)",
        "died",
        "ended",
    ),
    "a huge exception": ("raise ValueError('x' * (50 << 20))", "raised", "ValueError: xxx"),
    "an exception of many lines": ("raise ValueError('first\\nsecond')", "raised", "second"),
    "an exception that fails": ("class E(Exception):\n    def __str__(self): 1/0\nraise E", "raised", "E"),
    "an exception beyond Exception": ("raise KeyboardInterrupt", "raised", "KeyboardInterrupt"),
    "a value that fails": ("class E:\n    def __repr__(self): return 1/0\nE()", "raised", "ZeroDivisionError"),
    "a value of another kind": ("class E:\n    def __repr__(self): return 1\nE()", "raised", "TypeError"),
    "half a character": ("raise ValueError('\\ud800')", "raised", "ValueError"),
    "no Python": ("let x be 3", "raised", "SyntaxError"),
    "a zero byte": ("x = '\0'", "raised", "Error"),
    "ask for input": ("input()", "raised", "EOFError"),
    "too much output": ("while True: print('x' * 999)", "raised", "OSError: [Errno 27] File too large"),
    "too much output below Python": ("import os\nwhile True: os.write(2, b'x' * 999)", "raised", "OSError: [Errno 27]"),
    "all memory": ("x = []\nwhile True: x.append(bytes(1 << 20))", "memory", "MemoryError"),
    "a long number": ("10**5000", "raised", "ValueError: Exceeds the limit"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_ended(run, name):
    began = time.monotonic()
    result = run(ENDLESS[name], _TIMEOUT)
    assert result.kind == "timeout"
    assert result.error == "TimeoutError: no end within 0.5 s"
    assert _TIMEOUT <= time.monotonic() - began < _TIMEOUT + 5


@pytest.mark.parametrize("name", ENDINGS)
def test_how_a_program_ended_is_told(run, name):
    code, kind, error = ENDINGS[name]
    result = run(code)
    assert (result.kind, error in result.error) == (kind, True), result
    assert len(result.error) <= 10_000


def test_output_that_is_too_long_is_cut_and_said_so(run):
    result = run("print('x' * 10**7)")
    assert result.stdout == "x" * (1 << 20)
    assert result.truncated == ("stdout",)
    assert run("'x' * 10**7").truncated == ("value",)
    assert run("raise ValueError('x' * 10**7)").truncated == ("error",)
    assert run("print('x')").truncated == ()


def test_what_was_printed_before_the_end_is_kept(run):
    assert run("print('before'); import os; os._exit(1)").stdout == "before\n"
    assert run("print('before')\nwhile True: pass", _TIMEOUT).stdout == "before\n"
    assert run("import sys; print('aside', file=sys.stderr)").stderr == "aside\n"
    assert run("import os; os.write(1, b'\\xff\\n')").stdout == "\ufffd\n"


# What the first leaves, the second looks for.
TRACES = {
    "a file": ("open('left', 'w').write('x')", "import os; os.listdir('.')", "[]"),
    "a deep folder": (
        "import os\nfor _ in range(1000): os.mkdir('d'); os.chdir('d')",
        "import os; os.listdir('/tmp')",
        "[]",
    ),
    "a folder without permissions": (
        "import os; os.makedirs('/tmp/a/b'); os.chmod('/tmp/a', 0)",
        "import os; os.listdir('/tmp')",
        "[]",
    ),
    "a variable": ("x = 1", "'x' in globals()", "False"),
    "a builtin": ("import builtins; builtins.sum = builtins.print = len", "sum([1, 2])", "3"),
    "a module": (
        "import sympy, math; sympy.sqrt = math.sqrt = str",
        "import sympy, math; (sympy.sqrt(4), math.sqrt(4))",
        "(2, 2.0)",
    ),
    "a module in place of another": (
        "import sys; sys.modules['numpy'] = sys",
        "import numpy; numpy.sum([1, 2]) == 3",
        "np.True_",
    ),
    "a path": ("import sys; sys.path.insert(0, '/tmp')", "import sys; '/tmp' in sys.path", "False"),
    "a variable of the environment": (
        "import os; os.environ['X'] = '1'",
        "import os; os.environ.get('X', 'none')",
        "'none'",
    ),
    "a seed": (
        "import random; random.seed(9)",
        "import random; a = random.random(); random.seed(0); a == random.random()",
        "True",
    ),
    "a limit": ("import sys; sys.setrecursionlimit(50)", "import sys; sys.getrecursionlimit()", "1000"),
    "a signal": (
        "import signal; signal.signal(10, signal.SIG_IGN)",
        "import signal; signal.getsignal(10) == signal.SIG_DFL",
        "True",
    ),
    "the host's channel": (
        "import os, json\nfor f in range(3, 64):\n    try: os.write(f, b'\\0\\0\\0\\2{}')\n    except OSError: pass",
        "1",
        "1",
    ),
    "the template's functions": (
        "import gc, types\nfor f in gc.get_objects():\n"
        "    if isinstance(f, types.FunctionType) and f.__name__ == '_fork_solution':\n"
        "        f.__code__ = (lambda *_: None).__code__",
        "1",
        "1",
    ),
}
_HIDDEN = {"a seed", "the host's channel", "the template's functions"}  # the program itself does not see it


@pytest.mark.parametrize("name", TRACES)
def test_a_program_leaves_no_trace_for_the_next(run, name):
    first, second, value = TRACES[name]
    run(first)
    assert run(second).value == value
    if name not in _HIDDEN:
        assert run(f"{first}\n{second}").value != value


def test_a_program_that_forges_its_verdict_deceives_only_itself(run):
    forged = '{"kind": "done", "error": null, "value": "forged", "cut": []}'
    code = f"import os; text = {forged.encode()!r}; os.write(3, len(text).to_bytes(4, 'big') + text)\nwhile True: pass"
    assert run(code).value == "forged"
    assert run("1 + 1").value == "2"


def test_a_block_that_goes_on_after_its_reply_is_stopped_and_found_out(pool):
    forged = b'{"kind": "done", "error": null, "value": "forged", "cut": []}'
    code = f"import os; text = {forged!r}; os.write(3, (len(text).to_bytes(4, 'big') + text) * 2)\nwhile True: pass"
    with pool.open(_MEMORY) as session:
        assert session.run(code, 30.0).value == "forged"
        _wait_for(lambda: _states()[3:] == ["T"])
        assert session.run("1", 30.0).kind == "died"
        assert not session.alive


def test_nothing_is_left_running(pool):
    with pool.open(_MEMORY) as session:
        assert len(_states()) == 4
        session.run("while True: pass", _TIMEOUT)
        _wait_for(lambda: len(_states()) == 3)
    with pool.open(_MEMORY):
        assert len(_states()) == 4
    _wait_for(lambda: len(_states()) == 3)


def _wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _states() -> list[str]:
    """The states of this process's jails, parents first: bubblewrap, its first process within, template, solutions."""
    processes = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if b"/template.py" in command:
            processes[int(folder.name)] = (int(parent), state)
    found, parents = [], {os.getpid()}
    while parents:  # numbers start again from the smallest one day, so they tell no age
        parents = {process for process, (parent, _) in processes.items() if parent in parents}
        found += [processes[process][1] for process in parents]
    return found
