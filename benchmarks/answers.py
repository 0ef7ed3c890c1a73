"""Answer equivalence beside math-verify, on the same cases in one run.

    python -m benchmarks.answers --cases=CASES.jsonl [--json=FILE]

A case is a JSON line with gold, prediction, equivalent and kind ("expression", or "solution" whose answer must be
extracted first). Both start with warm imports and empty caches; a case's time is that of its first verdict.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags

from benchmarks import timing
from dsmath.reward.answers import extract_answer, is_equivalent
from dsmath.runs.workdir import write_json

_CASES = flags.DEFINE_string("cases", None, "JSON lines of gold, prediction, equivalent and kind", required=True)
_JSON = flags.DEFINE_string("json", None, "file for all figures, with the machine's description")
_GOAL = 10.0
_AGREEMENT_GOAL = 0.99
_TIMEOUT = 4.5  # seconds; math-verify gives a step up after 5


def main(argv: list[str]) -> None:
    del argv
    with open(_CASES.value, encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    rows = {"dsmath": _measure(_ours, cases), "math-verify": _measure(_load_math_verify(), cases)}

    columns = ("agreement", "false accepts", "false rejects", "slowest s", "cases/s")
    print(f"{f'{len(cases)} cases':<18}{''.join(f'{column:>15}' for column in columns)}")
    for name, row in rows.items():
        print(
            f"{name:<18}{row['agreement']:>15.4f}{len(row['false_accepts']):>15}{len(row['false_rejects']):>15}"
            f"{row['slowest_seconds']:>15.3f}{row['cases_per_second']:>15.1f}"
        )
    for name in ("false_accepts", "false_rejects"):
        print(f"dsmath's {name.replace('_', ' ')}: {', '.join(rows['dsmath'][name]) or 'none'}")
    alone = sorted(set(rows["dsmath"]["false_accepts"]) - set(rows["math-verify"]["false_accepts"]))
    print(f"false accepts that math-verify avoids: {', '.join(alone) or 'none'} (goal: none)")
    print(f"agreement {rows['dsmath']['agreement']:.4f} (goal: {_AGREEMENT_GOAL})")
    outputs = [case for case in cases if case.get("tag") == "gsm8k_model_output"]
    unlike = [str(case["id"]) for case in outputs if _ours(case) != case["equivalent"]]
    print(f"real model outputs of GSM8K, {len(outputs)}: labels not reproduced: {', '.join(unlike) or 'none'}")
    quick = [i for i, seconds in enumerate(rows["math-verify"]["seconds"]) if seconds < _TIMEOUT]
    sums = [sum(row["seconds"][i] for i in quick) for row in rows.values()]
    print(
        f"without the {len(cases) - len(quick)} cases on which math-verify ran out of time: "
        f"{sums[1] / sums[0]:.2f} times as many answers per second"
    )
    ratio = rows["dsmath"]["cases_per_second"] / rows["math-verify"]["cases_per_second"]
    if _JSON.value:
        machine = timing.describe_machine("sympy", "math-verify")
        found = {"cases": len(cases), "rows": rows, "false_accepts_alone": alone, "ratio": ratio, "goal": _GOAL}
        write_json(_JSON.value, {**found, "machine": machine})
    if alone or rows["dsmath"]["agreement"] < _AGREEMENT_GOAL:
        sys.exit(1)
    timing.conclude("answers_per_second", ratio, _GOAL)


def _measure(judge: Callable[[dict[str, Any]], bool], cases: list[dict[str, Any]]) -> dict[str, Any]:
    judge({"gold": "1/3", "prediction": "\\frac{1}{3}", "kind": "expression"})
    wrong: dict[bool, list[str]] = {True: [], False: []}
    seconds = []
    for number, case in enumerate(cases):
        started = time.perf_counter()
        verdict = judge(case)
        seconds.append(time.perf_counter() - started)
        if verdict != case["equivalent"]:
            wrong[verdict].append(str(case.get("id", number)))
    return {
        "agreement": 1 - (len(wrong[True]) + len(wrong[False])) / len(cases),
        "false_accepts": wrong[True],
        "false_rejects": wrong[False],
        "seconds": seconds,
        "slowest_seconds": max(seconds),
        "cases_per_second": len(cases) / sum(seconds),
    }


def _ours(case: dict[str, Any]) -> bool:
    prediction = extract_answer(case["prediction"]) if case["kind"] == "solution" else case["prediction"]
    return prediction is not None and is_equivalent(prediction, case["gold"])


def _load_math_verify() -> Callable[[dict[str, Any]], bool]:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it prints whole texts

    def judge(case: dict[str, Any]) -> bool:
        # Its own recommendation: formulas stand between dollar signs; solutions are searched as they are.
        is_marked = case["kind"] == "solution" or "$" in case["prediction"]
        prediction = case["prediction"] if is_marked else f"${case['prediction']}$"
        return bool(verify(parse(f"${case['gold']}$"), parse(prediction)))

    return judge


if __name__ == "__main__":
    app.run(main)
