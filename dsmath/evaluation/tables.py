"""The paper's tables with our figures beside its own, and all of our figures, as JSON, CSV and LaTeX."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.evaluation import published
from dsmath.evaluation.results import MODES, Result

_TITLES = {  # of the paper's tables, by where they stand and by mode
    ("§2.3, Table 2", "few_shot"): "Base models: chain of thought",
    ("§2.3, Table 3", "few_shot_pot"): "Base models: programs",
    ("§2.3, Table 3", "few_shot"): "Base models: formal proofs",
    ("§2.3, Table 4", "few_shot"): "Base models: language, reasoning and code",
    ("§3, Table 5", "chat"): "Tuned models: chain of thought",
    ("§3, Table 5", "chat_tool"): "Tuned models: tool-integrated reasoning",
}
_FLAT = (
    "benchmark", "title", "mode", "split", "shots", "questions", "upstream", "coverage", "grader", "accuracy", "low",
    "high", "paper_accuracy", "published", "difference", "no_answer", "truncated", "timeouts", "errors", "mean_tokens",
    "samples",
)  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    '"': r"\textquotedbl{}", "§": r"\S{}", "–": "--", "−": "$-$",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One table of the paper with our figures.

    Attributes:
      title, source: what it shows, where it stands in the paper.
      columns: the benchmarks' titles.
      quoted: (model, the published share for each column or None).
      ours: our result for each column, None where we have none.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    quoted: tuple[tuple[str, tuple[float | None, ...]], ...]
    ours: tuple[Result | None, ...]

    @property
    def graders_differ(self) -> bool:
        """Whether a figure of ours is another one by the paper's conventions."""
        return any(result is not None and result.graders_differ for result in self.ours)


def make_paper_tables(results: Iterable[Result]) -> list[PaperTable]:
    """The tables of the paper for which there is a result of ours, in the paper's order."""
    ours = {(result.benchmark, result.mode, result.split): result for result in results}
    tables = []
    for (source, mode), title in _TITLES.items():
        rows = [
            row for row in published.ROWS if (row.source, row.mode, row.metric) == (source, mode, published.ACCURACY)
        ]
        keys = sorted({(row.benchmark, row.mode, row.split) for row in rows}, key=_place)
        if not any(key in ours for key in keys):
            continue
        quoted = tuple(
            (model, tuple(published.find(model, name, mode, split=split) for name, mode, split in keys))
            for model in dict.fromkeys(row.model for row in rows)
        )
        columns = tuple(_name_column(name, split) for name, _, split in keys)
        tables.append(PaperTable(title, source, columns, quoted, tuple(ours.get(key) for key in keys)))
    return tables


def _place(key: tuple[str, str, str]) -> tuple[int, str]:
    """A column's place: that of its benchmark, the splits in order."""
    return list(BENCHMARKS).index(key[0]), key[2]


def _name_column(benchmark: str, split: str) -> str:
    title = BENCHMARKS[benchmark].title
    return title if split == "test" else f"{title}, {split}"


def to_json(results: Sequence[Result], about: Mapping[str, Any]) -> str:
    """Our results, and the published ones, told apart; `about` says how ours were made."""
    tables = {
        "about": dict(about),
        "results": [result.model_dump(mode="json") for result in results],
        "published": {
            "quoted_from": "DeepSeekMath, arXiv 2402.03300v3",
            "rows": [dataclasses.asdict(row) for row in published.ROWS],
        },
    }
    return json.dumps(tables, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def to_csv(results: Sequence[Result]) -> str:
    """Our results, one line for each benchmark and mode; shares are numbers from 0 to 1, what is not known is empty."""
    ks = {name: sorted({k for result in results for k in getattr(result, name)}) for name in ("pass_at", "maj_at")}
    at_k = [(f"{name}_{k}", name, k) for name, found in ks.items() for k in found]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FLAT, *(column for column, _, _ in at_k)])
    for result in results:
        flat = [getattr(result, field) for field in _FLAT]
        writer.writerow([*flat, *(getattr(result, name).get(k) for _, name, k in at_k)])
    return text.getvalue()


def to_latex(tables: Sequence[PaperTable], results: Sequence[Result], name: str) -> str:
    """The paper's tables with our figures, then all of our figures, for `booktabs`.

    Args:
      tables: of `make_paper_tables`.
      results: all of ours.
      name: of our model.
    """
    parts = ["% Needs \\usepackage{booktabs}. Figures are percentages of the problems; quoted rows are the paper's."]
    parts += [_paper_table(table, name) for table in tables]
    return "\n\n".join([*parts, _all_results(results, name)]) + "\n"


def _paper_table(table: PaperTable, name: str) -> str:
    width = len(table.columns) + 1
    ours = [
        (name, [_percent(result.accuracy if result else None) for result in table.ours]),
        ("\\quad 95\\,\\% interval", [f"{_percent(r.low)}--{_percent(r.high)}" if r else "" for r in table.ours]),
        ("\\quad problems", [escape_latex(result.coverage) if result else "" for result in table.ours]),
        ("\\quad difference", [_signed(result.difference) if result else "" for result in table.ours]),
    ]
    ours[0] = (escape_latex(name), ours[0][1])
    if table.graders_differ:
        cells = [_percent(result.paper_accuracy) if result else "" for result in table.ours]
        ours.append(("\\quad by the paper's grader", cells))
    rows = [
        ["Model", *map(escape_latex, table.columns)],
        "\\midrule",
        f"\\multicolumn{{{width}}}{{l}}{{\\emph{{Quoted from DeepSeekMath, {escape_latex(table.source)}}}}} \\\\",
        *([escape_latex(model), *map(_percent, shares)] for model, shares in table.quoted),
        "\\midrule",
        f"\\multicolumn{{{width}}}{{l}}{{\\emph{{Ours}}}} \\\\",
        *([label, *cells] for label, cells in ours),
    ]
    return _environment(f"{table.title} ({table.source}).", "l" + "r" * (width - 1), rows)


def _all_results(results: Sequence[Result], name: str) -> str:
    rows = [
        ["Benchmark", "Mode", "Problems", "Accuracy", "95\\,\\% interval", "Published", "Difference", "No answer",
         "Truncated", "Time-outs", "Errors"],
        "\\midrule",
        *(
            [
                *map(escape_latex, (result.title, MODES.get(result.mode, result.mode), result.coverage)),
                _percent(result.accuracy),
                f"{_percent(result.low)}--{_percent(result.high)}",
                _percent(result.published),
                _signed(result.difference),
                *map(_percent, (result.no_answer, result.truncated, result.timeouts, result.errors)),
            ]
            for result in results
        ),
    ]  # fmt: skip
    return _environment(f"All results of {name}; published figures are quoted from DeepSeekMath.", "lllrrrrrrrr", rows)


def _environment(caption: str, columns: str, rows: Iterable[str | Sequence[str]]) -> str:
    lines = [row if isinstance(row, str) else " & ".join(row) + " \\\\" for row in rows]
    opening = ["\\begin{table}", "\\centering", f"\\caption{{{escape_latex(caption)}}}"]
    inner = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", *lines, "\\bottomrule", "\\end{tabular}"]
    return "\n".join([*opening, *inner, "\\end{table}"])


def escape_latex(text: str) -> str:
    """A text as LaTeX prints it; a character that the usual fonts lack becomes a question mark."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"[^\x20-\x7e]", "?", escaped)


def _percent(share: float | None) -> str:
    return "--" if share is None else f"{100 * share:.1f}"


def _signed(share: float | None) -> str:
    return "--" if share is None else f"${100 * share:+.1f}$"
