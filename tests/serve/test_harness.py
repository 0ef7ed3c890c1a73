"""lm-evaluation-harness drives the endpoint by its local-completions client.

It needs `lm_eval` in the PATH; in an environment of its own it disturbs nothing:

    uv venv lmeval && uv pip install --python lmeval 'lm_eval[api]==0.4.13'
    PATH=$PWD/lmeval/bin:$PATH python -m pytest -m slow tests/serve
"""

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
QUESTIONS = [
    {"question": f"Anna has {a} apples and gets {b}.", "choices": [f" {a + b}.", f" {a}", " 没有"], "gold": 0}
    for a in range(1, 4)
    for b in range(2, 5)
]
CHOOSE = """
task: tiny_choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
WRITE = """
task: tiny_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["\\n\\n", "7"], max_gen_toks: 12, temperature: 0}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    for name, task in (("choose", CHOOSE), ("write", WRITE)):
        (folder / f"{name}.yaml").write_text(task.format(file=file))
    return folder


def _evaluate(url: str, tasks: pathlib.Path, task: str, out: pathlib.Path, **arguments: Any) -> list[dict]:
    """Runs a task; gives the harness's record of each document, in order."""
    command = shutil.which("lm_eval")
    if command is None:
        pytest.skip("no lm_eval in the PATH")
    batch_size = arguments.pop("batch_size", 1)
    settings = {
        "model": "tiny",
        "base_url": f"{url}/v1/completions",
        "tokenizer_backend": "remote",
        "max_length": 64,
    } | arguments
    done = subprocess.run(
        [
            command, "run", "--model", "local-completions", "--tasks", task,
            "--batch_size", str(batch_size), "--include_path", str(tasks),
            "--model_args", ",".join(f"{name}={value}" for name, value in settings.items()),
            "--output_path", str(out), "--log_samples",
        ],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.rglob(f"samples_{task}_*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(records, key=lambda record: record["doc_id"])


# Texts, unlike token ids, get <bos> from the server.
@pytest.mark.parametrize(
    "arguments", [{}, {"batch_size": 4}, {"num_concurrent": 4}, {"tokenized_requests": False}], ids=str
)
def test_log_likelihoods_are_our_own(endpoint, tasks, tmp_path, arguments):
    records = _evaluate(endpoint.url, tasks, "tiny_choose", tmp_path, **arguments)
    assert len(records) == len(QUESTIONS)
    first = [] if arguments.get("tokenized_requests", True) else [endpoint.tokenizer.bos_id]
    differences = []
    for record, question in zip(records, QUESTIONS, strict=True):
        context = first + endpoint.tokenizer.encode(question["question"])
        for response, choice in zip(record["resps"], question["choices"], strict=True):
            whole = first + endpoint.tokenizer.encode(question["question"] + choice)
            logprobs, best = (array[len(context) - 1 :] for array in endpoint.score(whole))
            found, greedy = response[0]
            differences.append(abs(float(found) - logprobs.sum()))
            assert str(greedy) == str(best.tolist() == whole[len(context) :])
    print("largest difference", max(differences))
    assert max(differences) < 1e-3
    endpoint.wait_until_idle()


@pytest.mark.parametrize("arguments", [{}, {"num_concurrent": 4}, {"tokenizer_backend": None}], ids=str)
def test_generations_are_our_own(endpoint, tasks, tmp_path, arguments):
    records = _evaluate(endpoint.url, tasks, "tiny_write", tmp_path, **arguments)
    assert len(records) == len(QUESTIONS)
    for record, question in zip(records, QUESTIONS, strict=True):
        prompt = question["question"]
        if arguments.get("tokenizer_backend", "remote"):
            prompt = endpoint.tokenizer.encode(prompt)
        asked = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "stop": ["\n\n", "7"]}
        assert record["resps"][0][0] == endpoint.post("/v1/completions", **asked)["choices"][0]["text"]
    endpoint.wait_until_idle()
