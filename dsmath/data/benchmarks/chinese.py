"""Chinese problems with a final answer: CMATH and Gaokao-MathCloze.

Source: Wei et al. 2023 (CMATH); Zhong et al. 2023 (AGIEval); DeepSeek-Math's files of them.
"""

import pathlib
from collections.abc import Sequence

from dsmath.data.benchmarks import records
from dsmath.data.benchmarks.choices import gaokao_paper
from dsmath.data.benchmarks.item import Item


def read_cmath(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """CMATH: the level is the school grade, 1 to 6."""
    return [_read_cmath(record) for path in paths for record in records.read_json_lines(path)]


def read_cloze(paths: Sequence[pathlib.Path], split: str) -> list[Item]:
    """Gaokao-MathCloze: the answers of several blanks are joined by ";", as upstream has them."""
    return [_read_cloze(record) for path in paths for record in records.read_json_lines(path)]


def _read_cmath(record: records.Record) -> Item:
    question = record.filled("question")
    return Item(
        benchmark="cmath",
        id=records.name_by_text(question),
        question=question,
        answer=record.filled("golden"),
        language="zh",
        level=record.id("grade"),
    )


def _read_cloze(record: records.Record) -> Item:
    question = f"{record.fields.get('passage') or ''}\n{record.filled('question')}".strip()
    return Item(
        benchmark="gaokao_mathcloze",
        id=records.name_by_text(question),
        question=question,
        answer=record.filled("answer"),
        language="zh",
        subject=gaokao_paper(record),
    )
