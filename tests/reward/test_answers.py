"""Extraction of answers, and their equivalence."""

import json
import re
import subprocess
import sys
import threading
import time

import pytest

from dsmath.reward import symbolic
from dsmath.reward.answers import compare, extract_answer, is_equivalent

_EXTRACTED = [
    ("Adding, $5+6=11$, so the answer is $\\boxed{11}$.", "11"),
    ("$\\boxed{\\frac{\\pi}{3}}$, then \\boxed{\\{1, \\{2\\}\\}}", "\\{1, \\{2\\}\\}"),
    ("The answer is \\boxed 5.", "5"),
    ("\\fbox{3}", "3"),
    ("first \\boxed{3}, at last \\boxed{4}", "4"),
    ("48+24 = <<48+24=72>>72\n#### 72", "72"),
    ("Total is 2,500.\n#### 2,500", "2,500"),
    ("The answer is 3.14.", "3.14"),
    ("the answer is 5, because it is odd", "5"),
    ("Final Answer: The final answer is (D). I hope it is correct.", "(D)"),
    ("**Answer:** 42", "42"),
    ("so she bought 4 more.\nA: 4", "4"),
    ("所以答案是：14。", "14"),
    ("答案为 15 米。", "15 米"),
    ("最终答案：15", "15"),
    ("答案是5，因为它是奇数", "5"),
    ("综上，选 B。", "B"),
    ("故选：ACD", "ACD"),
]

