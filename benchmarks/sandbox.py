"""How many programs a second the jail runs, each a solution of its own, beside a fresh Python for each.

    python -m benchmarks.sandbox [--programs=400 --json=FILE]

The programs are short, as models write them: arithmetic, a loop, fractions, NumPy, SymPy's solve. The fresh Python has
no jail at all: it starts and imports what the program asks for.
"""

import concurrent.futures
import itertools
import os
import statistics
import subprocess
import sys
import time

from absl import app, flags

from benchmarks import timing
from dsmath.runs.workdir import write_json
from dsmath.sandbox import Pool

_PROGRAMS = flags.DEFINE_integer("programs", 400, "how many are run in the jail", lower_bound=10)
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOAL = 100.0
_FRESH = 10  # programs in a fresh Python
_TIMEOUT, _MEMORY = 10.0, 1 << 30
_KINDS = (
    ("print(12 * 7 - 5)", "79"),
    ("total = 0\nfor n in range(1000):\n    total += n * n\nprint(total)", "332833500"),
    ("from fractions import Fraction\nprint(Fraction(1, 3) + Fraction(1, 6))", "1/2"),
    ("import numpy as np\nprint(int(np.arange(10).sum()))", "45"),
    ("from sympy import symbols, solve\nx = symbols('x')\nprint(solve(x**2 - 5*x + 6, x))", "[2, 3]"),
)


def main(argv: list[str]) -> None:
    del argv
    machine = timing.describe_machine("numpy", "sympy")
    programs = list(itertools.islice(itertools.cycle(_KINDS), _PROGRAMS.value))
    began = time.perf_counter()
    pool = Pool(timing.count_threads())
    started = time.perf_counter() - began

    def run(program: tuple[str, str]) -> float:
        began = time.perf_counter()
        result = pool.run(program[0], _TIMEOUT, _MEMORY)
        assert result.stdout.strip() == program[1], result
        return time.perf_counter() - began

    with concurrent.futures.ThreadPoolExecutor(2 * pool.size) as threads:
        list(threads.map(run, programs[:10]))
        began = time.perf_counter()
        waits = list(threads.map(run, programs))
        rate = len(programs) / (time.perf_counter() - began)
    with pool.open(_MEMORY) as session:
        began = time.perf_counter()
        for code, _ in programs:
            session.run(code, _TIMEOUT)
        block_rate = len(programs) / (time.perf_counter() - began)
    pool.close()
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(timing.count_threads()) as threads:
        list(threads.map(_run_fresh, programs[:_FRESH]))
    fresh = _FRESH / (time.perf_counter() - began)

    load = f"load {machine['load']:.1f} before the start"
    print(f"{len(programs)} programs, {pool.size} at once, {load}; the pool was ready in {started:.1f} s")
    print(f"{'in the jail':<34}{rate:>10.1f} programs/s")
    print(f"{'  from asking to the answer':<34}{statistics.median(waits) * 1000:>10.1f} ms in the median")
    print(f"{'blocks of one solution':<34}{block_rate:>10.1f} blocks/s")
    print(f"{'a fresh Python each, not jailed':<34}{fresh:>10.1f} programs/s")
    if _JSON.value:
        figures = {"programs": rate, "blocks": block_rate, "fresh": fresh, "start_seconds": started}
        write_json(_JSON.value, {"per_second": figures, "seconds": waits, "goal": _GOAL, "machine": machine})
    timing.conclude("programs_per_second", rate, _GOAL)


def _run_fresh(program: tuple[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", program[0]], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == program[1], done.stderr


if __name__ == "__main__":
    app.run(main)
