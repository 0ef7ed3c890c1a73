"""The driver that explains a verdict."""

import subprocess
import sys

import pytest

from dsmath.reward.explanation import explain
from experiments.grade import order_arguments


def _grade(*arguments, text=None):
    command = [sys.executable, "-m", "experiments.grade", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


def test_a_solution_is_explained_step_by_step():
    done = _grade("-", "2/3", "--solution", text="So two of three. The answer is 三分之二.")
    assert done.returncode == 0, done.stderr
    steps = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith(("pred", "gold")))
    assert steps["extracted"] == "三分之二"
    assert steps["verdict"] == "right"
    assert "prediction cleaned  \\frac{2}{3}" in done.stdout


def test_a_wrong_answer_and_a_missing_argument_have_their_status():
    done = _grade("-5", "5")
    assert (done.returncode, done.stdout.split()[-1]) == (1, "wrong")
    done = _grade("5")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: GOLD: is missing")


def test_negative_answers_are_no_flags():
    assert order_arguments(["grade", "-5", "--grader=paper", "-5"]) == ["grade", "--grader=paper", "--", "-5", "-5"]


def test_a_flag_may_have_its_value_behind_a_space():
    given = ["grade", "--", "-5", "5", "--grader", "paper", "--solution"]
    assert order_arguments(given) == ["grade", "--grader=paper", "--solution", "--", "-5", "5"]


def test_an_unknown_benchmark_is_refused():
    done = _grade("5", "5", "--benchmark=ocww")
    assert done.returncode == 2
    assert "'ocww' is no benchmark; did you mean 'ocw'?" in done.stderr


@pytest.mark.parametrize(
    ("prediction", "gold", "reading"),
    [
        ("(1,2]", "1<x\\le2", "a tuple or an interval (1, 2]"),
        ("\\{1,2\\}", "2,1", "the set {1, 2}"),
        ("x=1 \\text{ or } x<0", "x<0 or x=1", "one of the relation x = 1, the relation x < 0"),
        ("\\begin{pmatrix}1\\\\\\sqrt[3]{x}\\end{pmatrix}", "(1,\\sqrt[3]x)", "a matrix of 1; root_3(x)"),
        ("3:30 pm", "15:30", "the time 15:30"),
        ("2:3", "4:6", "the ratio 2:3"),
        ("A, C", "CA", "the choice A, C"),
        ("5 cm", "5.0 cm", "the expression 5 in cm"),
        ("\\sin(-30°)+50\\%", "0", "the expression (sin(-30°) + 50%)"),
        ("S=[0,1]", "[0,1]", "S which is a tuple or an interval [0, 1]"),
        ("Olga", "Anna", "the words 'olga'"),
    ],
)
def test_every_kind_of_reading_is_described(prediction, gold, reading):
    steps = explain(prediction, gold)[1]
    assert any(name == "prediction read" and reading in text for name, text in steps), steps


def test_the_papers_grader_is_explained_too():
    grade, steps = explain("The answer is 4.", "4", "gsm8k", grader="paper", is_solution=True)
    assert (grade.outcome, dict(steps)["extracted"]) == ("right", "4")
