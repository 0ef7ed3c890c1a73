"""The record of a run's samples: every token with its text and its numbers, files that come and go whole."""

import numpy as np
import pytest

from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.rl import samples as record
from dsmath.rollout.samples import Samples

TEXTS = [
    ["First 3+4=7. The answer is \\boxed{7}.", "It is 8. The answer is \\boxed{8}."],
    ["先算3*12=36。答案是\\boxed{36}。", "魑魅 36"],  # rare characters are bytes
]
RECORDS = [Solution("How much is 3 + 4?", "7", ""), Solution("一共有多少个？", "36", "", language="zh")]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([text for group in TEXTS for text in group[:1]] * 20, vocab_size=330)


@pytest.fixture
def step(tokenizer):
    """Samples of two groups, the last one cut within a character, and their numbers."""
    encoded = [[[*tokenizer.encode(text), tokenizer.eos_id] for text in group] for group in TEXTS]
    encoded[1][1] = encoded[1][1][:2]
    length = max(len(tokens) for group in encoded for tokens in group)
    lengths = np.array([[len(tokens) for tokens in group] for group in encoded], np.int32)
    tokens = np.full((2, 2, length), tokenizer.pad_id, np.int32)
    for question in range(2):
        for sample in range(2):
            tokens[question, sample, : lengths[question, sample]] = encoded[question][sample]
    mask = (np.arange(length) < lengths[..., None]).astype(np.float32)
    mask[0, 0, 1:3] = 0  # a tool spoke
    numbers = np.random.default_rng(0).normal(-1, 1, (3, 2, 2, length)).astype(np.float32)
    samples = Samples(tokens, numbers[0], mask, lengths, np.array([[False, False], [False, True]]))
    ends = np.array([[[4, lengths[0, 0] - 1], [lengths[0, 1] - 1, -1]], [[3, 9], [-1, -1]]], np.int32)
    return samples, {
        "rewards": np.array([[1.0, 0.0], [0.5, 0.25]], np.float32),
        "advantages": np.array([[1.0, -1.0], [0.7, -0.7]], np.float32),
        "correct": np.array([[1, 0], [1, 0]]),
        "parts": {"rule": np.array([[1, 0], [1, 0]]), "outcome_model": np.array([[1, 0], [0, 0.5]])},
        "coefficients": numbers[1],
        "ref_logprobs": numbers[2],
        "step_ends": ends,
        "step_rewards": np.array([[[0.9, 0.8], [0.1, 0]], [[0.5, 0.6], [0, 0]]], np.float32),
    }


def _table(tokenizer, step, **changes):
    samples, numbers = step
    prompts = [tokenizer.encode(each.question) for each in RECORDS]
    return record.make_table(3, [10, 11], RECORDS, prompts, samples, tokenizer, **(numbers | changes))


def test_a_row_holds_a_sample_with_its_question_text_and_judgement(tokenizer, step):
    rows = _table(tokenizer, step).to_pylist()
    assert [(row["step"], row["request"], row["sample"]) for row in rows] == [
        (3, 10, 0),
        (3, 10, 1),
        (3, 11, 0),
        (3, 11, 1),
    ]
    assert [row["completion"] for row in rows[:3]] == [TEXTS[0][0], TEXTS[0][1], TEXTS[1][0]]
    assert (
        [row["question"] for row in rows[1:3]]
        == [each.question for each in RECORDS]
        == [rows[1]["prompt"], rows[2]["prompt"]]
    )
    assert [row["answer"] for row in rows] == ["7", "8", "36", None]
    assert [row["correct"] for row in rows] == [True, False, True, False]
    assert [row["reward"] for row in rows] == [1.0, 0.0, 0.5, 0.25]
    assert dict(rows[3]["rewards"]) == {"rule": 0.0, "outcome_model": 0.5}
    assert [row["finish_reason"] for row in rows] == ["stop", "stop", "stop", "length"]
    assert [row["gold"] for row in rows] == ["7", "7", "36", "36"]


def test_every_token_has_its_text_and_its_numbers(tokenizer, step):
    samples, numbers = step
    rows = _table(tokenizer, step).to_pylist()
    for place, row in enumerate(rows):
        index = divmod(place, 2)
        length = samples.lengths[index]
        lists = ("pieces", "mask", "advantages", "coefficients", "logprobs", "ref_logprobs")
        assert {len(row[name]) for name in lists} == {length}
        np.testing.assert_array_equal(row["mask"], samples.mask[index][:length])
        np.testing.assert_array_equal(row["coefficients"], numbers["coefficients"][index][:length])
        np.testing.assert_array_equal(row["ref_logprobs"], numbers["ref_logprobs"][index][:length])
        assert set(row["advantages"]) == {numbers["advantages"][index]}
    assert [row["step_ends"] for row in rows[1:]] == [[samples.lengths[0, 1] - 1], [3, 9], []]
    np.testing.assert_allclose(rows[2]["step_rewards"], [0.5, 0.6])


def test_pieces_joined_are_the_text_with_special_tokens_by_name(tokenizer, step):
    rows = _table(tokenizer, step).to_pylist()
    for row in rows[:3]:
        assert "".join(row["pieces"]) == row["completion"] + "<eos>"
    assert set(rows[3]["pieces"][-1]) == {"\ufffd"}  # half a character, at the end
    tokens = [*tokenizer.encode("魑a"), 9999]
    [pieces] = record.token_pieces(tokenizer, [tokens])
    assert len(pieces) == len(tokens)
    assert [piece for piece in pieces if piece] == ["魑", "a", "<9999>"]  # the last of its bytes brings the character


def test_advantages_may_differ_by_token_and_what_a_run_lacks_is_null(tokenizer, step):
    by_token = np.random.default_rng(1).normal(0, 1, step[0].tokens.shape).astype(np.float32)
    lacking = dict.fromkeys(("correct", "parts", "coefficients", "ref_logprobs", "step_ends", "step_rewards"))
    row = _table(tokenizer, step, advantages=by_token, **lacking).to_pylist()[2]
    np.testing.assert_array_equal(row["advantages"], by_token[1, 0, : len(row["pieces"])])
    assert {row[name] for name in ("correct", "rewards", "coefficients", "ref_logprobs", "step_ends")} == {None}


def test_files_come_back_and_are_dropped_beyond_the_step_that_a_run_resumes_at(tokenizer, step, tmp_path):
    table = _table(tokenizer, step)
    assert record.read(tmp_path, record.steps(tmp_path)).num_rows == 0
    for number in range(1, 6):
        record.write(tmp_path, number, table, keep=10)
    assert record.read(tmp_path, [2]).equals(table)
    record.go_back(tmp_path, 3)
    assert record.steps(tmp_path) == [1, 2, 3]
    assert record.read(tmp_path, [1, 3]).num_rows == 2 * table.num_rows


def test_the_newest_files_stay(tokenizer, step, tmp_path):
    table = _table(tokenizer, step)
    for number in range(1, 24):
        record.write(tmp_path, number, table, keep=3)
    assert record.steps(tmp_path) == [21, 22, 23]
    assert {path.suffix for path in (tmp_path / record.FOLDER).iterdir()} == {".parquet"}
