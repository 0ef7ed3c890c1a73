"""Explains a grader's verdict step by step.

python -m experiments.grade PRED GOLD [--grader=strict|paper] [--benchmark=ocw] [--solution] [--few_shot]

PRED is a final answer, with --solution a whole solution; "-" reads it from standard input. The exit status is 0 for a
right answer, 1 for any other.
"""

import sys

from absl import flags

from dsmath.data.benchmarks.catalog import find_benchmark
from dsmath.reward.explanation import explain
from dsmath.reward.graders import GRADERS
from dsmath.runs.driver import run_program


def define_flags() -> None:
    """The flags of the command line."""
    flags.DEFINE_enum("grader", GRADERS[0], GRADERS, "strict: mathematics decides; paper: the released evaluation")
    flags.DEFINE_string("benchmark", "", "a benchmark with a rule of its own, such as ocw")
    flags.DEFINE_bool("solution", False, "PRED is a whole solution; its answer is extracted first")
    flags.DEFINE_bool("few_shot", False, "a few-shot prompt asked, on which the paper's extraction depends")


def start(prediction: str, gold: str) -> None:
    """Prints the steps and ends with the verdict's status."""
    value = {name: flags.FLAGS[name].value for name in ("grader", "benchmark", "solution", "few_shot")}
    if value["benchmark"]:
        find_benchmark(value["benchmark"])
    if prediction == "-":
        prediction = sys.stdin.read()
    grade, steps = explain(
        prediction,
        gold,
        value["benchmark"],
        grader=value["grader"],
        is_solution=value["solution"],
        few_shot=value["few_shot"],
    )
    for name, text in steps:
        print(f"{name:<20}{text}")
    sys.exit(0 if grade.outcome == "right" else 1)


def order_arguments(argv: list[str]) -> list[str]:
    """The flags first, then "--" and the answers, so that -5 is an answer and no flag."""
    options, answers, rest = [], [], iter(argv[1:])
    for argument in rest:
        if argument in ("--grader", "--benchmark"):  # its value is the next word
            options.append(f"{argument}={next(rest, '')}")
        elif argument.startswith("--") and len(argument) > 2:
            options.append(argument)
        elif argument != "--":
            answers.append(argument)
    return [argv[0], *options, "--", *answers]


if __name__ == "__main__":
    define_flags()
    sys.argv = order_arguments(sys.argv)
    run_program("grade", start, arguments=("PRED", "GOLD"))
