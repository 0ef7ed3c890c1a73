"""The table of what is here of the benchmarks."""

import json
import subprocess
import sys

from experiments.benchmarks import describe


def test_a_subset_and_what_is_missing_are_told(tmp_path):
    (tmp_path / "in" / "gsm8k").mkdir(parents=True)
    (tmp_path / "in" / "gsm8k" / "test.jsonl").write_text(json.dumps({"question": "?", "answer": "#### 1"}))
    assert describe("gsm8k", tmp_path / "in", "test", fetch=False) == ("not upstream's", "1 of 1,319")
    command = ["experiments.benchmarks", f"--folder={tmp_path / 'in'}", f"--data_dir={tmp_path / 'data'}"]
    done = subprocess.run([sys.executable, "-m", *command, "--names=gsm8k"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()[-3:]
    assert first.split() == ["benchmark", "split", "SHA-256", "records"]
    assert second.split()[:2] == ["gsm8k", "test"] and second.endswith("1 of 1,319")
    assert "train.jsonl: no such file; fetch GSM8K (train) from https://" in third
    assert (tmp_path / "data" / "benchmarks" / "gsm8k").is_dir()


def test_a_name_that_is_none_ends_with_one_line(tmp_path):
    command = ["experiments.benchmarks", f"--folder={tmp_path}", "--names=gsm"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean 'gsm8k'" in done.stderr.splitlines()[-1]
