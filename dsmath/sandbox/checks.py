"""Whether a program that a model wrote passes the tests of HumanEval or MBPP: a verdict that the program cannot forge.

The program and the tests share no interpreter. The program's process in the jail gets the program and then calls, one
by one, such as `has_close_elements(*([1.0, 2.0], 0.5), **{})`; what comes back is plain data (JSON). Another process in
the jail, where no model's code ever runs, evaluates the tests with these answers. Whatever the program does to its own
interpreter, patches builtins, exits, prints, writes into the reply's channel or returns an object that is equal to
everything, all that reaches the tests are numbers, texts and containers of them; expected values never reach the
program.

What remains: a program can know the answers by heart. Where the tests are bare assertions, a function that they call by
a name which is not Python's own is the program's; tests that bring a comparing function need an entry point (MBPP has
no such test). Arguments are copied: the tests do not see that one is changed in place (neither benchmark looks for it).
An answer that is no plain data fails (an iterator, an array, an instance of the program's own class), even where it
would compare equal.
"""

import ast
import builtins
import dataclasses
import json
import sys
from collections.abc import Sequence

from dsmath.sandbox.pool import Pool
from dsmath.sandbox.session import Result, Session

REASONS = ("passed", "failed", "timeout", "error")
_DETAIL = 500  # characters
_BUILTINS = frozenset(dir(builtins))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a check ended.

    Attributes:
      reason: "passed", "failed" (an assertion is false, or the answer is no plain data), "timeout", or "error" (the
        program does not run, raises, exits or dies).
      detail: the assertion or the exception, in a line or two; empty for "passed".
    """

    reason: str
    detail: str

    @property
    def passed(self) -> bool:
        """Whether all tests hold."""
        return self.reason == "passed"


def check(
    program: str, tests: str, *, entry_point: str = "", setup: str = "", seconds: float, memory: int, pool: Pool
) -> Outcome:
    """Runs the tests on a program.

    HumanEval: `check(prompt + completion, test, entry_point=…, setup=prompt, …)`; its tests use helpers of the prompt.
    MBPP: `check(code, "\\n".join(test_list), setup=test_setup_code, …)`.

    Args:
      program: Python that a model wrote; a module that defines what the tests call.
      tests: trusted Python: with an entry point a module that defines `check(candidate)`, else `assert` statements.
      entry_point: the function that is the candidate.
      setup: trusted Python that is run before the tests: with an entry point beside them, else in the program's
        process, where it may use the program's classes.
      seconds: of wall time, for the program with all its calls; and for the tests.
      memory: bytes for each side, beyond Python, NumPy and SymPy.
      pool: runs both sides.
    Source: HumanEval (arXiv:2107.03374) §2.3, MBPP (arXiv:2108.07732) §2.1.
    """
    if entry_point:
        module, helpers, calls = tests, setup, _find_calls(tests, entry_point)
    else:
        module, calls = _ask_for_calls(tests)
        helpers, program = "", f"{program}\n{setup}\n"
    with pool.open(memory) as programs:
        result = programs.run(f"import examiner; examiner.load({program!r})", seconds)
        if result.kind != "done":
            return _fail(result)
        left, results = seconds - result.seconds, []
        with _Examiner(pool, memory, seconds) as examiner:
            while True:
                known = _count_known(results, calls)
                new, spent = _ask(programs, calls[known:], left)
                if isinstance(new, Outcome):
                    return new
                left, results = left - spent, results[:known] + new
                verdict = examiner.examine(module, helpers, entry_point, results)
                if isinstance(verdict, Outcome):
                    return verdict
                calls = verdict


class _Examiner:
    """The process of the tests; it starts when it is first needed."""

    def __init__(self, pool: Pool, memory: int, seconds: float):
        self._pool, self._memory, self._seconds = pool, memory, seconds
        self._session: Session | None = None

    def examine(self, tests: str, helpers: str, entry_point: str, results: list[dict]) -> Outcome | list[str]:
        """The outcome; or the calls that the tests make, where an answer to one of them is missing."""
        if self._session is None:
            self._session = self._pool.open(self._memory)
        arguments = f"{tests!r}, {helpers!r}, {entry_point!r}, json.loads({json.dumps(results)!r})"
        result = self._session.run(f"import examiner, json; examiner.examine({arguments})", self._seconds)
        if result.kind == "timeout":
            return Outcome("timeout", f"the tests do not end within {self._seconds:g} s on the program's answers")
        if result.kind != "done":  # answers that are too deep or too large to be read
            return Outcome("failed", f"the tests cannot use the program's answers: {result.error}"[:_DETAIL])
        verdict = json.loads(result.stdout.splitlines()[-1])
        return verdict["calls"] if "calls" in verdict else Outcome(verdict["reason"], verdict["detail"][:_DETAIL])

    def __enter__(self) -> "_Examiner":
        return self

    def __exit__(self, *exception) -> None:
        if self._session is not None:
            self._session.close()


def _ask(programs: Session, calls: Sequence[str], seconds: float) -> tuple[list[dict] | Outcome, float]:
    """The program's answers, up to the first call that raises; and the seconds that it took."""
    if seconds <= 0:
        return Outcome("timeout", "TimeoutError: no time is left"), 0.0
    result = programs.run(f"examiner.answer({list(calls)!r})", seconds)
    if result.kind != "done":
        return _fail(result), result.seconds
    try:
        results = [_check(answer) for answer in json.loads(result.stdout.splitlines()[-1])]
    except (ValueError, TypeError, IndexError, RecursionError):
        return Outcome("error", "the program's process does not answer as it should"), result.seconds
    if len(results) > len(calls) or (len(results) < len(calls) and not (results and "raised" in results[-1])):
        return Outcome("error", "the program's process does not answer every call"), result.seconds
    return [{"call": call, **answer} for call, answer in zip(calls, results, strict=False)], result.seconds


