"""The benchmarks as TFDS datasets: what was read is what comes out, without TensorFlow."""

import json
import subprocess
import sys

import pytest

from dsmath.data.benchmarks import catalog, download
from dsmath.data.benchmarks.tfds_builder import prepare, to_item
from dsmath.runs.errors import InputError

TASK = {
    "text": "Add.",
    "code": "def add(a, b):\r\n  return a + b",
    "test_setup_code": "",
    "test_list": ["assert add(1, 1) == 2"],
}


def _write(folder, name, file, records):
    path = folder / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_every_split_gives_its_items_in_order(tmp_path):
    _write(tmp_path / "in", "mbpp", "mbpp.jsonl", [TASK | {"task_id": number} for number in (2, 1, 11, 12, 511, 700)])
    builder = prepare("mbpp", tmp_path / "data", tmp_path / "in")
    assert set(builder.info.splits) == {"prompt", "test", "validation", "train"}
    for split in builder.info.splits:
        items = [to_item("mbpp", example) for example in builder.as_data_source(split)]
        assert items == catalog.read("mbpp", tmp_path / "in", split)
    assert list((tmp_path / "data").rglob("*.array_record*"))


def test_choices_come_back(tmp_path):
    record = {"id": "3", "question": "几？", "options": "A) $1$ B) 2 C) 3 D) 4", "Answer": "D"}
    _write(tmp_path / "in", "sat", "test.jsonl", [record])
    builder = prepare("sat", tmp_path / "data", tmp_path / "in")
    assert [to_item("sat", example) for example in builder.as_data_source("test")] == catalog.read(
        "sat", tmp_path / "in"
    )


def test_splits_without_files_are_left_out(tmp_path):
    _write(tmp_path / "in", "gsm8k", "test.jsonl", [{"question": "?", "answer": "#### 1"}])
    assert set(prepare("gsm8k", tmp_path / "data", tmp_path / "in").info.splits) == {"test"}


def test_a_dataset_of_other_files_is_refused(tmp_path):
    _write(tmp_path / "in", "gsm8k", "test.jsonl", [{"question": "?", "answer": "#### 1"}])
    prepare("gsm8k", tmp_path / "data", tmp_path / "in")
    prepare("gsm8k", tmp_path / "data", tmp_path / "in")
    _write(tmp_path / "in", "gsm8k", "test.jsonl", [{"question": "?", "answer": "#### 2"}])
    with pytest.raises(InputError, match=r"gsm8k/1\.0\.0: was made of other files than .*in has; remove it"):
        prepare("gsm8k", tmp_path / "data", tmp_path / "in")


def test_what_is_wrong_with_the_files_is_told(tmp_path):
    with pytest.raises(InputError, match=r"gsm8k: no such folder; put GSM8K's files there"):
        prepare("gsm8k", tmp_path / "data", tmp_path / "in")
    with pytest.raises(InputError, match="did you mean 'gsm8k'"):
        prepare("gsm", tmp_path / "data", tmp_path / "in")
    _write(tmp_path / "in", "gsm8k", "test.jsonl", [{"question": "?", "answer": "1"}])
    with pytest.raises(InputError, match=r"test\.jsonl:1: field 'answer' has no number"):
        prepare("gsm8k", tmp_path / "data", tmp_path / "in")


def test_without_a_folder_the_files_are_downloaded(tmp_path, monkeypatch):
    content = json.dumps({"grade": 1, "question": "1+1=?", "golden": "2"}).encode()
    monkeypatch.setattr(download, "fetch", lambda origin: content)
    builder = prepare("cmath", tmp_path / "data")
    assert [example["answer"] for example in builder.as_data_source("test")] == [b"2"]


def test_no_tensorflow_is_loaded(tmp_path):
    _write(tmp_path / "in", "gsm8k", "test.jsonl", [{"question": "?", "answer": "#### 1"}])
    code = f"""
import sys
from dsmath.data.benchmarks.tfds_builder import prepare
assert len(prepare("gsm8k", {str(tmp_path / "data")!r}, {str(tmp_path / "in")!r}).as_data_source("test")) == 1
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
