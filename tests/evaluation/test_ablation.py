"""A sweep's table is the mean over seeds with its standard error; the figure shows what the rows say."""

import csv
import io
import math
import xml.etree.ElementTree

import pytest

from dsmath.evaluation import ablation
from dsmath.runs.errors import InputError
from dsmath.runs.sweep import Point
from dsmath.runs.workdir import write_json


def _row(label: str, seed: int, step: int | None, **result) -> dict:
    return {"label": label, "seed": seed, "step": step, "workdir": f"stages/{label}", "result": result}


ROWS = [
    _row(label, seed, step, accuracy=base + 0.01 * step + 0.02 * seed, loss=2.0 - base)
    for label, base in (("RFT", 0.3), ("GRPO+OS", 0.5))
    for seed in (0, 1, 2)
    for step in (0, 5, 10)
]
SAMPLED = [
    _row(label, seed, None, **{name: {"1": base, "2": base + 0.1, "4": base + 0.2} for name in ("maj_at", "pass_at")})
    for label, base in (("SFT", 0.3), ("RL", 0.5))
    for seed in (0, 1)
]
FIGURES = {
    "by_step": (ROWS, ("accuracy", "loss"), (5,)),
    "by_run": (ROWS, ("accuracy", "loss"), ()),
    "at_k": (SAMPLED, ("maj_at", "pass_at"), ()),
}


def test_the_standard_error_is_that_of_the_mean():
    mean, error = ablation.mean_and_error([1.0, 2.0, 6.0])
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx(math.sqrt((4 + 1 + 9) / 2) / math.sqrt(3))  # s with n - 1, over the root of n
    assert math.isnan(ablation.mean_and_error([1.0])[1])


def test_the_table_tells_each_run_at_its_last_step():
    table = ablation.make_table(ROWS, ("accuracy", "loss"))
    assert table.splitlines() == [
        "| run | step | seeds | greedy accuracy | loss |",
        "| --- | --- | --- | --- | --- |",
        "| RFT | 10 | 3 | 42.0 ± 1.2 % | 1.7 ± 0 |",
        "| GRPO+OS | 10 | 3 | 62.0 ± 1.2 % | 1.5 ± 0 |",
    ]


def test_the_table_of_one_seed_has_no_error_and_names_k():
    table = ablation.make_table(SAMPLED[::2], ("pass_at.4",))
    assert table.splitlines()[0] == "| run | seeds | pass@4 |"
    assert table.splitlines()[2:] == ["| SFT | 1 | 50.0 % |", "| RL | 1 | 70.0 % |"]


def test_every_run_and_seed_is_a_line_of_the_csv():
    lines = list(csv.DictReader(io.StringIO(ablation.make_csv(ROWS, ("accuracy",)))))
    assert len(lines) == len(ROWS)
    assert [(line["label"], line["seed"], line["step"]) for line in lines[:2]] == [("RFT", "0", "0"), ("RFT", "0", "5")]
    assert [float(line["accuracy"]) for line in lines] == [row["result"]["accuracy"] for row in ROWS]


def test_only_finished_stages_have_rows(tmp_path):
    write_json(tmp_path / "done" / "result.json", {"accuracy": 0.5})
    points = [Point("a", 0, None, tmp_path / "done"), Point("a", 1, None, tmp_path / "missing")]
    rows = ablation.collect(points)
    assert [(row["seed"], row["result"]) for row in rows] == [(0, {"accuracy": 0.5})]


def test_an_evaluation_in_two_modes_has_a_row_for_each(tmp_path):
    record = {"benchmark": "embedded", "title": "Embedded problems", "mode": "chat", "accuracy": 0.1}
    other = record | {"mode": "chat_tool", "accuracy": 0.9}
    write_json(tmp_path / "two" / "result.json", {"results": [record, other], "grader": "strict"})
    write_json(tmp_path / "one" / "result.json", {"results": [record], "accuracy": 0.1})
    rows = ablation.collect([Point("SFT", 0, None, tmp_path / "two"), Point("RL", 0, None, tmp_path / "one")])
    assert [row["label"] for row in rows] == ["SFT, chat", "SFT, chat_tool", "RL"]
    assert ablation.make_table(rows, ("accuracy",)).splitlines()[2:] == [
        "| SFT, chat | 1 | 10.0 % |",
        "| SFT, chat_tool | 1 | 90.0 % |",
        "| RL | 1 | 10.0 % |",
    ]


