"""metrics.jsonl: one record a step, whatever a kill leaves behind."""

import json
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dsmath.runs.errors import InputError
from dsmath.runs.metrics import HISTOGRAMS, METRICS, WANDB, MetricsWriter, read_histograms, read_metrics
from dsmath.runs.workdir import write_json


def test_records_come_back_in_order_and_reach_tensorboard(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 2.0})
        writer.write(2, {"loss": 1.5, "kl": 0.1})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "kl": 0.1}]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.5)]


def test_a_resumed_run_drops_what_the_killed_one_wrote_beyond_its_checkpoint(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": float(step)})
    time.sleep(1)  # an events file is named by its second
    with MetricsWriter(tmp_path, start=3) as writer:
        assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
        writer.write(4, {"loss": 40.0})
    assert [record["loss"] for record in read_metrics(tmp_path)] == [1.0, 2.0, 3.0, 40.0]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_a_run_that_goes_back_drops_what_lies_beyond_and_writes_on(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": float(step)})
        writer.go_back(3)
        writer.write(4, {"loss": 40.0})
    assert [record["loss"] for record in read_metrics(tmp_path)] == [1.0, 2.0, 3.0, 40.0]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_a_new_run_starts_from_an_empty_file(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
    with MetricsWriter(tmp_path):
        assert read_metrics(tmp_path) == []


def test_a_last_line_that_a_kill_cut_is_left_out_and_overwritten(tmp_path):
    path = tmp_path / METRICS
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
    with MetricsWriter(tmp_path, start=1) as writer:
        writer.write(2, {"loss": 1.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_no_file_means_no_records(tmp_path):
    assert read_metrics(tmp_path) == []


def test_histograms_come_back_and_reach_tensorboard(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write_histogram(1, "coefficient", [0, 3, 1, 0], [-2, -1, 0, 1, 2])
        writer.write_histogram(2, "coefficient", [0, 0, 0, 0], [-2, -1, 0, 1, 2])  # no token: nothing to draw
    first = {"step": 1, "name": "coefficient", "counts": [0, 3, 1, 0], "edges": [-2, -1, 0, 1, 2]}
    assert read_histograms(tmp_path) == [first, first | {"step": 2, "counts": [0, 0, 0, 0]}]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    [drawn] = events.Histograms("coefficient")
    value = drawn.histogram_value
    assert (drawn.step, value.num, value.min, value.max, value.sum) == (1, 4, -1, 1, 3 * -0.5 + 0.5)
    pairs = zip(value.bucket_limit, value.bucket, strict=True)
    assert [pair for pair in pairs if pair[1]] == [(0, 3), (1, 1)]


def test_a_resumed_run_drops_the_histograms_beyond_its_checkpoint(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 4):
            writer.write_histogram(step, "coefficient", [step], [0, 1])
    with MetricsWriter(tmp_path, start=2) as writer:
        writer.write_histogram(3, "coefficient", [30], [0, 1])
    assert [record["counts"] for record in read_histograms(tmp_path)] == [[1], [2], [30]]


def test_a_run_without_histograms_has_no_file_of_them(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
    assert not (tmp_path / HISTOGRAMS).exists()


def test_metrics_are_mirrored_to_weights_and_biases_where_that_is_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb, an extra, is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_json(tmp_path / "config.json", {"stage": "sft", "seed": 7})
    with MetricsWriter(tmp_path):
        pass
    assert not (tmp_path / "wandb").exists()
    monkeypatch.setenv(WANDB, "mathematics")
    for start in (0, 2):  # begun, and resumed
        with MetricsWriter(tmp_path, start) as writer:
            writer.write(start + 1, {"a_loss_of_mine": 2.5})
            writer.write(start + 2, {"a_loss_of_mine": 1.5})
        time.sleep(1)  # a folder is named by its second
    runs = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 2 and len({run.name for run in runs}) == 1
    assert all(b"a_loss_of_mine" in run.read_bytes() and b"mathematics" in run.read_bytes() for run in runs)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_mirror_that_cannot_be_had_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it raises
    monkeypatch.setenv(WANDB, "mathematics")
    with pytest.raises(InputError, match="DSMATH_WANDB=mathematics: wandb is not installed"):
        MetricsWriter(tmp_path)
