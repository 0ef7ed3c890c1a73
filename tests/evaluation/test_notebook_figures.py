"""What the notebooks draw shows what it was given."""

import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from dsmath.evaluation import notebook_figures
from dsmath.runs.errors import InputError


@pytest.fixture
def axes():
    return Figure().subplots()


def test_runs_stand_side_by_side_and_those_without_the_metric_are_left_out(axes):
    runs = {
        "a": [{"step": step, "loss": 4.0 - 0.1 * step} for step in range(1, 21)],
        "b": [{"step": step, "loss": 3.0} for step in range(1, 11)],
        "c": [{"step": 1, "reward": 1.0}],
    }
    notebook_figures.plot_runs(axes, runs, "loss")
    strong = [line for line in axes.lines if line.get_label() in runs]
    assert [line.get_label() for line in strong] == ["a", "b"]
    assert strong[0].get_ydata() == pytest.approx([4.0 - 0.1 * step for step in (1.5, *range(2, 20), 19.5)])
    with pytest.raises(InputError, match=r"'lozz' is no metric of these runs; they have loss, reward|have loss"):
        notebook_figures.plot_runs(axes, runs, "lozz")


def test_every_page_is_counted_once_a_round(axes):
    scores = {1: np.array([0.1, 0.2, 0.9, 1.00001]), 2: np.array([0.5, 0.6, 0.7, 0.8])}
    notebook_figures.plot_scores(axes, scores, 0.5)
    assert [patch.get_data().values.sum() for patch in axes.patches] == [4, 4]


def test_hosts_are_ordered_by_their_share(axes):
    hosts = [
        types.SimpleNamespace(host=name, pages=pages, collected=collected)
        for name, pages, collected in (("a", 10, 1), ("b", 20, 18), ("tiny", 1, 1))
    ]
    notebook_figures.plot_hosts(axes, hosts, most=2)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_reasons_fill_the_whole_bar(axes):
    notebook_figures.plot_reasons(axes, {"SFT": ["right", "wrong", "wrong", "no_answer"], "RL": ["right"] * 4})
    widths = {}
    for patch in axes.patches:
        row = round(patch.get_y() + patch.get_height() / 2)
        widths[row] = widths.get(row, 0.0) + patch.get_width()
    assert widths == pytest.approx({0: 1.0, 1: 1.0})


def test_groups_are_named_with_their_size_the_hardest_first(axes):
    def group(accuracy: float) -> dict:
        return {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "questions": 7}

    evaluations = {"SFT": {"easy": group(0.8), "hard": group(0.2)}, "RL": {"easy": group(0.9)}}
    notebook_figures.plot_groups(axes, evaluations)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hard  (7)", "easy  (7)"]
    assert len(axes.containers) == 2


def test_a_histogram_is_of_shares_and_shows_where_there_is_something(axes):
    records = [
        {"step": step, "counts": [0, 1, 3, 0, 0, 0], "edges": [-30, -1, 0, 1, 2, 3, 30]} for step in range(1, 10)
    ]
    notebook_figures.plot_histograms(axes, records, "GRPO")
    assert [patch.get_label() for patch in axes.patches] == ["step 1", "step 4", "step 6", "step 9"]
    assert axes.patches[0].get_data().values.sum() == 1.0
    assert -1.2 < axes.get_xlim()[0] < -1 and 1 < axes.get_xlim()[1] < 1.2
    notebook_figures.plot_histograms(axes, [], "a run without any")
