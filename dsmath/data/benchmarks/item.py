"""One problem of a benchmark, whatever its upstream format."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Item:
    """A problem as it is posed and graded.

    Attributes:
      benchmark: its name, e.g. "gsm8k".
      id: names the problem within its benchmark; the same in every run and in every subset of the file.
      question: as it is posed, choices apart. Of HumanEval the code to complete, of miniF2F the informal statement.
      answer: the gold answer: a final answer, the letters of a choice ("B", "ACD"), BBH's target; empty for code and
        proofs, which are run.
      solution: a right solution as upstream gives it: worked text, a program, an informal proof; may be empty.
      choices: texts of the options A, B, C, … without their letters.
      language: "en" or "zh".
      subject, level: groups for the tables; empty where upstream has none.
      extra: what only one kind needs: `tests`, `setup` and `entry_point` of code; `formal_statement` and `header` of
        miniF2F.
    """

    benchmark: str
    id: str
    question: str
    answer: str
    solution: str = ""
    choices: tuple[str, ...] = ()
    language: str = "en"
    subject: str = ""
    level: str = ""
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)
