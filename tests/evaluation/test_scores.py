"""Figures of verdicts."""

import pyarrow
import pytest

from dsmath.evaluation.scores import summarize_samples


def _samples(benchmark: str, reasons: list[str]) -> pyarrow.Table:
    rows = [{"benchmark": benchmark, "correct": reason == "right", "reason": reason} for reason in reasons]
    return pyarrow.Table.from_pylist(rows).append_column("vote", pyarrow.nulls(len(rows), pyarrow.int32()))


@pytest.mark.parametrize("reason", ["no_answer", "error", "timeout"])
def test_programs_have_no_votes_even_where_none_of_them_runs(reason):
    assert "maj_at" not in summarize_samples(_samples("humaneval", [reason] * 4), 2)
    assert summarize_samples(_samples("gsm8k", [reason] * 4), 2)["maj_at"] == {"1": 0.0, "2": 0.0}


def test_a_benchmark_with_votes_keeps_its_majority_where_a_vote_is_missing():
    samples = _samples("gsm8k", ["right", "wrong", "wrong", "wrong"])
    samples = samples.set_column(3, "vote", pyarrow.array([0, None, 1, 2], pyarrow.int32()))
    assert summarize_samples(samples, 2)["maj_at"] == {"1": 0.25, "2": 0.5}
