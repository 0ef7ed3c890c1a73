"""Packing: targets within examples, a lane a row whoever makes it, shares of the tokens, a position to go on from."""

import itertools
import json
import re

import numpy as np
import pytest

from dsmath.data.packing import Batches, document_batches, solution_batches, warn_of_epochs
from dsmath.runs.errors import InputError

LENGTH, ROWS = 32, 4


def _documents(first: int, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Documents of 3 to 20 tokens; every token tells its document: 100 * document + place."""
    lengths = np.random.default_rng(seed).integers(3, 21, count)
    return [{"tokens": (100 * (first + i) + np.arange(n)).astype(np.int32)} for i, n in enumerate(lengths)]


def _solutions(count: int) -> list[dict[str, np.ndarray]]:
    """Like `_documents`; a prompt of 2 tokens, then the solution."""
    return [
        example | {"loss_mask": (np.arange(len(example["tokens"])) >= 2).astype(np.int32)}
        for example in _documents(1, count)
    ]


def _mixture(seed: int = 0, weights: dict[str, float] | None = None, **options):
    sources = {"math": _documents(1, 40), "code": _documents(1001, 40, seed=1)}
    weights = {"math": 0.75, "code": 0.25} if weights is None else weights
    return document_batches(sources, weights, **{"length": LENGTH, "batch_size": ROWS} | options, seed=seed)


def _packed(seed: int = 0, **options):
    return solution_batches(_solutions(50), length=LENGTH, batch_size=ROWS, seed=seed, packing_bins=4, **options)


def _join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The global batch of what several processes made."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _assert_same(batch: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert batch.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(batch[name], wanted[name])


STREAMS = pytest.mark.parametrize("stream", [_mixture, _packed])


@STREAMS
def test_batches_have_the_models_shapes(stream):
    batch = next(stream())
    assert batch.keys() == {"tokens", "targets", "positions", "segment_ids", "loss_mask"}
    for name, array in batch.items():
        assert array.shape == (ROWS, LENGTH), name
        assert array.dtype == (np.float32 if name == "loss_mask" else np.int32), name


@STREAMS
def test_no_target_crosses_examples(stream):
    batches = stream()
    for _ in range(20):
        batch = next(batches)
        learned = batch["loss_mask"] > 0
        assert learned.any(axis=1).all()
        # The next token of the same example: one more than the token itself.
        np.testing.assert_array_equal(batch["targets"][learned], batch["tokens"][learned] + 1)


@STREAMS
def test_segments_are_the_examples(stream):
    batches = stream()
    for _ in range(5):
        batch = next(batches)
        for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True):
            used = segments > 0
            examples, numbers = tokens[used] // 100, segments[used]
            np.testing.assert_array_equal(examples[1:] != examples[:-1], numbers[1:] != numbers[:-1])
            assert (tokens[~used] == 0).all()


def test_positions_count_from_the_start_of_each_example():
    batches = _packed()
    for _ in range(5):
        batch = next(batches)
        used = batch["segment_ids"] > 0
        np.testing.assert_array_equal(batch["positions"][used], batch["tokens"][used] % 100)


def test_positions_of_documents_rise_by_one_within_a_segment_and_start_at_zero():
    batch = next(_mixture())
    for positions, segments in zip(batch["positions"], batch["segment_ids"], strict=True):
        same = segments[1:] == segments[:-1]
        np.testing.assert_array_equal(positions[1:][same], positions[:-1][same] + 1)
        assert positions[0] == 0
        assert (positions[1:][~same] == 0).all()


def test_documents_fill_their_rows_and_every_place_is_learned():
    batches = _mixture()
    for _ in range(5):
        batch = next(batches)
        assert (batch["segment_ids"] > 0).all()
        assert (batch["loss_mask"] == 1).all()


def test_a_document_goes_on_in_the_next_row_of_its_lane():
    documents = [{"tokens": np.arange(1000 * i, 1000 * i + 100, dtype=np.int32)} for i in range(1, 9)]
    batches = document_batches({"one": documents}, {"one": 1.0}, length=LENGTH, batch_size=2, seed=0)
    rows = [next(batches) for _ in range(60)]
    for lane in range(2):
        tokens = np.concatenate([row["tokens"][lane] for row in rows])
        targets = np.concatenate([row["targets"][lane] for row in rows])
        starts = np.flatnonzero(tokens % 1000 == 0)
        for start, end in itertools.pairwise(starts):
            np.testing.assert_array_equal(tokens[start:end] % 1000, np.arange(99))
            np.testing.assert_array_equal(targets[start:end], tokens[start:end] + 1)


def test_a_long_document_fills_a_row_and_not_the_batch():
    documents = _documents(1, 400)
    documents[40] = {"tokens": np.full(400, 100_000, np.int32)}
    batches = document_batches(
        {"one": documents}, {"one": 1.0}, length=LENGTH, batch_size=ROWS, seed=0, on_exhausted="stop"
    )
    long = np.stack([(next(batches)["tokens"] == 100_000).any(axis=1) for _ in range(30)])
    assert long.sum() > 10
    assert long.sum(axis=1).max() == 1


@STREAMS
@pytest.mark.parametrize("shares", [[range(4)], [range(2), range(2, 4)], [range(row, row + 1) for row in range(4)]])
def test_the_batch_is_the_same_however_its_rows_are_shared_out(stream, shares):
    whole, parts = stream(), [stream(rows=rows) for rows in shares]
    for _ in range(15):
        _assert_same(_join([next(part) for part in parts]), next(whole))
    assert {name: sum(part.counts()[name] for part in parts) for name in whole.counts()} == whole.counts()
    assert Batches.merge_states(part.get_state() for part in parts) == whole.get_state()


@STREAMS
def test_a_position_goes_on_with_the_rows_shared_out_in_another_way(stream):
    unbroken = stream()
    expected = [next(unbroken) for _ in range(12)]
    before = [stream(rows=range(3)), stream(rows=range(3, 4))]
    for _ in range(7):
        for part in before:
            next(part)
    position = json.loads(json.dumps(Batches.merge_states(part.get_state() for part in before)))
    after = [stream(rows=range(2)), stream(rows=range(2, 4))]
    for part in after:
        part.set_state(position)
    for wanted in expected[7:]:
        _assert_same(_join([next(part) for part in after]), wanted)
    assert sum(sum(part.counts().values()) for part in after) == sum(unbroken.counts().values())


def test_positions_of_different_steps_are_not_joined():
    ahead, behind = _mixture(rows=range(3)), _mixture(rows=range(2, 4))
    next(ahead)
    with pytest.raises(ValueError, match="row 2 stands at"):
        Batches.merge_states([ahead.get_state(), behind.get_state()])
    with pytest.raises(ValueError, match="different corpora or batch sizes"):
        Batches.merge_states([behind.get_state(), _mixture(batch_size=8, rows=range(4, 8)).get_state()])


def test_a_position_of_another_batch_size_or_other_corpora_is_refused():
    position = _mixture().get_state()
    with pytest.raises(InputError, match=r"config\.batch_size: .*batch_size 4, not 8; resume with"):
        _mixture(batch_size=8).set_state(position)
    with pytest.raises(InputError, match=r"config\.corpora: .*\['code', 'math'\]"):
        _packed().set_state(position)


@STREAMS
def test_a_stream_can_be_set_back_after_it_has_read_ahead(stream):
    batches = stream()
    expected = [next(batches) for _ in range(3)]
    batches.set_state(stream().get_state())
    for wanted in expected:
        _assert_same(next(batches), wanted)


def test_only_solutions_are_learned_and_each_whole():
    solutions = {int(example["tokens"][0]) // 100: len(example["tokens"]) for example in _solutions(50)}
    batches = _packed()
    seen = {}
    for _ in range(12):
        batch = next(batches)
        learned = batch["loss_mask"] > 0
        # A target is learned where it lies after the two tokens of the prompt.
        assert (batch["targets"][learned] % 100 >= 2).all()
        for example, count in zip(*np.unique(batch["targets"][learned] // 100, return_counts=True), strict=True):
            seen.setdefault(int(example), []).append(int(count))
    assert len(seen) > 40
    for example, counts in seen.items():
        assert sum(counts) % (solutions[example] - 2) == 0


@STREAMS
def test_a_stream_goes_on_from_a_position_that_went_through_json(stream):
    unbroken = stream()
    expected = [next(unbroken) for _ in range(12)]
    for stop in (1, 7):
        first = stream()
        for _ in range(stop):
            next(first)
        position = json.loads(json.dumps(first.get_state()))
        resumed = stream()
        resumed.set_state(position)
        for wanted in expected[stop:]:
            _assert_same(next(resumed), wanted)
        assert resumed.get_state() == unbroken.get_state()
        assert resumed.counts() == unbroken.counts()


@STREAMS
def test_the_seed_decides_the_order(stream):
    one, same, other = next(stream(0)), next(stream(0)), next(stream(5))
    np.testing.assert_array_equal(one["tokens"], same["tokens"])
    assert (one["tokens"] != other["tokens"]).any()


def _uneven() -> dict[str, list[dict[str, np.ndarray]]]:
    """Corpora whose documents' lengths differ much; their tokens are 1, 2 and 3."""
    rng = np.random.default_rng(0)
    scales = {"web": (1, 30), "papers": (2, 600), "code": (3, 60)}
    return {
        name: [{"tokens": np.full(2 + int(n), token, np.int32)} for n in rng.exponential(scale, 200)]
        for name, (token, scale) in scales.items()
    }


def test_corpora_give_their_shares_of_the_tokens_however_long_their_documents_are():
    weights = {"web": 7.0, "papers": 1.0, "code": 2.0}  # they need not sum to 1
    batches = document_batches(_uneven(), weights, length=256, batch_size=8, seed=0)
    tokens = np.stack([next(batches)["tokens"] for _ in range(500)])
    for part in (tokens, tokens[250:], tokens[:, 3]):  # all, a stretch, a lane
        shares = np.bincount(part.ravel())[1:] / part.size
        np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
    counts = batches.counts()
    assert [counts[name] for name in weights] == np.bincount(tokens.ravel())[1:].tolist()


def test_lanes_do_not_give_the_same_corpus_at_the_same_time():
    weights = {"web": 0.7, "papers": 0.1, "code": 0.2}
    batches = document_batches(_uneven(), weights, length=64, batch_size=500, seed=0)
    for _ in range(10):
        shares = np.bincount(next(batches)["tokens"].ravel())[1:] / (500 * 64)
        np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.15)


