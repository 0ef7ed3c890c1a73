"""Verdicts on proofs: the gaps of a sketch are filled by tactics, then by Sledgehammer; then the whole is checked.

Source: DeepSeekMath §2.3.1 ("informal-to-formal"), after Draft, Sketch, and Prove (arXiv:2210.12283) §3.3 and §4: 11
tactics in order, then Sledgehammer. There a gap is tried step by step in one running proof; here each try is a theory
in which all other gaps are `sorry`, so that many are checked at once. Only the last theory decides, which has no gap.
"""

import concurrent.futures
import contextlib
import dataclasses
import queue
import re
import time
from collections.abc import Iterator, Sequence

from dsmath.evaluation.isabelle import outer, theories
from dsmath.evaluation.isabelle.server import Node, Server, ServerError, find_isabelle

TACTICS = (
    "auto",
    "simp",
    "blast",
    "fastforce",
    "force",
    "eval",
    "presburger",
    "sos",
    "arith",
    "linarith",
    "(auto simp: field_simps)",
)
_FOUND = re.compile(r"Try this: (?P<step>.+?)(?: \([\d.]+ m?s\))?\s*$", re.MULTILINE)
_DETAIL = 500  # characters
_MAX_FOUND = 3  # of Sledgehammer's proofs that are tried for a gap


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds of wall time.

    Attributes:
      tactic: for one tactic on all gaps of a proof.
      sledgehammer: for Sledgehammer.
      theory: for a sketch, its gaps left out, and for the whole proof.
      start: for a server and its session; the first start builds an image.
    """

    tactic: float
    sledgehammer: float
    theory: float
    start: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a proof.

    Attributes:
      answer: the proof as Isabelle has accepted it, its gaps filled; None where it was not.
      correct: whether it was accepted.
      reason: "right", "wrong" (Isabelle refuses it, or it cheats), "no_answer" (it is empty), "timeout" or "error" (the
        problem cannot be checked, or Isabelle has ended).
      detail: Isabelle's message.
      seconds: of wall time.
    """

    answer: str | None
    correct: bool
    reason: str
    detail: str
    seconds: float


class Prover:
    """Isabelle servers that check proofs in parallel. Threads may share it.

    Args:
      folder: of Isabelle.
      servers: how many, each with some GB of memory.
      limits: of time.
    Raises:
      InputError: Isabelle or its client is not there, or does not start; it says how to install it.
    """

    def __init__(self, folder: str, servers: int, limits: Limits):
        self._executable, self._limits, self._size = find_isabelle(folder), limits, servers
        self._servers: queue.SimpleQueue[Server | None] = queue.SimpleQueue()
        self._servers.put(Server(self._executable, limits.start))  # it alone builds the image
        for _ in range(servers - 1):
            self._servers.put(None)  # started when it is needed

    @property
    def size(self) -> int:
        """Proofs that are checked at once."""
        return self._size

    def check(self, header: str, statement: str, proof: str) -> Verdict:
        """The verdict on one proof.

        Args:
          header, statement: of miniF2F, `extra["header"]` and `extra["formal_statement"]`.
          proof: what the model wrote after the statement; the word `sledgehammer` is a gap.
        """
        began = time.monotonic()
        verdict = _judge_text(proof) or self._try(header, statement, proof)
        return dataclasses.replace(verdict, detail=verdict.detail[:_DETAIL], seconds=time.monotonic() - began)

    def check_all(self, proofs: Sequence[tuple[str, str, str]]) -> Iterator[Verdict]:
        """The verdicts on many proofs, each (header, statement, proof), in their order."""
        with concurrent.futures.ThreadPoolExecutor(self._size) as threads:
            yield from threads.map(lambda proof: self.check(*proof), proofs)

    def _try(self, header: str, statement: str, proof: str) -> Verdict:
        for attempt in range(2):
            try:
                with self._borrow() as server:
                    return _Attempt(server, self._limits, header, statement, proof).judge()
            except TimeoutError:
                return _fail("timeout", "Isabelle's server does not answer")
            except ValueError as error:  # of the benchmark's texts
                return _fail("error", str(error))
            except ServerError as error:  # it may have been the memory: another server may do
                if attempt:
                    return _fail("error", str(error))

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[Server]:
        """A server for one thread; one that fails is ended, and another one starts in its place when it is needed."""
        server = self._servers.get()
        try:
            server = server or Server(self._executable, self._limits.start)
            yield server
        except (ServerError, TimeoutError):
            server.close()
            server = None
            raise
        finally:
            self._servers.put(server)

    def close(self) -> None:
        """Ends all servers."""
        for _ in range(self._size):
            if server := self._servers.get():
                server.close()

    def __enter__(self) -> "Prover":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