_SAME = [
    ("\\frac14", "1/4"),
    ("½", "0.5"),
    ("2 3/5", "13/5"),
    ("4\\frac{1}{2}", "\\frac{9}{2}"),
    ("1,\\!234", "1234"),
    ("\\$1,234.50", "1234.5"),
    ("60\\text{ km/h}", "60"),
    ("5 cm^2", "5"),
    ("50\\%", "1/2"),
    ("20", "20\\%"),
    ("2.4\\times10^3", "2400"),
    ("4.5E33", "4.5e33"),
    ("√18", "3\\sqrt{2}"),
    ("x³", "x^3"),
    ("\\frac{1}{1+\\sqrt2}", "\\sqrt2-1"),
    ("\\sqrt{6+4\\sqrt2}", "2+\\sqrt2"),
    ("0.\\overline{3}", "\\frac13"),
    ("2.3333333333333335", "7/3"),
    ("３６", "36"),
    ("三又五分之二", "17/5"),
    ("一百零五", "105"),
    ("百分之三十", "0.3"),
    ("15平方厘米", "15"),
    ("1\\le x<2", "[1,2)"),
    ("x<2 or x>5", "(-\\infty,2)\\cup(5,\\infty)"),
    ("x\\ne 3", "(-∞,3)∪(3,∞)"),
    ("-x<3", "x>-3"),
    ("x > 1 and x < 3", "(1,3)"),
    ("\\mathbb{R}", "(-\\infty,\\infty)"),
    ("\\{3,1,2\\}", "1,2,3"),
    ("\\pm\\sqrt2", "x=\\sqrt2 \\text{ or } x=-\\sqrt2"),
    ("\\text{no solution}", "\\emptyset"),
    ("\\begin{bmatrix}0.5\\\\1\\end{bmatrix}", "\\begin{pmatrix}\\frac12\\\\ 1\\end{pmatrix}"),
    ("(1,2)", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("3x-y=2", "y=3x-2"),
    ("n=8", "8"),
    ("x=3, y=4", "(3,4)"),
    ("A、C、D", "ACD"),
    ("(B) 42", "B"),
    ("①③", "\\textcircled{1}\\textcircled{3}"),
    ("6:10", "3:5"),
    ("(x+1)^2", "x^2+2x+1"),
    ("\\sin 2x", "2\\sin x\\cos x"),
    ("\\log_2 8", "3"),
    ("e\\cdot e^x", "e^{x+1}"),
    ("60^\\circ", "\\frac{\\pi}{3}"),
    ("np.arcsin(10/13)", "\\arcsin(10/13)"),
    ("Bob", "\\text{Bob}"),
    ("1/2; 3", "$0.5$;$3$"),
]

_DIFFERENT = [
    ("20", "0.2"),
    ("0.5\\%", "0.5"),
    ("1e-9", "0"),
    ("0.333", "1/3"),
    ("4,5,6", "456"),
    ("4 5", "45"),
    ("(2,1)", "(1,2)"),
    ("[1,2]", "(1,2)"),
    ("\\{2\\}", "\\{2,3\\}"),
    ("2;1", "1;2"),
    ("x=5", "y=5"),
    ("X", "x"),
    ("\\sqrt{x^2}", "x"),
    ("AC", "ACD"),
    ("7\\text{ feet}", "7\\text{ inches}"),
    ("10:30", "5:15"),
    ("listen", "silent"),
    ("\\frac{1}{23", "\\frac{12}{3}"),
    ("", ""),
    ("1/0", "1"),
]

_HOSTILE = [
    "9**9**9**9",
    "7^{7^{7^{7}}}",
    "1e999999999",
    "100000000!",
    "\\binom{999999999}{444444444}",
    "__import__('os').getppid()*0",
    "(" * 1_000_000,
    "\\boxed{" * 100_000,
    "\\sqrt{" * 300 + "2" + "}" * 300,
    "1+" * 900 + "1",
    "-" * 1900 + "1",
    "|" * 1900,
    "A " * 900,
    "x<" * 900 + "1",
    "a or " * 350,
    "\\{" * 900,
    "十" * 1900,
    " " * 1_000_000,
    "#### " * 100_000,
    "答案是" * 100_000,
    "(1+x+y+z)^{60}",
    "2^{3^{4^{5}}}-2^{3^{4^{5}}}",
]


@pytest.mark.parametrize(("solution", "answer"), _EXTRACTED)
def test_the_final_answer_is_extracted(solution, answer):
    assert extract_answer(solution) == answer


@pytest.mark.parametrize(
    "solution", ["I am not sure.", "He has 5 apples.", "", "so it is \\boxed{\\frac{1}{2", "\\boxed{}"]
)
def test_no_answer_is_none(solution):
    assert extract_answer(solution) is None


@pytest.mark.parametrize(("left", "right"), _SAME)
def test_the_same_answer_in_another_notation(left, right):
    assert is_equivalent(left, right)
    assert is_equivalent(right, left)


@pytest.mark.parametrize(("left", "right"), _DIFFERENT)
def test_a_different_answer(left, right):
    assert not is_equivalent(left, right)
    assert not is_equivalent(right, left)


@pytest.mark.parametrize("text", _HOSTILE, ids=range(len(_HOSTILE)))
def test_hostile_text_is_wrong_at_once(text):
    started = time.process_time()
    extract_answer(text)
    assert not is_equivalent(text, "7")
    assert not is_equivalent(f"\\boxed{{{text}}}", "0.5")
    assert time.process_time() - started < 1.5  # about 0.1 s


def test_open_cases_of_the_shared_data(shared_data):
    cases = [json.loads(line) for line in (shared_data / "answers" / "examples.jsonl").read_text().splitlines()]
    wrong = []
    for case in cases:
        answer = extract_answer(case["prediction"]) if case["kind"] == "solution" else case["prediction"]
        if (answer is not None and is_equivalent(answer, case["gold"])) != case["equivalent"]:
            wrong.append(case["id"])
    assert len(wrong) <= 0.01 * len(cases), wrong


def test_real_golds_survive_rewriting_and_differ_from_their_negatives(shared_data):
    lines = (shared_data / "benchmarks" / "math" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    golds = {extract_answer(json.loads(line)["solution"]) for line in lines} - {None}
    rewritten = {gold: "$\\boxed{" + re.sub(r"\\frac", r"\\dfrac", gold) + "}$." for gold in golds}
    assert [gold for gold, other in rewritten.items() if not is_equivalent(other, gold)] == []
    positive = [
        gold for gold in golds if gold[0] not in "-+0" and "=0" not in gold.replace(" ", "") and ":" not in gold
    ]
    accepted = [gold for gold in positive if is_equivalent(f"-{gold}", gold)]
    assert len(accepted) <= 2, accepted


def test_sums_and_integrals_are_decided_in_the_worker():
    assert is_equivalent("\\int_0^1 x dx", "\\frac12")
    assert is_equivalent("\\sum_{n=1}^{3} n", "6")
    assert not is_equivalent("\\int_0^1 x dx", "\\frac13")


def test_the_worker_is_killed_at_its_limit_and_starts_again(monkeypatch):
    monkeypatch.setattr(symbolic, "LIMIT_SECONDS", 0.0)
    assert symbolic.are_equal("\\int_0^1 \\sin(\\sin(x)) x^3 dx", "1") is None
    assert compare("\\int_0^1 \\sin(\\sin(x)) x^5 dx", "1").outcome == "timeout"
    monkeypatch.undo()
    assert symbolic.are_equal("\\int_0^2 x dx", "2")


def test_the_worker_serves_threads_without_signals():
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(symbolic.are_equal("\\int_0^4 x dx", "8"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 3


def test_a_script_without_a_main_guard_can_ask_the_worker():
    script = "from dsmath.reward.answers import is_equivalent; print(is_equivalent('\\\\int_0^1 x dx', '0.5'))"
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "True"
