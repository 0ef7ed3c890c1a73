"""The reader of real GSM8K files."""

import json

import pytest

from dsmath.data import gsm8k, problems
from dsmath.reward.answers import extract_answer, is_equivalent
from dsmath.runs.errors import InputError


def _write(folder, *records, split="train"):
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_annotations_go_and_the_answer_is_boxed(tmp_path):
    _write(tmp_path, {"question": "How many?", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\n#### 1,024"})
    (record,) = gsm8k.read(tmp_path, "train")
    assert record.solution == "She sold 48/2 = 24 clips.\nThe answer is \\boxed{1024}."
    assert (record.question, record.answer, record.source) == ("How many?", "1024", "gsm8k/train")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "?"}, r"train\.jsonl:2: field 'answer' is missing"),
        ({"answer": "#### 1"}, r"train\.jsonl:2: field 'question' is missing"),
        ({"question": "?", "answer": 5}, r"train\.jsonl:2: field 'answer' is missing or no text"),
        ({"question": "?", "answer": "so it is 5"}, r"train\.jsonl:2: field 'answer' has no number"),
        ("{broken", r"train\.jsonl:2: no JSON record"),
        ("[1]", r"train\.jsonl:2: field 'question'"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, record, message):
    _write(tmp_path, {"question": "?", "answer": "#### 1"}, record)
    with pytest.raises(InputError, match=message):
        gsm8k.read(tmp_path, "train")


def test_missing_or_empty_files_are_named(tmp_path):
    with pytest.raises(InputError, match="absent: no such folder"):
        gsm8k.read(tmp_path / "absent", "train")
    with pytest.raises(InputError, match=r"test\.jsonl: no such file"):
        gsm8k.read(tmp_path, "test")
    _write(tmp_path, split="test")
    with pytest.raises(InputError, match=r"test\.jsonl: the file is empty"):
        gsm8k.read(tmp_path, "test")


def test_the_real_files_are_read_whole(shared_data):
    for split, count in (("train", 7473), ("test", 916)):
        records = problems.load(shared_data / "benchmarks" / "gsm8k", split, count=0, seed=0)
        assert len(records) == count
        for record in records:
            assert "<<" not in record.solution and "," not in record.answer
            assert is_equivalent(extract_answer(record.solution), record.answer)
    assert len(problems.load(shared_data / "benchmarks" / "gsm8k", "test", count=5, seed=0)) == 5
