"""Packing: whole examples, targets within them, and a position from which the stream goes on."""

import json

import numpy as np
import pytest

from dsmath.data.packing import document_batches, solution_batches
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


def _mixture(seed: int = 0, weights: dict[str, float] | None = None):
    sources = {"math": _documents(1, 40), "code": _documents(1001, 40, seed=1)}
    weights = {"math": 0.75, "code": 0.25} if weights is None else weights
    return document_batches(sources, weights, length=LENGTH, batch_size=ROWS, seed=seed)


def _packed(seed: int = 0):
    return solution_batches(_solutions(50), length=LENGTH, batch_size=ROWS, seed=seed, packing_bins=4)


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


def test_documents_fill_their_rows_and_learn_every_target_but_the_borders():
    batches = _mixture()
    for _ in range(5):
        batch = next(batches)
        assert (batch["segment_ids"] > 0).all()
        same = batch["targets"] // 100 == batch["tokens"] // 100
        np.testing.assert_array_equal(batch["loss_mask"] > 0, same)


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
            batch = next(resumed)
            for name in wanted:
                np.testing.assert_array_equal(batch[name], wanted[name])


@STREAMS
def test_the_seed_decides_the_order(stream):
    one, same, other = next(stream(0)), next(stream(0)), next(stream(5))
    np.testing.assert_array_equal(one["tokens"], same["tokens"])
    assert (one["tokens"] != other["tokens"]).any()


def test_corpora_give_their_shares_of_the_tokens_however_long_their_documents_are():
    short = _documents(1, 40)
    long = [{"tokens": np.full(90, 100_000 + i, np.int32)} for i in range(25)]
    # Weights need not sum to 1.
    batches = document_batches(
        {"short": short, "long": long}, {"short": 3.0, "long": 1.0}, length=LENGTH, batch_size=ROWS, seed=0
    )
    tokens = np.concatenate([next(batches)["tokens"].ravel() for _ in range(150)])
    assert 0.71 < (tokens < 100_000).mean() < 0.79


def test_an_epoch_holds_every_example_once_and_the_next_is_in_another_order():
    batches = _packed()
    order = []
    for _ in range(40):
        batch = next(batches)
        order += [int(token) // 100 for token in batch["tokens"][batch["segment_ids"] > 0] if token % 100 == 0]
    counts = np.bincount(order, minlength=51)[1:]
    assert counts.max() - counts.min() <= 2  # packing bins hold a few examples back
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
