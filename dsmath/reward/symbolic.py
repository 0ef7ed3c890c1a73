"""Sums, integrals, products and limits: math-verify (SymPy) in a worker process that is killed at its time limit.

The worker is a plain subprocess that talks in JSON lines: it neither forks a process that runs jax threads nor imports
the caller's main module again, and no signal reaches the caller. It starts with the first answer that needs it.
"""

import atexit
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

LIMIT_SECONDS = 3.0  # for one comparison
_START_SECONDS = 20.0  # for SymPy's import, once
_MAX_LENGTH = 300
_COMMAND = re.compile(r"\\(?:int|sum|prod|lim)(?![A-Za-z])")
_DIGITS = re.compile(r"\d{7}|\^\s*\{?\s*-?\d{4}|\^\s*(?:\{[^{}]*|\\?\w+\s*)\^")  # powers that would fill the memory
_PACKAGES = str(pathlib.Path(__file__).resolve().parents[2])


def can_read(text: str) -> bool:
    """Whether a text is whole, short and free of large powers; only those go to the worker."""
    return len(text) <= _MAX_LENGTH and text.count("{") == text.count("}") and not _DIGITS.search(text)


def needs_worker(prediction: str, gold: str) -> bool:
    """Whether one of two formulas holds a sum, an integral, a product or a limit."""
    return bool(_COMMAND.search(prediction + gold))


def are_equal(prediction: str, gold: str) -> bool | None:
    """Whether math-verify takes two formulas for equal.

    Returns:
      None where it found nothing within `LIMIT_SECONDS`.
    """
    return _WORKER.ask({"prediction": prediction, "gold": gold})


class _Worker:
    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def ask(self, question: dict[str, str]) -> bool | None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
                if self._read(_START_SECONDS) != "ready":
                    return None
            try:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
            except OSError:
                self.stop()
                return None
            return self._read(LIMIT_SECONDS)

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dsmath.reward.symbolic"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def _read(self, seconds: float) -> bool | str | None:
        """The next line, None where the worker was killed for its time."""
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line.endswith("\n"):
            self.stop()
            return None
        return json.loads(line)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


_WORKER = _Worker()
atexit.register(_WORKER.stop)


def serve() -> None:
    """Answers the questions on standard input until it closes."""
    import resource

    from math_verify import LatexExtractionConfig, parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    def answer(question: dict[str, str]) -> bool:
        sides = [
            parse(f"${question[side]}$", [LatexExtractionConfig()], parsing_timeout=None)
            for side in ("gold", "prediction")
        ]
        return bool(all(sides) and verify(*sides, timeout_seconds=None))

    answer({"gold": "\\frac{1}{3}", "prediction": "\\int_0^1 x^2 dx"})  # what SymPy imports late
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