def test_counts_leave_padding_out():
    batches = _packed()
    held = sum(int((next(batches)["segment_ids"] > 0).sum()) for _ in range(9))
    assert batches.counts() == {"solutions": held}


def test_a_corpus_that_has_been_read_whole_is_read_again_and_says_so_once_an_epoch(caplog):
    sources = {"math": _documents(1, 40), "code": _documents(1001, 4000)}
    size = sum(len(document["tokens"]) - 1 for document in sources["math"])
    batches = document_batches(sources, {"math": 0.5, "code": 0.5}, length=LENGTH, batch_size=ROWS, seed=0)
    while batches.counts()["math"] < 3.5 * size:
        next(batches)
    found = re.findall(r"(\w+): epoch (\d) begins after (\d+) tokens", caplog.text)
    assert [(name, epoch) for name, epoch, _ in found] == [("math", "2"), ("math", "3"), ("math", "4")]
    for _, epoch, tokens in found:
        assert int(tokens) == pytest.approx((int(epoch) - 1) * size, rel=0.15)


def test_a_corpus_that_has_been_read_whole_ends_the_run_where_it_must_not_be_repeated():
    batches = _mixture(on_exhausted="stop")
    seen = []
    with pytest.raises(InputError, match=r"config\.corpora\.math: .*whole .*40 documents.*; lower config\.num_steps"):
        for _ in range(1000):
            seen.append(next(batches))
    tokens = np.concatenate([batch["tokens"].ravel() for batch in seen])
    assert len(np.unique(tokens)) == len(tokens)  # nothing was read twice
    assert len(seen) > 2
    repeated = _mixture()
    for batch in seen:
        _assert_same(batch, next(repeated))
    repeated.set_state(batches.get_state())  # goes on where the other stopped
    next(repeated)


