"""What runs the programs of an evaluation and checks its proofs; it stands by before anything is generated."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.evaluation.grading import Runner
from dsmath.evaluation.isabelle import Limits, Prover
from dsmath.evaluation.protocols import Protocol
from dsmath.sandbox import Pool


@dataclasses.dataclass(frozen=True)
class Runners:
    """Runs programs and checks proofs under a protocol.

    Attributes:
      protocol: gives the seconds and the memory.
      pool: of the jail; None where no task needs it.
      prover: of proofs; None where no task needs it.
    """

    protocol: Protocol
    pool: Pool | None
    prover: Prover | None

    def of(self, benchmark: str, mode: str) -> Runner | None:
        """What grades a task; None where texts alone are compared."""
        if not (runs_programs(benchmark, mode) or _kind(benchmark) == "proof"):
            return None
        seconds = self.protocol.test_seconds if _kind(benchmark) == "code" else self.protocol.program_seconds
        return Runner(self.pool, seconds, self.protocol.memory, self.prover)


def runs_programs(benchmark: str, mode: str) -> bool:
    """Whether what a model wrote is run to be graded."""
    return mode == "few_shot_pot" or _kind(benchmark) == "code"


def has_votes(benchmark: str) -> bool:
    """Whether answers can be equivalent: programs and proofs are not compared."""
    return _kind(benchmark) not in ("code", "proof")


def _kind(benchmark: str) -> str:
    return BENCHMARKS[benchmark].kind if benchmark in BENCHMARKS else "answer"


@contextlib.contextmanager
def open_runners(
    named: Iterable[tuple[str, str]],
    protocol: Protocol,
    *,
    workers: int,
    isolation: str,
    tool: bool,
    isabelle: str,
    proofs: Mapping[str, float],
) -> Iterator[Runners]:
    """What the tasks need, and nothing else; it ends with the context.

    Args:
      named: benchmark and mode of each task.
      protocol: under which they are graded.
      workers: programs that run at once.
      isolation: see `Pool`.
      tool: whether the model itself runs programs.
      isabelle: folder of Isabelle.
      proofs: `servers` at once, and the `Limits` of time.
    Raises:
      InputError: this machine cannot isolate, or Isabelle is not there; it says what to install.
    """
    named = list(named)
    pool = prover = None
    with contextlib.ExitStack() as stack:
        if tool or any(runs_programs(*name) for name in named):
            pool = Pool(workers, isolation)
            stack.callback(pool.close)
        if any(_kind(benchmark) == "proof" for benchmark, _ in named):
            limits = {name: seconds for name, seconds in proofs.items() if name != "servers"}
            prover = stack.enter_context(Prover(isabelle, int(proofs["servers"]), Limits(**limits)))
        yield Runners(protocol, pool, prover)
