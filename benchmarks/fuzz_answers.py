"""Mutated answers through extraction and every grader: nothing may raise, hang or be executed.

    python -m benchmarks.fuzz_answers --corpus=CASES.jsonl,PAIRS.txt [--count=100000] [--seed=0] [--json=FILE]

Texts are the gold answers and predictions of JSON lines, and the lines of other files. A mutation cuts, doubles, joins,
nests and repeats them, drops brackets, raises to powers and puts in signs of other scripts and code.
"""

import json
import pathlib
import random
import signal
import sys
import time
import traceback

from absl import app, flags

from benchmarks import timing
from dsmath.reward import symbolic
from dsmath.reward.answers import compare, extract_answer
from dsmath.reward.graders import GRADERS, grade
from dsmath.runs.workdir import write_json

_CORPUS = flags.DEFINE_list("corpus", None, "files of texts: JSON lines of cases, or lines of text", required=True)
_COUNT = flags.DEFINE_integer("count", 100_000, "mutated texts")
_SEED = flags.DEFINE_integer("seed", 0, "of the mutations")
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_LIMIT = 1.0  # seconds of a text
_WORKER_SHARE = 0.002  # of the texts with sums and integrals: each may take the worker's limit, many times
_HANG = 60  # seconds after which a text is given up
_BENCHMARKS = ("", "gsm8k", "math", "ocw", "cmath", "gaokao_mathcloze", "gaokao_mathqa", "sat")
_EXECUTES = ("exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "open")

_PIECES = (  # noqa: SIM905 what a mutation puts in
    "{ } ( ) [ ] \\{ \\} \\left( \\right] | $ $$ \\\\ \\ & _ ^ ^{ ^{-1} ** ! !! % \\% ' \" , ; : . .. ... = < > "
    "\\le ≥ ≠ \\frac{ \\frac \\dfrac12 \\sqrt{ \\sqrt[3] √ ∛ \\pm ± \\cup ∪ \\cap \\in \\infty ∞ \\pi π ½ "
    "⅔ ³ ₂ ⁻ × ÷ − ° ％ （ ） ， \\text{ \\text{cm} \\mathrm \\boxed{ \\fbox #### \\begin{pmatrix} "
    "\\end{pmatrix} \\begin{cases} \\binom \\int_0^1 \\sum_{n=1}^{9} \\log_ \\ln \\sin sin x y i e 0 1 9 -1 1e9 "
    "1e-9 1e999999 10^{10} 99999999 9**9**9 9^{9^{9^{9}}} 7! 分之 又 百分之 负 万 亿 十 大于 或 和 答案是 个 ① "
    "\u200b \u0000 \U0001d7d9 ٣ mod None nan or and the __import__('os').getpid() ().__class__ eval(1) lambda:0 "
    "1;2 1:2 \\over \\choose \\dot{3} \\overline{3} np.sin array( Matrix([[1,2],[3,4]]) C_5^2 pm"
).split(" ")


def mutate(rng: random.Random, text: str, other: str) -> str:
    """A text changed in one to four ways; `other` gives what is joined to it."""
    for _ in range(rng.randint(1, 4)):
        start, stop = sorted(rng.randint(0, len(text)) for _ in range(2))
        kind = rng.randrange(11)
        if kind == 0:
            text = text[:start]
        elif kind == 1:
            text = text[:start] + text[stop:]
        elif kind == 2:
            text = text[:stop] + text[start:stop] + text[stop:]
        elif kind == 3:
            text = text[:start] + other + text[start:]
        elif kind in (4, 5):
            text = text[:start] + rng.choice(_PIECES) + text[start:]
        elif kind == 6:
            brackets = [index for index, char in enumerate(text) if char in "(){}[]\\$"]
            spot = rng.choice(brackets) if brackets else 0
            text = text[:spot] + text[spot + 1 :]
        elif kind == 7:
            text = f"({text})^{{{other}}}" if rng.random() < 0.5 else f"\\frac{{{text}}}{{{other}}}"
        elif kind == 8 and rng.random() < 0.2:
            text = text[:start] + (text[start:stop] or rng.choice(_PIECES)) * rng.choice((10, 100, 2000)) + text[stop:]
        elif kind == 9:
            text = "".join(rng.choice(text) if text and rng.random() < 0.1 else char for char in text)
        else:
            text = rng.choice(_PIECES).join((text[:start], text[start:]))
    return text[:50_000]


def judge_every_way(text: str, gold: str, benchmark: str) -> None:
    """Extraction, comparison both ways and every grader on one text."""
    extract_answer(text, fallback="last_number")
    compare(text, gold)
    compare(gold, text)
    for grader in GRADERS:
        for few_shot in (False, True):
            grade(text, gold, benchmark, grader=grader, few_shot=few_shot)
    grade(f"The answer is {text}", gold, benchmark)
    grade(f"$\\boxed{{{text}}}$", gold, benchmark, grader="paper")


def read_corpus(files: list[str]) -> list[str]:
    """The texts of cases and of other files' lines."""
    texts: dict[str, None] = {}
    for name in files:
        for line in pathlib.Path(name).read_text(encoding="utf-8").splitlines():
            if name.endswith(".jsonl"):
                case = json.loads(line)
                texts |= dict.fromkeys(str(case[key]) for key in ("gold", "prediction", "answer") if case.get(key))
            else:
                texts |= dict.fromkeys(part.strip() for part in line.replace("≢", "≡").split("≡"))
    return [text[:3000] for text in texts if text]


class _HangError(BaseException):
    pass


def main(argv: list[str]) -> None:
    del argv
    texts, rng = read_corpus(_CORPUS.value), random.Random(_SEED.value)
    executed: list[str] = []
    watching = False

    def watch(event: str, arguments: tuple) -> None:
        if watching and event in _EXECUTES:
            executed.append(f"{event} {arguments!r}"[:200])

    def give_up(*_: object) -> None:
        raise _HangError

    judge_every_way("\\int_0^1 x dx", "1/2", "")  # imports, and starts the worker
    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, give_up)
    slowest: list[tuple[float, str, str]] = []
    failures: list[str] = []
    started = time.perf_counter()
    for number in range(_COUNT.value):
        text, gold = mutate(rng, rng.choice(texts), rng.choice(texts)), rng.choice(texts)
        benchmark = rng.choice(_BENCHMARKS)
        if symbolic.needs_worker(text, gold) and rng.random() > _WORKER_SHARE:
            continue
        signal.alarm(_HANG)
        watching, begun = True, time.perf_counter()
        try:
            judge_every_way(text, gold, benchmark)
        except _HangError:
            failures.append(f"hang: {text[:300]!r} {gold[:100]!r}")
            print(failures[-1], flush=True)
        except Exception:
            failures.append(f"{traceback.format_exc(limit=-2)} {text[:300]!r} {gold[:100]!r}")
            print(failures[-1], flush=True)
        watching = False
        signal.alarm(0)
        if not symbolic.needs_worker(text, gold):
            slowest = sorted([*slowest, (time.perf_counter() - begun, text[:200], gold[:100])], reverse=True)[:10]
        if number % 10_000 == 9_999:
            print(f"{number + 1:,} texts, {len(failures)} failures, {time.perf_counter() - started:,.0f} s", flush=True)

    for event in executed[:20]:
        print(event)
    for seconds, text, gold in slowest:
        print(f"{seconds:8.3f} s  {text!r} {gold!r}")
    over = sum(row[0] > _LIMIT for row in slowest)
    print(f"{_COUNT.value:,} texts: {len(failures)} raised or hung, {len(executed)} executed, {over} over {_LIMIT} s")
    if _JSON.value:
        found = {"texts": _COUNT.value, "seed": _SEED.value, "failures": failures, "executed": executed}
        write_json(_JSON.value, {**found, "slowest": slowest, "machine": timing.describe_machine("sympy")})
    sys.exit(1 if failures or executed or over else 0)


if __name__ == "__main__":
    app.run(main)
