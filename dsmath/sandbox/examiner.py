"""Runs inside the jail, by Python's own library alone: both sides of a check of code, see `dsmath.sandbox.checks`.

One process holds the program and evaluates calls (`answer`); another, where no model's code ever runs, holds the tests
and compares what came back (`examine`). Between them goes plain data as JSON, which cannot be equal to everything.
"""

import ast
import contextlib
import decimal
import fractions
import json
import random
import sys
import types

_CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_NUMBERS = {"complex": complex, "Fraction": fractions.Fraction, "Decimal": decimal.Decimal}


def load(source: str) -> None:
    """Runs the program as a module of its own, `__name__` not being `__main__`: the block at its end is left out."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    exec(compile(source, "<program>", "exec"), vars(module))


def answer(calls: list[str]) -> None:
    """Evaluates calls in the program's namespace, up to the first that fails, and prints the results as a last line.

    Args:
      calls: Python expressions.
    """
    results = []
    for call in calls:
        try:
            results.append({"value": _encode(eval(call, vars(sys.modules["program"])))})
        except Exception as error:
            results.append({"raised": f"{type(error).__name__}: {error}"})
            break
    print(f"\n{json.dumps(results)}")


def examine(tests: str, helpers: str, entry_point: str, results: list[dict]) -> None:
    """Runs the tests on what the program answered, and prints a verdict as a last line.

    Args:
      tests: a module. It calls `call(text)`, or defines `check(candidate)`.
      helpers: a module that is run before, in the same namespace.
      entry_point: the function that `candidate` is; empty where the tests use `call`.
      results: of the calls whose texts they tell, in order.
    Prints: {"reason": "passed" | "failed" | "error", "detail"}; or {"calls": …}, where answers are missing: the texts
      of all calls that the tests make.
    """
    tree = ast.parse(tests)
    calls = _Calls(results)
    try:
        _run(tree, helpers, entry_point, calls)
        verdict = {"reason": "passed", "detail": ""}
    except _Missing:
        calls = _Calls(results, forgive=True)
        with contextlib.suppress(Exception):  # the tests went on with None for an answer; the next round knows more
            _run(_Forgive().visit(tree), helpers, entry_point, calls)
        verdict = {"calls": calls.asked}
    except _Raised as error:
        verdict = {"reason": "error", "detail": str(error)}
    except AssertionError as error:
        verdict = {"reason": "failed", "detail": _quote(tests, error)}
    except Exception as error:
        verdict = {"reason": "failed", "detail": f"{_quote(tests, error)}: {type(error).__name__}: {error}"}
    print(f"\n{json.dumps(verdict)}")


class _Missing(BaseException):
    """The tests make a call that the program has not been asked."""


class _Raised(Exception):
    """What the program raised."""


class _Calls:
    """Stands for the program: notes the calls and gives the answers, in order; or None, to forgive a missing one."""

    def __init__(self, results: list[dict], forgive: bool = False):
        self.asked = []
        self._results, self._forgive = results, forgive

    def __call__(self, text: str) -> object:
        place = len(self.asked)
        self.asked.append(text)
        if place >= len(self._results) or self._results[place]["call"] != text:
            if self._forgive:
                return None
            raise _Missing
        if "raised" in self._results[place]:
            raise _Raised(f"{text}: {self._results[place]['raised']}")
        return _decode(self._results[place]["value"])


class _Forgive(ast.NodeTransformer):
    """Lets every assertion through, but evaluates it."""

    def visit_Assert(self, node: ast.Assert) -> ast.Try:
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])
        return ast.fix_missing_locations(ast.copy_location(ast.Try([ast.Expr(node.test)], [handler], [], []), node))


def _run(tests: ast.Module, helpers: str, entry_point: str, calls: _Calls) -> None:
    random.seed(0)  # the same questions each time
    namespace = {"__name__": "tests", "call": calls}
    exec(compile(helpers, "<helpers>", "exec"), namespace)

    def candidate(*arguments, **named):
        return calls(f"{entry_point}(*{arguments!r}, **{named!r})")

    if entry_point:
        namespace[entry_point] = candidate
    exec(compile(tests, "<tests>", "exec"), namespace)
    if entry_point:
        namespace["check"](candidate)


def _quote(tests: str, error: Exception) -> str:
    """The line of the tests where it was raised."""
    lines, trace, number = tests.splitlines(), error.__traceback__, 0
    while trace:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            number = trace.tb_lineno
        trace = trace.tb_next
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def _encode(value: object) -> object:
    """Plain data as JSON; what a subclass adds is lost.

    Raises:
      TypeError: it is no plain data.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    for scalar in (bool, int, float, str):
        if isinstance(value, scalar):
            return scalar(value)  # a subclass's instance too becomes plain
    for name, kind in _CONTAINERS.items():
        if isinstance(value, kind):
            return [name, [_encode(item) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[_encode(key), _encode(item)] for key, item in value.items()]]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    for name, kind in _NUMBERS.items():
        if isinstance(value, kind):
            return [name, str(value)]
    if value is None:
        return None
    raise TypeError(f"the answer is no plain data, it is a {type(value).__name__}")


def _decode(data: object) -> object:
    if not isinstance(data, list):
        return data
    name, content = data
    if name == "dict":
        return {_decode(key): _decode(item) for key, item in content}
    if name == "bytes":
        return bytes.fromhex(content)
    if name in _NUMBERS:
        return _NUMBERS[name](content)
    return _CONTAINERS[name](_decode(item) for item in content)