def test_a_run_that_takes_more_than_a_corpus_has_is_warned_of(caplog):
    sources = {"math": _documents(1, 40), "code": _documents(1001, 4000)}
    size = sum(len(document["tokens"]) - 1 for document in sources["math"])
    warn_of_epochs(sources, {"math": 1.0, "code": 1.0}, 4 * size)
    assert f"config.weights.math: the run takes {2 * size} tokens of a corpus of about {size}: 2.0" in caplog.text
    assert "weights.code" not in caplog.text


def test_an_epoch_holds_every_example_once_and_the_next_is_in_another_order():
    batches = _packed()
    order = []
    for _ in range(40):
        batch = next(batches)
        order += [int(token) // 100 for token in batch["tokens"][batch["segment_ids"] > 0] if token % 100 == 0]
    counts = np.bincount(order, minlength=51)[1:]
    assert counts.max() - counts.min() <= 2  # a lane may be ahead of another
    assert counts.min() >= 3
    assert order[:50] != order[50:100]


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"math": 1.0}, r"config\.weights: has \['math'\], but config\.corpora has \['code', 'math'\]"),
        ({"math": 1.0, "code": 0.0}, r"config\.weights: .*must be positive"),
        ({"math": 1.0, "code": -1.0}, r"config\.weights: .*must be positive"),
    ],
)
def test_wrong_weights_are_named(weights, named):
    with pytest.raises(InputError, match=named):
        _mixture(weights=weights)


def test_other_bad_input_is_named():
    with pytest.raises(InputError, match=r"config\.on_exhausted: 'wrap' is none of repeat, stop"):
        _mixture(on_exhausted="wrap")
    with pytest.raises(InputError, match=r"config\.corpora\.empty: its documents hold no tokens"):
        document_batches(
            {"empty": [{"tokens": np.zeros(1, np.int32)}]}, {"empty": 1.0}, length=LENGTH, batch_size=ROWS, seed=0
        )
    long = [{name: np.ones(LENGTH + 2, np.int32) for name in ("tokens", "loss_mask")}]
    with pytest.raises(ValueError, match="33 targets does not fit a row of 32"):
        next(solution_batches(long, length=LENGTH, batch_size=1, seed=0, packing_bins=4))