def test_an_evaluation_whose_benchmarks_the_metrics_name_has_one_row(tmp_path):
    records = [
        {"benchmark": name, "title": name.upper(), "mode": "few_shot", "accuracy": share}
        for name, share in (("gsm8k", 0.5), ("math", 0.25))
    ]
    write_json(tmp_path / "base" / "result.json", {"results": records})
    metrics = ("gsm8k-few_shot.accuracy", "math-few_shot.accuracy")
    rows = ablation.collect([Point("Code", 0, None, tmp_path / "base")], metrics)
    assert ablation.make_table(rows, metrics).splitlines() == [
        "| run | seeds | GSM8K | MATH |", "| --- | --- | --- | --- |", "| Code | 1 | 50.0 % | 25.0 % |",
    ]  # fmt: skip


def test_shares_of_a_run_are_marked_apart_and_never_below_zero():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    ablation.plot_by_run(axes, [_row(label, 0, None, accuracy=share) for label, share in (("a", 0.0), ("b", 0.025))],
                         "accuracy")  # fmt: skip
    axes.figure.draw_without_rendering()
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert len(set(ticks)) == len(ticks) and axes.get_xlim()[0] >= -0.02


def test_an_unknown_metric_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"config\.metrics: 'acuracy' is no number of stages/RFT.*accuracy, loss"):
        ablation.make_table(ROWS, ("acuracy",))


def test_an_unknown_figure_is_named():
    with pytest.raises(InputError, match=r"config\.figure\.kind: 'pie' is none of by_step, at_k, by_run"):
        ablation.check_figure({"kind": "pie", "metrics": ("accuracy",)})


def test_a_figure_that_could_not_be_drawn_is_refused_before_a_run():
    by_step = {"kind": "by_step", "metrics": ("accuracy",)}
    with pytest.raises(InputError, match=r"config\.figure\.kind: by_step draws config\.evaluation\.steps, which is"):
        ablation.check_figure(by_step)
    ablation.check_figure(by_step, steps=(0, 10))
    with pytest.raises(
        InputError, match=r"config\.figure\.metrics: 'accuracy' has no figures by k; at_k takes pass_at,"
    ):
        ablation.check_figure({"kind": "at_k", "metrics": ("accuracy",)})
    ablation.check_figure({"kind": "at_k", "metrics": ("pass_at", "maj_at")})


@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_names_its_runs_and_axes(tmp_path, kind):
    rows, metrics, marks = FIGURES[kind]
    ablation.write_figure(
        rows, {"kind": kind, "metrics": metrics, "title": "Title & more", "marks": marks}, tmp_path / "figure"
    )
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "figure.svg").read_text()
    xml.etree.ElementTree.fromstring(svg)
    assert "Title &amp; more" in svg and "standard error" in svg
    for label in {row["label"] for row in rows}:
        assert f">{label}" in svg


def test_the_lines_of_a_figure_are_the_means_with_their_errors():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    ablation.plot_by_step(axes, ROWS, "accuracy")
    line, _, (bars,) = axes.containers[1]
    assert line.get_ydata() == pytest.approx([0.52, 0.57, 0.62])
    low, high = bars.get_segments()[2][:, 1]
    assert (high - low) / 2 == pytest.approx(0.02 / math.sqrt(3))


def test_a_figure_by_k_without_such_figures_is_refused(tmp_path):
    figure = {"kind": "at_k", "metrics": ("best_of",), "title": "", "marks": ()}
    with pytest.raises(InputError, match=r"config\.figure\.metrics: 'best_of' has no figures by k"):
        ablation.write_figure(SAMPLED, figure, tmp_path / "figure")


def test_a_benchmark_with_its_mode_is_told_as_in_the_papers_tables():
    records = [
        {"benchmark": "gsm8k", "mode": "few_shot", "accuracy": 0.25},
        {"benchmark": "gsm8k", "mode": "few_shot_pot", "accuracy": 0.5, "pass_at": {"4": 0.75}},
    ]
    rows = [_row("one", 0, None, results=records, loss={"code": 1.5}, by_language={"zh": {"accuracy": 0.1}})]
    names = ("gsm8k-few_shot.accuracy", "gsm8k-few_shot_pot.accuracy", "gsm8k-few_shot_pot.pass_at.4", "loss.code")
    table = ablation.make_table(rows, (*names, "by_language.zh.accuracy")).splitlines()
    assert table[0] == "| run | seeds | GSM8K | GSM8K+Python | GSM8K+Python, pass@4 | loss, code | Chinese |"
    assert table[2] == "| one | 1 | 25.0 % | 50.0 % | 75.0 % | 1.5 | 10.0 % |"
    with pytest.raises(InputError, match=r"which has .*gsm8k-few_shot\.accuracy"):
        ablation.metric(rows[0], "math-few_shot.accuracy")
