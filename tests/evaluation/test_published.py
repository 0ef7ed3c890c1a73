import re

import pytest

from dsmath.evaluation import published
from dsmath.evaluation.published import BASE, INSTRUCT, RL


@pytest.mark.parametrize(
    ("model", "mode", "benchmarks", "percents"),
    [
        (BASE, "few_shot", "gsm8k math ocw sat mmlu_stem cmath gaokao_mathcloze gaokao_mathqa",
         (64.2, 36.2, 15.4, 84.4, 56.5, 71.7, 20.3, 35.3)),
        (BASE, "few_shot_pot", "gsm8k math", (66.9, 31.4)),
        (BASE, "few_shot", "minif2f mmlu bbh humaneval mbpp", (24.6, 54.9, 59.5, 40.9, 52.6)),
        (INSTRUCT, "chat", "gsm8k math mgsm_zh cmath", (82.9, 46.8, 73.2, 84.6)),
        (INSTRUCT, "chat_tool", "gsm8k math mgsm_zh cmath", (83.7, 57.4, 72.0, 84.3)),
        (RL, "chat", "gsm8k math mgsm_zh cmath", (88.2, 51.7, 79.6, 88.8)),
        (RL, "chat_tool", "gsm8k math mgsm_zh cmath", (86.7, 58.8, 78.4, 87.6)),
    ],
)  # fmt: skip
def test_quotes_the_papers_headline_results(model, mode, benchmarks, percents):
    found = [published.find(model, benchmark, mode) for benchmark in benchmarks.split()]

    assert found == [pytest.approx(percent / 100, abs=1e-9) for percent in percents]


def test_quotes_other_splits_and_metrics_apart():
    assert published.find(BASE, "minif2f", "few_shot", split="validation") == 0.258
    assert published.find(RL, "math", "chat", metric="maj@64") == 0.609


def test_knows_no_figure_that_the_paper_does_not_have():
    assert published.find(BASE, "mgsm_zh", "few_shot") is None
    assert published.find(RL, "math", "few_shot") is None
    assert published.find("Minerva 7B", "sat", "few_shot") is None  # the summary's error: it is MMLU-STEM's figure
    assert published.find("Minerva 7B", "mmlu_stem", "few_shot") == 0.356


def test_has_no_figure_twice_and_says_where_each_one_stands():
    keys = [(row.model, row.benchmark, row.mode, row.split, row.metric) for row in published.ROWS]

    assert len(set(keys)) == len(keys)
    assert all(0 < row.value < 1 and re.fullmatch(r"§[\d.]+, Table \d|abstract", row.source) for row in published.ROWS)


def test_every_figure_of_the_facts_is_quoted(shared_data):
    facts = (shared_data.parent / "paper" / "facts.md").read_text(encoding="utf-8")
    headline = facts[facts.index("Headline results (7B):") : facts.index("Findings a reproduction")]
    figures = [float(figure) / 100 for figure in re.findall(r"\d+\.\d", headline)]
    quoted = [row.value for row in published.ROWS if row.model in (BASE, INSTRUCT, RL)]

    assert sorted(quoted) == pytest.approx(sorted(figures))
