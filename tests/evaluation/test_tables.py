"""An evaluation's tables for programs and papers."""

import csv
import json
import re

import pytest

from dsmath.evaluation import page, tables
from dsmath.evaluation.results import read_results


@pytest.fixture(scope="module")
def written(evaluation):
    page.write(evaluation)
    return {kind: (evaluation / f"tables.{kind}").read_text(encoding="utf-8") for kind in ("json", "csv", "tex")}


@pytest.fixture(scope="module")
def results(evaluation):
    path = evaluation / "result.json"
    return read_results(json.loads(path.read_text(encoding="utf-8")), path)


def _read_tabulars(source):
    """The cells of each tabular; fails on what LaTeX would not set."""
    source = re.sub(r"^%.*\n", "", source)
    stack = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", source):
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    found = []
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", source, re.S):
        assert re.fullmatch(r"\s*\\toprule\n.*\n\\midrule\n.*\\bottomrule\s*", body, re.S)
        rows = []
        for line in re.sub(r"\\(toprule|midrule|bottomrule)\n", "", body).strip().splitlines():
            assert line.endswith(r" \\")
            cells = line.removesuffix(r" \\").split(" & ")
            spanned = re.match(r"\\multicolumn\{(\d+)\}", line)
            assert (int(spanned[1]) if spanned else len(cells)) == len(columns)
            assert not re.search(r"(?<!\\)[%#_^~]|[^\x20-\x7e]", line)
            assert not re.search(r"(?<!\\)&", " ".join(cells))
            assert len(re.findall(r"(?<!\\)\{", line)) == len(re.findall(r"(?<!\\)\}", line))
            assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
            rows.append(cells)
        found.append(rows)
    return found


def test_latex_tables_hold_the_papers_rows_and_ours(written, results):
    found = _read_tabulars(written["tex"])
    assert len(found) == 3 + 1  # Table 4, both of Table 5, and all of ours
    rows = {row[0]: row[1:] for row in found[1]}
    assert rows["DeepSeekMath-RL 7B"] == ["88.2", "51.7", "79.6", "88.8"]
    assert rows["\\quad problems"] == ["40 of 1,319", "40 of 5,000", "", "40 of 1,098"]
    math = next(result for result in results if (result.benchmark, result.mode) == ("math", "chat"))
    ours = next(cells for name, cells in rows.items() if "rl, step 50" in name)
    assert ours[1] == f"{100 * math.accuracy:.1f}"
    assert rows["\\quad by the paper's grader"][1] == f"{100 * math.paper_accuracy:.1f}" != ours[1]
    assert len(found[-1]) == 1 + len(results)


def test_latex_has_every_special_character_escaped(results):
    hostile = '100% of $x_1$ & \\input{secret} #1 ~ ^ <b> "q" {中文}'
    source = tables.to_latex(tables.make_paper_tables(results), results, hostile)
    assert "100\\% of \\$x\\_1\\$ \\& \\textbackslash{}input\\{secret\\} \\#1" in source
    assert "??" in source
    assert "\\input{" not in source


def test_csv_has_a_line_for_each_result_with_shares(written, results):
    rows = list(csv.DictReader(written["csv"].splitlines()))
    assert [(row["benchmark"], row["mode"]) for row in rows] == [(result.benchmark, result.mode) for result in results]
    assert [float(row["accuracy"]) for row in rows] == [result.accuracy for result in results]
    assert rows[0]["coverage"] == "40 of 1,319"
    assert float(rows[0]["pass_at_8"]) == results[0].pass_at[8]
    assert rows[3]["pass_at_8"] == "" == rows[4]["published"]


def test_json_tells_ours_from_what_is_quoted(written, results):
    found = json.loads(written["json"])
    assert found["about"]["protocol"] == "released"
    assert [record["accuracy"] for record in found["results"]] == [result.accuracy for result in results]
    assert found["published"]["quoted_from"].startswith("DeepSeekMath")
    row = {"model": "DeepSeekMath-RL 7B", "benchmark": "math", "mode": "chat", "value": 0.517, "source": "§3, Table 5"}
    assert any(row.items() <= each.items() for each in found["published"]["rows"])
