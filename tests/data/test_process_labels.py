"""Files of step labels, made ones and real ones."""

import json

import pytest

from dsmath.data import process_labels
from dsmath.runs.errors import InputError

PRM800K = {
    "question": {"problem": "1+1?", "ground_truth_answer": "2"},
    "label": {
        "finish_reason": "solution",
        "steps": [
            {
                "completions": [{"text": "Add.", "rating": 1}, {"text": "Divide.", "rating": -1}],
                "human_completion": None,
                "chosen_completion": 0,
            },
            {
                "completions": [{"text": "Well.", "rating": 0}],
                "human_completion": {"text": "It is 2.", "rating": None},
                "chosen_completion": None,
            },
        ],
    },
}
SHEPHERD = {
    "input": "1+1? Step 1: Add. ки\nStep 2: It is 3. The answer is: 3 ки",
    "label": "1+1? Step 1: Add. +\nStep 2: It is 3. The answer is: 3 -",
    "task": "GSM8K",
}
OUTPUTS = {
    "question": "1+1?",
    "outputs": [
        {"response": "Add.ки\nIt is 2.ки", "label": True, "step_h_label": [True, True], "step_s_label": [0.5, 1.0]}
    ],
}


def test_prm800k_gives_the_chosen_solution_and_each_other_offer_once(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(PRM800K, indent=4))
    other, neutral, chosen = process_labels.read(path, soft=False)
    assert (other.steps, other.labels, other.finished) == (("Divide.",), (0.0,), False)
    assert (neutral.steps, neutral.labels) == (("Add.\n", "Well."), (None, 1.0))
    assert (chosen.steps, chosen.labels, chosen.finished) == (("Add.\n", "It is 2."), (1.0, 1.0), True)
    assert chosen.question == "1+1?"
    assert chosen.correct is None


def test_math_shepherds_marks_are_read_where_they_stand(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(SHEPHERD, ensure_ascii=False) + "\n" + json.dumps(OUTPUTS) + "\n")
    marked, output = process_labels.read(path, soft=True)
    assert marked.question == "1+1?"
    assert marked.steps == ("Step 1: Add. ", "\nStep 2: It is 3. The answer is: 3 ")
    assert (marked.labels, marked.correct) == ((1.0, 0.0), False)
    assert (output.steps, output.labels, output.correct) == (("Add.", "\nIt is 2."), (0.5, 1.0), True)
    assert process_labels.read(path, soft=False)[1].labels == (1.0, 1.0)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", r"labels\.jsonl:1: no JSON record"),
        ("", "holds no record"),
        ("[]", "record 1: no JSON object"),
        ('{"question": "1+1?"}', "record 1: no field 'input'"),
        (json.dumps(SHEPHERD | {"input": "1+1? Add."}), "record 1: damaged .*no 'Step 1:'"),
        (json.dumps(SHEPHERD | {"label": "1+1?"}), "record 1: damaged"),
        (json.dumps(SHEPHERD | {"input": SHEPHERD["input"] + " more"}), "behind its last 'ки' has no label"),
        (json.dumps(OUTPUTS).replace("[true, true]", "[true]"), "2 steps, but 1 labels"),
    ],
)
def test_a_damaged_file_is_named_with_its_record(tmp_path, content, named):
    path = tmp_path / "labels.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=named):
        process_labels.read(path, soft=False)


def test_a_file_that_is_absent_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no such file; config\.labelled takes"):
        process_labels.read(tmp_path / "labels.jsonl", soft=False)


def test_real_files_are_read(shared_data):
    folder = shared_data / "benchmarks" / "process_labels"
    found = {path.name: process_labels.read(path, soft=True) for path in folder.iterdir()}
    assert len(found["example_responses_n15_llama3_8b_math_process.jsonl"]) == 150
    assert len(found["prm800k-phase1-train-example.json"]) > 100
    assert len(found["prm800k-phase2-train-example.json"]) == 5
    labels = {label for records in found.values() for record in records for label in record.labels}
    assert {0.0, 1.0, 0.625, None} <= labels