def _check(answer: object) -> dict:
    """Refuses what `examiner.answer` does not print."""
    if not isinstance(answer, dict) or answer.keys() not in ({"value"}, {"raised"}):
        raise ValueError("it has other fields")
    if not isinstance(answer.get("raised", ""), str):
        raise TypeError("its fields hold something else")
    return answer


def _count_known(results: list[dict], calls: Sequence[str]) -> int:
    """How many of the calls, from the first on, have their answers."""
    for place, call in enumerate(calls):
        if place >= len(results) or results[place]["call"] != call:
            return place
    return len(calls)


def _fail(result: Result) -> Outcome:
    return Outcome("timeout" if result.kind == "timeout" else "error", (result.error or "")[:_DETAIL])


def _find_calls(tests: str, entry_point: str) -> list[str]:
    """The calls of the candidate whose arguments are literals, as the examiner will spell them. It finds the others."""
    calls = []
    for node in ast.walk(ast.parse(tests)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "candidate":
            try:
                arguments = tuple(ast.literal_eval(argument) for argument in node.args)
                named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
            except ValueError:
                continue
            calls.append(((node.lineno, node.col_offset), f"{entry_point}(*{arguments!r}, **{named!r})"))
    return [call for _, call in sorted(calls)]


def _ask_for_calls(tests: str) -> tuple[str, list[str]]:
    """The same assertions with each call of a function that is not Python's own handed to the program, and the calls.

    `assert set(f(Node(1))) == {sys.maxsize}` becomes `import sys; assert set(call('f(Node(1))')) == {sys.maxsize}`.
    """
    finder = _Finder()
    tree = ast.fix_missing_locations(finder.visit(ast.parse(tests)))
    imports = "".join(f"import {name}; " for name in sorted(finder.modules))
    return f"{imports}\n{ast.unparse(tree)}", finder.calls


class _Finder(ast.NodeTransformer):
    def __init__(self):
        self.calls: list[str] = []
        self.modules: set[str] = set()

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        found = len(self.calls)
        self.generic_visit(node)
        match node.test:
            case ast.Compare(left=ast.Call() as left) if len(self.calls) == found:  # the function is named as a builtin
                node.test.left = self._ask(left)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not isinstance(node.func, ast.Name) or node.func.id in _BUILTINS:
            return self.generic_visit(node)
        return self._ask(node)

    def _ask(self, call: ast.Call) -> ast.Call:
        self.calls.append(ast.unparse(call))
        return ast.Call(ast.Name("call", ast.Load()), [ast.Constant(self.calls[-1])], [])

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id in sys.stdlib_module_names:
            self.modules.add(node.id)
        return node