class _Attempt:
    """One proof on one server."""

    def __init__(self, server: Server, limits: Limits, header: str, statement: str, proof: str):
        self._server, self._limits = server, limits
        self._header, self._statement, self._proof = header, statement, proof
        self._gaps = outer.find_gaps(proof)

    def judge(self) -> Verdict:
        steps: list[str | None] = [None] * len(self._gaps)
        if self._gaps:
            (sketch,) = self._check([["sorry"] * len(steps)], self._limits.theory)
            if not sketch.holds:
                return _refuse(sketch, "the sketch: ")
            self._fill_by_tactics(steps)
            self._fill_by_sledgehammer(steps)
            if None in steps:
                return _fail("wrong", f"{steps.count(None)} of {len(steps)} gaps are not filled")
        (whole,) = self._check([steps], self._limits.theory, ask_oracles=True)
        if any("skip_proof" in message for message in whole.messages):
            return _fail("wrong", "it rests on skip_proof, which is cheating")
        if not whole.holds:
            return _refuse(whole, "")
        return Verdict(outer.fill(self._proof, self._gaps, steps), True, "right", "", 0.0)

    def _fill_by_tactics(self, steps: list[str | None]) -> None:
        for tactic in TACTICS:
            self._fill(steps, dict.fromkeys(_find_empty(steps), f"by {tactic}"), self._limits.tactic)

    def _fill_by_sledgehammer(self, steps: list[str | None]) -> None:
        empty, seconds = _find_empty(steps), self._limits.sledgehammer
        calls = [_put(steps, gap, f"sledgehammer [timeout = {round(seconds)}]\n sorry") for gap in empty]
        nodes = self._check(calls, 2 * seconds)
        found = {gap: _FOUND.findall("\n".join(node.messages)) for gap, node in zip(empty, nodes, strict=True)}
        for place in range(_MAX_FOUND):
            tries = {gap: texts[place] for gap, texts in found.items() if place < len(texts)}
            self._fill(steps, {gap: step for gap, step in tries.items() if steps[gap] is None}, self._limits.tactic)

    def _fill(self, steps: list[str | None], tries: dict[int, str], seconds: float) -> None:
        """Tries a step in each of some gaps, each in a theory of its own, and keeps those that hold."""
        nodes = self._check([_put(steps, gap, step) for gap, step in tries.items()], seconds)
        for (gap, step), node in zip(tries.items(), nodes, strict=True):
            if node.holds:
                steps[gap] = step

    def _check(self, fillings: list[list[str]], seconds: float, ask_oracles: bool = False) -> list[Node]:
        if not fillings:
            return []
        texts = {}
        for filling in fillings:
            proof, name = outer.fill(self._proof, self._gaps, filling), self._server.make_name()
            texts[name] = theories.make_theory(name, self._header, self._statement, proof, ask_oracles=ask_oracles)
        return list(self._server.check(texts, seconds).values())


def _judge_text(proof: str) -> Verdict | None:
    """The verdict on a proof that Isabelle need not see."""
    if not proof.strip():
        return _fail("no_answer", "there is no proof")
    try:
        cheating = outer.find_cheating(proof)
    except ValueError as error:
        return _fail("wrong", str(error))
    return cheating and _fail("wrong", f"a proof may not contain {cheating[:50]!r}")


def _find_empty(steps: Sequence[str | None]) -> list[int]:
    return [place for place, step in enumerate(steps) if step is None]


def _put(steps: Sequence[str | None], gap: int, step: str) -> list[str]:
    """A filling: the step in one gap, `sorry` in all others, those that are filled too: they need no second proof."""
    return [step if place == gap else "sorry" for place in range(len(steps))]


def _refuse(node: Node, of: str) -> Verdict:
    if node.errors:
        return _fail("wrong", of + node.errors[0])
    return _fail("timeout", f"{of}Isabelle does not come to an end")


def _fail(reason: str, detail: str) -> Verdict:
    return Verdict(None, False, reason, detail, 0.0)
