"""A perfect model scores 100 % on every benchmark in every mode, one that answers other questions scores by chance."""

import collections
import concurrent.futures
import dataclasses
import math
import random

import pytest

from dsmath.data.benchmarks.catalog import BENCHMARKS, read
from dsmath.data.benchmarks.item import Item
from dsmath.evaluation.grading import Runner, Verdict, grade
from dsmath.evaluation.oracle import solve
from dsmath.evaluation.prompts import make_prompt, modes_of
from dsmath.runs.errors import InputError
from dsmath.sandbox import Pool

REAL = [name for name in BENCHMARKS if name not in ("minif2f", "mmlu")]  # MMLU's files are not among the shared data
PAIRS = [(name, mode) for name in REAL for mode in modes_of(name)]
RUN = [(name, mode) for name, mode in PAIRS if mode == "few_shot_pot" or BENCHMARKS[name].kind == "code"]
SAMPLE = 100
FEW = 30  # of a chat about code, whose programs are those of the other mode again
CODE = {"tests": "def check(candidate):\n    assert candidate(3) == 4\n", "setup": "", "entry_point": "more"}
NONE = ("setup", "entry_point")
OWN = [
    Item("gsm8k", "1", "What is 3 + 4?", "7", "3 + 4 = 7."),
    Item("gsm8k", "2", "What is 3000 / 2?", "1500", "It is 1500."),
    Item("math", "1", "Find all roots of $x^2-3x+2$.", "1, 2", "They are $\\boxed{1}$ and $\\boxed{2}$."),
    Item("math", "2", "Simplify $\\frac{2x}{4}$.", "\\frac{x}{2}", "It is $\\boxed{\\frac{x}{2}}$."),
    Item("ocw", "1", "Subproblem 0: How bright?", "4.5e33", subject="numeric"),
    Item("ocw", "2", "Subproblem 0: Which law?", "m g = 2 k x", subject="equation"),
    Item("sat", "1", "What is $3+4$?", "D", choices=("$4$", "$5$", "$6$", "$7$")),
    Item("mmlu_stem", "1", "Which is even?", "A", choices=("2", "3", "5", "7"), subject="astronomy"),
    Item("mgsm_zh", "1", "3 加 4 等于多少？", "7", language="zh"),
    Item("cmath", "1", "一半的一半是多少？", "2/8", language="zh", level="5"),
    Item("gaokao_mathcloze", "1", "$x=(\\quad)$, $y=(\\quad)$", "$5$;$\\frac{1}{2}$", language="zh"),
    Item("gaokao_mathqa", "1", "哪些是偶数", "AC", choices=("$2$", "$3$", "$4$", "$5$"), language="zh"),
    Item("mmlu", "1", "Which is a fruit?", "B", choices=("stone", "pear", "desk", "lamp"), subject="nutrition"),
    Item("bbh", "1", "Which statement is sarcastic?", "B", choices=("Fine", "Oh, fine"), subject="snarks"),
    Item("bbh", "2", "Complete the rest of the sequence. Input: ( {", "} )", subject="dyck_languages"),
    Item("bbh", "3", "Sort: List: pear it&t fig", "fig it&t pear", subject="word_sorting"),
    Item("bbh", "4", "Question: Ann lies. Does Ann tell the truth?", "No", subject="web_of_lies"),
    Item("humaneval", "1", 'def more(x):\n    """One more."""\n', "", "    return x + 1\n", extra=CODE),
    Item(
        "mbpp", "1", "More.", "", "def f():\n    return 2", extra=CODE | {"tests": "assert f() == 2", "entry_point": ""}
    ),
    Item("embedded", "1", "What is 3 + 4?", "7", "3+4=7. \\boxed{7}"),
]


@pytest.fixture(scope="module")
def runner() -> Runner:
    pool = Pool(2)
    yield Runner(pool, seconds=120, memory=1 << 30)
    pool.close()


def mark(items: list[Item], mode: str, solved: list[Item], runner: Runner) -> list[Verdict]:
    """Verdicts on the solutions of other items, or of the same."""
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda item, other: grade(item, mode, solve(other, mode), run=runner), items, solved))


def assert_solved(items: list[Item], mode: str, runner: Runner) -> None:
    verdicts = mark(items, mode, items, runner)
    wrong = {
        (item.id, item.answer): verdict for item, verdict in zip(items, verdicts, strict=True) if not verdict.correct
    }
    assert not wrong, f"{len(wrong)} of {len(items)}"


