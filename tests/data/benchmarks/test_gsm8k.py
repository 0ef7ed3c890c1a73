"""The reader of real GSM8K files, as problems to learn and as problems to solve."""

import json

import pytest

from dsmath.data import problems
from dsmath.data.benchmarks import gsm8k
from dsmath.reward.answers import extract_answer, is_equivalent
from dsmath.runs.errors import InputError

OPENAI = {"question": "How many? ", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\n#### 1,024"}
DEEPSEEK = {"question": "How many?", "answer": "1024", "cot": "She sold 48/2 = 24 clips.", "id": "gsm8k-test-7"}


def _write(folder, *records, split="train"):
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path = folder / f"{split}.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_annotations_go_and_the_answer_is_boxed(tmp_path):
    _write(tmp_path, OPENAI)
    (record,) = problems.load(tmp_path, "train", count=0, seed=0)
    assert record.solution == "She sold 48/2 = 24 clips.\nThe answer is \\boxed{1024}."
    assert (record.question, record.answer, record.source) == ("How many?", "1024", "gsm8k/train")


def test_both_formats_give_the_same_item(tmp_path):
    one, other = gsm8k.read([_write(tmp_path, OPENAI, "", DEEPSEEK)], "train")
    assert one == other
    assert (one.answer, one.solution) == ("1024", "She sold 48/2 = 24 clips.")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "?"}, r"train\.jsonl:2: field 'answer' is missing"),
        ({"answer": "#### 1"}, r"train\.jsonl:2: field 'question' is missing"),
        ({"question": " ", "answer": "#### 1"}, r"train\.jsonl:2: field 'question' is empty"),
        ({"question": "?", "answer": 5}, r"train\.jsonl:2: field 'answer' is 5, not a text"),
        ({"question": "?", "answer": "so it is 5"}, r"train\.jsonl:2: field 'answer' has no number"),
        ({"question": "?", "answer": "5\n####"}, r"train\.jsonl:2: field 'answer' has no number"),
        ("{broken", r"train\.jsonl:2: no JSON record"),
        ("[1]", r"train\.jsonl:2: no JSON object but \[1\]"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, record, message):
    _write(tmp_path, OPENAI, record)
    with pytest.raises(InputError, match=message):
        problems.load(tmp_path, "train", count=0, seed=0)


def test_missing_or_empty_files_are_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        problems.load(tmp_path / "absent", "train", count=0, seed=0)
    with pytest.raises(InputError, match=r"test\.jsonl: no such file"):
        problems.load(tmp_path, "test", count=0, seed=0)
    _write(tmp_path, split="test")
    with pytest.raises(InputError, match=r"test\.jsonl: the file is empty"):
        problems.load(tmp_path, "test", count=0, seed=0)


def test_the_real_files_are_read_whole(shared_data):
    folder = shared_data / "benchmarks" / "gsm8k"
    for split, count in (("train", 7473), ("test", 916)):
        records = problems.load(folder, split, count=0, seed=0)
        assert len(records) == count
        for record in records:
            assert "<<" not in record.solution and "," not in record.answer
            assert is_equivalent(extract_answer(record.solution), record.answer)
    assert len(problems.load(folder, "test", count=5, seed=0)) == 5
    assert gsm8k.read([folder / "test.jsonl"], "test") == gsm8k.read([folder / "deepseek_format_test.jsonl"], "test")
