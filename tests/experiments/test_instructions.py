"""Sets of every form become checked solutions; a kill loses the file in work; SFT reads what comes out."""

import json
import shutil

import pytest

from configs import instructions as configs
from configs import sft as sft_configs
from dsmath.data.instructions import conversion
from dsmath.data.solutions import SOLUTIONS, read_solutions
from dsmath.runs.errors import InputError
from experiments import instructions, sft

JANET = "Janet has sixteen ducks and every duck of hers lays one egg each morning. How many eggs are that?"
TIR = "We compute it.\n```python\nx = 6 * 7\nprint(x)\n```\n```output\n42\n```\nThe answer is $\\boxed{42}$."
SETS = {
    "MathInstruct.json": [
        {"source": "data/CoT/a.json", "instruction": "How much is 1+1?", "output": "1+1=2. The answer is 2"},
        {"source": "data/CoT/a.json", "instruction": "How much is  1+1?", "output": "1+1=2. The answer is 2"},
        {"source": "data/CoT/a.json", "instruction": JANET, "output": "The answer is 16"},
        {
            "source": "data/PoT/a.json",
            "instruction": "How much is 1+2? Let's write a program.",
            "output": "def f():\n    return 1 + 2\nprint(f())",
        },
        {"source": "data/PoT/a.json", "instruction": "How much is 1+3?", "output": "print(1 / 0)"},
    ],
    "lila.json": {
        "Name": "addition",
        "Instances": [{"Input": "1+4?", "Output Program": ["print(5)", "print(6)"], "Output Answer": ["5"]}],
    },
    "metamath.jsonl": [{"query": "How much is 9*9?", "response": "#### 82\nThe answer is: 82", "type": "GSM"}],
    "tora.jsonl": [{"question": "How much is 6*7?", "solution": TIR, "answer": "42"}],
    "zh.jsonl": [{"problem": "小明有3个苹果，又买了4个，一共有几个？", "solution": "3+4=7。答案是7。", "answer": 7}],
}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "sets").mkdir()
    for name, records in SETS.items():
        text = "".join(json.dumps(r) + "\n" for r in records) if name.endswith("l") else json.dumps(records)
        (tmp_path / "sets" / name).write_text(text)
    with open(tmp_path / "sets" / "tora.jsonl", "a") as file:
        file.write("{damaged\n")
    folder = tmp_path / "benchmarks" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(json.dumps({"question": JANET, "answer": "#### 16"}))
    (folder / "train.jsonl").write_text(json.dumps({"question": "How much is 9*9?", "answer": "#### 81"}))
    config = configs.get_config()
    config.inputs = str(tmp_path / "sets")
    config.golds = str(tmp_path / "benchmarks")
    config.benchmarks = f"{tmp_path / 'benchmarks'},!*train*"
    config.workers = 1
    config.isolation = "bubblewrap" if shutil.which("bwrap") else "none"  # these programs are ours
    return config


def test_what_is_right_is_kept_and_the_rest_is_counted(config, tmp_path, capsys):
    result = instructions.run(config, tmp_path / "run")
    kept = {record.question: record for record in read_solutions(tmp_path / "run" / SOLUTIONS)}
    assert {(record.kind, record.language, record.answer) for record in kept.values()} == {
        ("cot", "en", "2"),
        ("pot", "en", "3"),
        ("pot", "en", "5"),
        ("tir", "en", "42"),
        ("cot", "zh", "7"),
    }
    assert kept["How much is 6*7?"].solution == TIR
    assert result["dropped"] == {"contaminated": 1, "damaged": 1, "duplicate": 1, "fails": 1, "wrong_answer": 2}
    assert (result["records"], result["kept"], result["golds"]) == (11, 5, {"itself": 3, "set": 3})
    told = json.loads((tmp_path / "run" / "statistics.json").read_text())
    assert told["by_source"]["data/CoT/a.json"]["dropped"] == {"contaminated": 1, "duplicate": 1}
    assert told["by_kind"]["pot"] == {"records": 4, "kept": 2, "dropped": {"fails": 1, "wrong_answer": 1}}
    assert told["characters"]["solution"]["most"] == len(TIR)
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["all", "11", "5"]


def test_a_killed_run_loses_the_file_in_work_alone(config, tmp_path, monkeypatch):
    instructions.run(config, tmp_path / "whole")
    convert, calls = conversion.convert, []

    def convert_two(path, *rest):
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        convert(path, *rest)

    monkeypatch.setattr(conversion, "convert", convert_two)
    with pytest.raises(KeyboardInterrupt):
        instructions.run(config, tmp_path / "run")
    instructions.run(config, tmp_path / "run")
    assert calls == [*sorted(SETS)[:3], *sorted(SETS)[2:]]
    for name in (SOLUTIONS, "statistics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_bad_input_is_named(config, tmp_path):
    config.max_overlap = 2.0
    with pytest.raises(InputError, match=r"config\.max_overlap: 2\.0 must lie between 0 and 1"):
        instructions.run(config, tmp_path / "run")
    config.max_overlap, config.golds = 0.5, str(tmp_path)
    with pytest.raises(InputError, match=r"config\.golds=.*: holds neither gsm8k nor math"):
        instructions.run(config, tmp_path / "run")
    config.inputs = str(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"config\.inputs: .*absent\.json' matches no file"):
        instructions.run(config, tmp_path / "run")


def test_sets_without_a_right_solution_end_the_run(config, tmp_path):
    config.inputs, config.golds, config.benchmarks = str(tmp_path / "sets" / "metamath.jsonl"), "", ""
    assert instructions.run(config, tmp_path / "unchecked")["kept"] == 1
    config.golds = str(tmp_path / "benchmarks")
    with pytest.raises(InputError, match="no record is left, for the reasons above"):
        instructions.run(config, tmp_path / "run")


def test_sft_learns_a_mixture_of_them(config, tmp_path, checkpoint):
    instructions.run(config, tmp_path / "run")
    stage = sft_configs.get_config()
    stage.init_from, stage.num_steps, stage.length, stage.batch_size = str(checkpoint), 2, 256, 8
    stage.solutions = {"sets": str(tmp_path / "run" / SOLUTIONS), "gsm8k": str(tmp_path / "benchmarks" / "gsm8k")}
    stage.repeats = {"sets": 2}
    stage.num_cpu_devices, stage.optimizer.warmup_steps = 8, 1
    result = sft.run(stage, tmp_path / "sft")
    assert result["examples"] == 11 and result["left_out"] == 0
    lineage = json.loads((tmp_path / "sft" / "lineage.json").read_text())
    assert sorted(name.rsplit("/", 1)[1] for name in lineage["data"]) == [SOLUTIONS, "train.jsonl"]