def some(items: list[Item]) -> list[Item]:
    return items[:: max(1, len(items) // SAMPLE)]


def test_the_oracle_solves_problems_of_our_own_in_every_mode(runner):
    assert {item.benchmark for item in OWN} == {*REAL, "mmlu", "embedded"}
    for item in OWN:
        for mode in modes_of(item.benchmark):
            assert_solved([item], mode, runner)


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_the_oracle_solves_the_real_benchmarks(shared_data, runner, name, mode):
    items = read(name, shared_data / "benchmarks")
    count = FEW if BENCHMARKS[name].kind == "code" and mode == "chat" else SAMPLE
    assert_solved(items[:: max(1, len(items) // count)], mode, runner)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_the_oracle_solves_every_real_problem(shared_data, runner, name, mode):
    for split in BENCHMARKS[name].sizes:
        if split != "train" and (name, split) != ("mbpp", "prompt"):
            assert_solved(read(name, shared_data / "benchmarks", split), mode, runner)


def test_solutions_as_they_stand_upstream_are_right(shared_data):
    for name in ("math", "ocw"):
        items = [item for item in read(name, shared_data / "benchmarks") if "boxed" in item.solution]
        wrong = [item.id for item in items if not grade(item, "chat", item.solution).correct]
        assert len(items) > 100 and not wrong, f"{name}: {len(wrong)} of {len(items)}"


def test_there_is_no_oracle_of_what_upstream_does_not_solve():
    with pytest.raises(InputError, match="minif2f has no formal proofs"):
        solve(Item("minif2f", "1", "Show it.", ""), "few_shot")
    with pytest.raises(InputError, match="gsm8k has no mode 'choice'"):
        solve(OWN[0], "choice")


def shuffle(items: list[Item]) -> list[Item]:
    """Each item with the gold answer and solution of another one of its subject, where answers have one form."""
    groups = collections.defaultdict(list)
    for item in items:
        groups[item.subject if item.benchmark == "bbh" else ""].append(item)
    exchanged = {}
    for group in groups.values():
        order = random.Random(0).sample(group, len(group))
        for item, other in zip(order, order[1:] + order[:1], strict=True):
            exchanged[item.id] = dataclasses.replace(item, answer=other.answer, solution=other.solution)
    return [exchanged[item.id] for item in items]


def chance(items: list[Item]) -> float:
    """How often the gold answer of another one of the subject is, as a text, one's own."""
    same, group = collections.Counter(), collections.Counter()
    for item in items:
        subject = item.subject if item.benchmark == "bbh" else ""
        same[subject, item.answer] += 1
        group[subject] += 1
    return sum(count * (count - 1) / (group[subject] - 1) for (subject, _), count in same.items()) / len(items)


@pytest.mark.parametrize(("name", "mode"), [pair for pair in PAIRS if pair not in RUN])
def test_answers_to_other_questions_score_by_chance(shared_data, runner, name, mode):
    items = read(name, shared_data / "benchmarks")
    if BENCHMARKS[name].kind != "target":
        items = items[:: max(1, len(items) // 600)]
    expected = chance(items)
    verdicts = mark(items, mode, shuffle(items), runner)
    found = sum(verdict.correct for verdict in verdicts) / len(items)
    # Four standard deviations; and answers that are equal in other words, or within the tolerance.
    slack = 0.0 if BENCHMARKS[name].kind == "choice" else 0.01
    assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / len(items)) + slack + 1 / len(items)
    if BENCHMARKS[name].kind == "choice":
        assert 0.2 < expected < 0.3
    elif BENCHMARKS[name].kind == "answer":
        assert expected < 0.05
    assert {verdict.reason for verdict in verdicts} <= {"right", "wrong"}


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_functions_for_other_tasks_fail(shared_data, runner, name):
    items = read(name, shared_data / "benchmarks")[:60:2]
    exchanged = [
        dataclasses.replace(item, question=other.question, solution=other.solution, extra=other.extra)
        for item, other in zip(items, items[1:] + items[:1], strict=True)
    ]
    assert not any(verdict.correct for verdict in mark(items, "chat", exchanged, runner))


def test_programs_for_other_questions_are_wrong(shared_data, runner):
    items = read("math", shared_data / "benchmarks")[::60]
    verdicts = mark(items, "few_shot_pot", shuffle(items), runner)
    assert sum(verdict.correct for verdict in verdicts) <= 0.1 * len(items)


def test_the_oracles_letter_is_among_those_that_likelihood_chooses_from(shared_data):
    for name in ("sat", "mmlu_stem", "gaokao_mathqa"):
        items = read(name, shared_data / "benchmarks")
        missing = [item for item in items if solve(item, "choice") not in make_prompt(item, "choice").choices]
        # A choice of several letters cannot be told by the likelihood of one: it counts as wrong.
        assert all(len(item.answer) > 1 for item in missing) and len(missing) <= 7
