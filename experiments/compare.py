"""Compares two evaluations on the same problems: who wins where, and whether that may be chance.

python -m experiments.compare runs/evaluate_sft runs/evaluate_rl [--output=comparison.json]
python -m experiments.compare runs/evaluate_sft/rescored/1 runs/evaluate_rl/rescored/1     # by another grader

For each benchmark and mode that both have: the difference with its 95 % interval (paired bootstrap) and the p-value of
the sign test. The file names the problems that each wins.
"""

from absl import flags

from dsmath.evaluation.comparison import compare, draw_comparison
from dsmath.runs.driver import run_program
from dsmath.runs.workdir import write_json


def define_flags() -> None:
    """The flags of the command line."""
    flags.DEFINE_string("output", "", "file for the comparison as JSON, the problems that each wins with it")


def start(first: str, second: str) -> None:
    """Prints the table; writes the file that --output names."""
    found = compare(first, second)
    print(draw_comparison(found))
    if flags.FLAGS.output:
        write_json(flags.FLAGS.output, {"first": first, "second": second, "comparison": found})


if __name__ == "__main__":
    define_flags()
    run_program("compare", start, writes="--output", arguments=("FIRST_WORKDIR", "SECOND_WORKDIR"))
