"""Mutated answers through extraction and every grader: nothing raises, hangs or is executed."""

import random
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_answers import judge_every_way, mutate, read_corpus
from dsmath.reward import symbolic

_TEXTS = read_corpus([__file__.replace("test_fuzz.py", "pairs.txt")])


def _judge(text: str, gold: str, benchmark: str) -> None:
    if symbolic.needs_worker(text, gold):  # its limit is tested elsewhere
        return
    started = time.process_time()
    judge_every_way(text, gold, benchmark)
    assert time.process_time() - started < 5  # under 0.4 s


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.sampled_from(["", "math", "ocw", "gaokao_mathcloze", "cmath"]))
def test_mutated_answers_are_judged(seed, benchmark):
    rng = random.Random(seed)
    _judge(mutate(rng, rng.choice(_TEXTS), rng.choice(_TEXTS)), rng.choice(_TEXTS), benchmark)


@settings(max_examples=150)
@given(st.text(max_size=80), st.sampled_from(_TEXTS))
def test_any_text_is_judged(text, gold):
    _judge(text, gold, "")


@settings(max_examples=150)
@given(st.text(alphabet="0123456789.,/^_{}()[]\\+-*=<>|%!$xe 又分之万", max_size=60), st.sampled_from(_TEXTS))
def test_any_formula_is_judged(text, gold):
    _judge(text, gold, "ocw")


@pytest.mark.parametrize(
    "text",
    [
        "24块4" + "块" * 60 + "\\frac块",
        "2" + "又" * 1900,
        "9 d" + "aysays" * 300,
        "\\pi" + " m" * 900 + "!",
        "2." + "3" * 40_000,
        "1" + "\\frac12" * 280,
        "x_{" * 600,
        "[1,2;" * 380,
        "\\begin{pmatrix}" + "1&" * 700 + "\\end{pmatrix}",
        "\\begin{vmatrix}" + ("1&2&3&4&5\\\\" * 5)[:-2] + "\\end{vmatrix}",
        "twenty " * 250,
        "\\begin{cases}" * 130,
        "大于" * 900,
        "10:10 pm" * 200,
        "\\ln" * 100 + "3",
        "2^" * 39 + "x",
        "A" + " " * 900 + "∪" + " " * 900,
        "B," + " " * 500,
        "1 \n" * 500,
    ],
)
def test_texts_on_which_patterns_could_stall_are_judged_at_once(text):
    started = time.process_time()
    judge_every_way(text, "1/2", "ocw")
    assert time.process_time() - started < 1.5


def test_nothing_of_a_text_is_executed():
    script = """
import sys
from benchmarks.fuzz_answers import judge_every_way
events = []
judge_every_way("1", "2", "ocw")
sys.addaudithook(lambda event, arguments: events.append(event))
for code in ("__import__('os').getpid()", "eval('1')", "(lambda: 1)()", "open('/etc/passwd').read()", "().__class__"):
    for benchmark in ("", "ocw", "math", "cmath"):
        judge_every_way(code, "1", benchmark)
print(*sorted({"exec", "open", "os.system", "subprocess.Popen"} & set(events)), "none else")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["none", "else"]
