"""Benchmark files: every format, which fields are text, and what is refused."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsmath.runs.errors import InputError
from dsmath.web.benchmark_texts import BenchmarkText, read_benchmarks

_RECORDS = [
    {"question": "What is two plus two?", "answer": "4", "id": "first", "level": 3, "hint": None},
    {"question": "What is a third of 1,200?", "answer": "400", "id": "second", "level": 1, "hint": "no"},
]
_TEXTS = [
    BenchmarkText("1 (first)", "What is two plus two?", True),
    BenchmarkText("1 (first)", "4", False),
    BenchmarkText("2 (second)", "What is a third of 1,200?", True),
    BenchmarkText("2 (second)", "400", False),
]


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _lines(records):
    return "\n".join(json.dumps(record) for record in records)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv.gz", ".parquet"])
def test_every_format_gives_the_same_texts(tmp_path, ending):
    path = tmp_path / "sums" / f"test{ending}"
    path.parent.mkdir()
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(_RECORDS), path)
    elif ending.startswith((".csv", ".tsv")):
        with (gzip.open if ending.endswith(".gz") else open)(path, "wt", newline="") as file:
            writer = csv.DictWriter(file, _RECORDS[0], dialect="excel" if ending == ".csv" else "excel-tab")
            writer.writeheader()
            writer.writerows(_RECORDS)
    else:
        content = json.dumps(_RECORDS, indent=2) if ending == ".json" else _lines(_RECORDS)
        _write(path, gzip.compress(content.encode()) if ending.endswith(".gz") else content)
    assert read_benchmarks(str(tmp_path)) == {"sums/test": _TEXTS}


def test_json_may_hold_one_object_or_several_one_after_another(tmp_path):
    path = _write(tmp_path / "sums" / "test.json", json.dumps(_RECORDS[0], indent=2))
    assert read_benchmarks(str(path)) == {"sums/test": _TEXTS[:2]}
    _write(path, "\ufeff" + "\n".join(json.dumps(record, indent=2) for record in _RECORDS) + "\n")
    assert read_benchmarks(str(path)) == {"sums/test": _TEXTS}


def test_json_lines_are_numbered_by_line_and_not_cut_at_line_separators(tmp_path):
    record = {"question": "one\u2028two", "answer": 0.5}
    path = _write(tmp_path / "a" / "b.jsonl", "\n" + json.dumps(record, ensure_ascii=False) + "\r\n\n")
    assert read_benchmarks(str(path)) == {"a/b": [("2", "one\u2028two", True), ("2", "0.5", False)]}


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        (
            {"canary": "NEVER TRAIN", "examples": [{"input": "not True is", "target": "False"}]},
            ["not True is", "False"],
        ),
        (
            {"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": ""}], "answer": "18"},
            ["问", "18"],
        ),
        (
            {"question": {"problem": "P", "ground_truth_answer": "29", "x": "no"}, "label": {"steps": ["no"]}},
            ["P", "29"],
        ),
        (
            {"passage": None, "question": "Q", "options": ["(A)1", 0.25], "label": "A", "other": {"source": "no"}},
            ["Q", "(A)1", "0.25"],
        ),
        ({"question": "Q", "options": "A) 1 B) 2", "Answer": "A"}, ["Q", "A) 1 B) 2", "A"]),
        ({"question": "Q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}, ["Q", "x", "y"]),
        ({"text": "T", "code": "c", "test_list": ["t1", "t2"], "test_setup_code": "no"}, ["T", "c", "t1", "t2"]),
        ({"informal_statement": "I", "formal_statement": "F", "header": "no"}, ["I", "F"]),
    ],
)
def test_nested_fields_are_read_and_canaries_labels_and_sources_are_not(tmp_path, record, texts):
    path = _write(tmp_path / "set" / "test.json", json.dumps(record))
    assert [text.text for text in read_benchmarks(str(path))["set/test"]] == texts


def test_a_folder_of_numbered_files_is_one_benchmark(tmp_path):
    for number in (7, 12):
        record = {"problem": f"Problem {number}", "solution": "S", "type": "Algebra"}
        _write(tmp_path / "MATH" / "train" / "algebra" / f"{number}.json", json.dumps(record))
    texts = read_benchmarks(str(tmp_path))["MATH/train/algebra"]
    assert [(text.item, text.text) for text in texts if text.is_question] == [("12", "Problem 12"), ("7", "Problem 7")]


def test_files_are_chosen_by_globs_and_left_out(tmp_path):
    for name in ("gsm8k/train", "gsm8k/test", "math/test"):
        _write(tmp_path / f"{name}.jsonl", _lines(_RECORDS))
    _write(tmp_path / "README.md", "not data")
    assert list(read_benchmarks(f"{tmp_path},!*train*")) == ["gsm8k/test", "math/test"]
    assert list(read_benchmarks(f"{tmp_path}/gsm8k/*.jsonl, {tmp_path}/math")) == [
        "gsm8k/test",
        "gsm8k/train",
        "math/test",
    ]
    assert read_benchmarks("") == {}
    with pytest.raises(InputError, match="matches no file"):
        read_benchmarks(f"{tmp_path}/nothing*.jsonl")
    with pytest.raises(InputError, match="leaves out every file"):
        read_benchmarks(f"{tmp_path}/gsm8k,!*")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"question": "Q"}\n{"question": \n', r"bad\.jsonl:2: damaged JSON"),
        ("bad.jsonl", b"[1]\n", r"bad\.jsonl:1: not a JSON object"),
        ("bad.json", b'{"question": "Q"}\n\n{"question" 1}\n', r"bad\.json:3: damaged JSON"),
        ("bad.json", b"[" * 100_000, "bad.json.*(nested|damaged)"),
        ("bad.jsonl", b'{"title": "x", "body": "y"}\n', "it has title, body, known are question, problem"),
        ("bad.jsonl", b"", "it has none, known are"),
        ("bad.csv", b"a,b\n1,2\n", "it has a, b, known are"),
        ("bad.csv", b'question\n"not closed', "damaged CSV"),
        ("bad.jsonl", '{"question": "né"}'.encode("latin-1"), r"not UTF-8 \(byte 15\)"),
        ("bad.jsonl.gz", gzip.compress(b'{"question": "Q"}' * 50, mtime=0)[:-12], "gzip file is damaged"),
        ("bad.jsonl.gz", b"no gzip", "cannot be read"),
        ("bad.parquet", b"no parquet", "not a readable Parquet file"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, name, content, message):
    _write(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        read_benchmarks(str(tmp_path))


def test_a_file_of_unknown_format_is_refused(tmp_path):
    path = _write(tmp_path / "test.txt", "Q")
    with pytest.raises(InputError, match="does not tell its format"):
        read_benchmarks(str(path))


def test_the_real_benchmarks_are_read_from_their_folder(shared_data):
    benchmarks = read_benchmarks(str(shared_data / "benchmarks"))
    counts = {name: len({text.item for text in texts}) for name, texts in benchmarks.items()}
    assert counts["gsm8k/test"] == 916
    assert counts["bbh/navigate"] == 250
    assert counts["humaneval/HumanEval"] == 164
    assert counts["math/math500_test"] == 365
    assert counts["original_layout/train/algebra"] == 3
    assert counts["process_labels/prm800k-phase1-train-example"] == 3
    assert sum(map(len, benchmarks.values())) > 70_000
    assert not any("canary GUID" in text.text for texts in benchmarks.values() for text in texts)
