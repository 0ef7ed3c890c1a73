"""Bad input ends a stage at its start with one line that names the field, and exit status 2."""

import importlib
import pathlib

import pytest

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_json

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("stage", "overrides", "named"),
    [
        ("tokenizer", {"corpus": "nowhere"}, r"config\.corpus='nowhere': there is no such folder"),
        ("tokenizer", {"vocab_size": 0}, r"config\.vocab_size: 0 must be at least 1"),
        ("pretrain", {"guards.hang_seconds": 0.0}, r"config\.guards\.hang_seconds: 0\.0 must be positive"),
        ("pretrain", {"batch_size": 12}, r"config\.batch_size: 12 is no multiple of 8"),
        ("pretrain", {"num_microbatches": 0}, r"config\.num_microbatches: 0"),
        ("pretrain", {"log_every": 0}, r"config\.log_every: 0 must be at least 1"),
        ("pretrain", {"weights": {"mined": 1.0}}, r"config\.weights"),
        ("pretrain", {"tokenizer": "nowhere"}, r"config\.tokenizer='nowhere'"),
        ("pretrain", {"corpora": {}, "weights": {}}, r"config\.corpora: empty"),
        ("pretrain", {"on_exhausted": "wrap"}, r"config\.on_exhausted: 'wrap' is none of repeat, stop"),
        ("sft", {"init_from": "nowhere"}, r"config\.init_from='nowhere'"),
        ("sft", {"num_steps": 0}, r"config\.num_steps: 0"),
        ("rl", {"group_size": 0}, r"config\.group_size: 0"),
        ("rl", {"reward": "outcome_model"}, r"config\.reward_model: is empty.*experiments\.reward"),
        ("rl", {"beta": -1.0}, r"config\.beta: -1.0 must not be negative"),
        ("rl", {"init_from": "nowhere"}, r"config\.init_from='nowhere'"),
        ("evaluate", {"num_samples": 0}, r"config\.num_samples: 0"),
        ("generate", {"num_samples": 0}, r"config\.num_samples: 0"),
        ("generate", {"init_from": "nowhere"}, r"config\.init_from='nowhere'"),
        (
            "generate",
            {"decoding": {"temperature": -1.0, "top_p": 1.0, "max_new_tokens": 8}},
            r"config\.decoding\.temperature",
        ),
    ],
)
def test_bad_fields_are_named_before_any_work(tmp_path, stage, overrides, named):
    config = importlib.import_module(f"configs.{stage}").get_config("nano")
    config.num_cpu_devices = 8
    for field, value in overrides.items():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=named):
        importlib.import_module(f"experiments.{stage}").run(config, tmp_path)
    assert not (tmp_path / "lineage.json").exists()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"mesh.tensor": 8, "model.num_kv_heads": 2}, r"config\.mesh: .* has 2 along 'kv_heads', which 8 devices"),
        ({"mesh.data": 8, "model.attention": "splash"}, r"config\.model\.attention='splash': the 128 tokens"),
    ],
)
def test_a_model_that_cannot_be_trained_so_is_named_before_the_corpora_are_read(checkpoint, tmp_path, overrides, named):
    config = importlib.import_module("configs.pretrain").get_config("nano")
    config.num_cpu_devices, config.tokenizer = 8, str(checkpoint)
    config.corpora, config.weights = {"workbook": "embedded"}, {"workbook": 1.0}
    config.update_from_flattened_dict(overrides)
    with pytest.raises(InputError, match=named):
        importlib.import_module("experiments.pretrain").run(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["sft", "rl", "evaluate", "generate"])
def test_a_parent_that_was_killed_is_refused(tmp_path, stage):
    write_json(tmp_path / "parent" / "config.json", {"stage": "pretrain"})
    config = importlib.import_module(f"configs.{stage}").get_config("nano")
    config.num_cpu_devices = 8
    config.init_from = str(tmp_path / "parent")
    with pytest.raises(InputError, match=r"config\.init_from=.*has not finished; run it to the end first"):
        importlib.import_module(f"experiments.{stage}").run(config, tmp_path / "child")


def test_stages_of_a_chain_have_presets_of_their_own_and_are_launched_where_one_process_is_not_enough(tmp_path):
    from configs.speedruns import h100, v5p128
    from experiments import pipeline

    config = v5p128.get_config()
    config.launch = "--target=slurm --target.nodes=8"
    commands = pipeline.make_commands(config, tmp_path)
    assert commands["mine"][2:4] == ["experiments.mine", "--config=configs/mine.py:paper"]
    assert f"--config.benchmarks=data/benchmarks,{tmp_path}/problems/test.jsonl" in commands["mine"]
    assert commands["rl"][2:4] == ["experiments.launch", "--config=configs/rl.py:7b"]
    assert commands["rl"][-2:] == ["--target=slurm", "--target.nodes=8"]
    assert commands["evaluate_rl"][2] == "experiments.evaluate"
    commands = pipeline.make_commands(h100.get_config(), tmp_path)
    corpora = f"--config.corpora={{'mined': '{tmp_path}/mine', 'workbook': 'embedded'}}"
    assert corpora in commands["pretrain"]


def test_the_chain_refuses_to_be_rewired(tmp_path):
    from configs import pipeline as configs
    from experiments import pipeline

    config = configs.get_config("nano")
    config.tokenizer.corpus = "elsewhere"
    with pytest.raises(InputError, match=r"config\.tokenizer\.corpus: the chain sets it itself"):
        pipeline.make_commands(config, tmp_path)
    for corpora in ({"mined": "elsewhere", "workbook": "embedded"}, {"mined": "elsewhere"}):
        config = configs.get_config("nano")
        config.pretrain.corpora = corpora
        with pytest.raises(InputError, match=r"config\.pretrain\.corpora\.mined: the chain sets it itself"):
            pipeline.make_commands(config, tmp_path)
