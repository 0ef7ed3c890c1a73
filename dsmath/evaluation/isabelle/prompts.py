"""The few-shot prompt of miniF2F: informal statement and proof, formal statement; the model writes the formal proof.

Source: DeepSeekMath §2.3.1; Draft, Sketch, and Prove (arXiv:2210.12283); the examples are dsmath's own.
"""

import functools
import pathlib
import tomllib

from dsmath.data.benchmarks.item import Item

STOP = ("\nInformal:",)
_SHOT = "Informal:\n(*### Problem\n\n{statement}\n\n### Solution\n\n{proof}*)\n\nFormal:\n{formal}"
_BETWEEN = "\n\n\n\n"


def make_prompt(item: Item) -> str:
    """The prompt, which ends after the formal statement: 7 examples for number theory, 6 for all other problems."""
    formal = item.extra["formal_statement"].strip()
    kind = "number_theory" if "numbertheory" in formal else "other"
    asked = {"statement": item.question.strip(), "proof": item.solution.strip(), "formal": formal}
    shots = [*read_shots()[kind], asked]
    return _BETWEEN.join(_SHOT.format(**{name: text.strip() for name, text in shot.items()}) for shot in shots)


@functools.cache
def read_shots() -> dict[str, list[dict[str, str]]]:
    """The examples by kind: `statement`, `proof`, and `formal`, which is a statement with its proof."""
    return tomllib.loads(pathlib.Path(__file__).with_name("shots.toml").read_text(encoding="utf-8"))
