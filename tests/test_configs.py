"""The configs hold the paper's numbers, and every preset builds."""

import importlib
import pathlib
from collections.abc import Iterable

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from dsmath.model.transformer import ModelConfig
from dsmath.rl import paradigm
from dsmath.runs import sweep

ROOT = pathlib.Path(__file__).resolve().parents[1]
# launch.py is no stage's: its presets are targets, each with fields of its own.
NAMES = sorted(file.stem for file in (ROOT / "configs").glob("*.py") if file.stem not in ("__init__", "launch"))
PRESETS = {
    "corpus": ("nano",),
    "export": ("nano", "paper"),
    "loss": ("nano", "7b"),
    "mine": ("nano", "paper"),
    "tokenizer": ("nano", "7b"),
    "pretrain": ("nano", "1b3", "7b"),
    "sft": ("nano", "7b"),
    "reward": ("nano", "1b3", "7b"),
    "rl": ("nano", "1b3", "7b"),
    "evaluate": ("nano", "7b", "nano,base", "7b,base"),
    "generate": ("nano", "7b"),
    "instructions": ("nano", "7b"),
    "serve": ("nano", "7b"),
    "pipeline": ("nano",),
}


def _config(name: str, *preset: str) -> ml_collections.ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(*preset)


def _assert_holds(config: ml_collections.ConfigDict, expected: dict) -> None:
    """`expected` names fields dotted."""
    for field, value in expected.items():
        found = config
        for part in field.split("."):
            found = found[part]
        assert found == pytest.approx(value) if isinstance(value, float) else found == value, field


def test_every_config_is_known_here():
    assert sorted(PRESETS) == NAMES


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in PRESETS for preset in PRESETS[name]])
def test_every_preset_builds_and_its_values_can_be_written(name, preset):
    config = _config(name, preset)
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.to_json() == _config(name, preset).to_json()  # the same each time


@pytest.mark.parametrize("name", NAMES)
def test_nano_is_the_default_and_an_unknown_preset_is_named(name):
    assert _config(name).to_json() == _config(name, "nano").to_json()
    with pytest.raises(ValueError, match=r"'huge' is n.*nano"):
        _config(name, "huge")


@pytest.mark.parametrize("name", NAMES)
def test_presets_change_values_and_not_fields(name):
    """But for mappings whose keys are the user's."""

    def fields(config, prefix=""):
        for key, value in config.items():
            if isinstance(value, ml_collections.ConfigDict) and key not in ("corpora", "weights"):
                yield from fields(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}"

    assert len({tuple(sorted(fields(_config(name, preset)))) for preset in PRESETS[name]}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_config_opens_with_the_command_that_runs_it(name):
    text = (ROOT / "configs" / f"{name}.py").read_text(encoding="utf-8")
    assert f"python -m experiments.{name} --config=configs/{name}.py:" in text.split('"""')[1]
    assert (ROOT / "experiments" / f"{name}.py").is_file()


ADAMW = {"optimizer.b1": 0.9, "optimizer.b2": 0.95, "optimizer.weight_decay": 0.1}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (
            "7b",
            {
                "model.num_layers": 30,
                "model.width": 4096,
                "model.num_heads": 32,
                "model.num_kv_heads": 32,
                "model.head_dim": 128,
                "model.mlp_width": 11008,
                "optimizer.peak_learning_rate": 4.2e-4,
                "num_steps": 50_000,
            },
        ),
        (
            "1b3",
            {
                "model.num_layers": 24,
                "model.width": 2048,
                "model.num_heads": 16,
                "model.num_kv_heads": 16,
                "model.head_dim": 128,
                "model.mlp_width": 5504,
                "optimizer.peak_learning_rate": 5.3e-4,
                "num_steps": 37_500,
            },
        ),
    ],
)
def test_pretraining_is_the_papers(preset, expected):
    both = {
        "model.norm_eps": 1e-6,
        "model.rope_theta": 10000.0,
        "model.tied": False,
        "length": 4096,
        "optimizer.schedule": "multi_step",
        "optimizer.warmup_steps": 2000,
    }
    _assert_holds(_config("pretrain", preset), expected | both | ADAMW)


@pytest.mark.parametrize(("preset", "batch_tokens", "total_tokens"), [("7b", 10e6, 500e9), ("1b3", 4e6, 150e9)])
def test_pretraining_sees_the_papers_tokens(preset, batch_tokens, total_tokens):
    config = _config("pretrain", preset)
    tokens = config.batch_size * config.length
    assert tokens == pytest.approx(batch_tokens, rel=0.05)
    assert tokens * config.num_steps == pytest.approx(total_tokens, rel=0.05)


def test_the_7b_is_pretrained_on_the_papers_mixture():
    config = _config("pretrain", "7b")
    assert config.weights.to_dict() == {
        "mined": 0.56,
        "algebraic_stack": 0.04,
        "arxiv": 0.1,
        "github": 0.2,
        "natural_language": 0.1,
    }
    assert config.corpora.keys() == config.weights.keys()


def test_the_tokenizer_has_the_papers_vocabulary():
    assert _config("tokenizer", "7b").vocab_size == 102_400


def test_sft_is_the_papers():
    expected = {
        "num_steps": 500,
        "batch_size": 256,
        "length": 4096,
        "optimizer.schedule": "constant",
        "optimizer.peak_learning_rate": 5e-5,
    }
    _assert_holds(_config("sft", "7b"), expected)


@pytest.mark.parametrize("preset", ["1b3", "7b"])
def test_reward_models_are_the_papers(preset):
    expected = {
        "optimizer.peak_learning_rate": 2e-5,
        "init_from": "runs/pretrain",  # the base
        "decoding.max_new_tokens": 1024,
        "num_completions": 8,
    }
    _assert_holds(_config("reward", preset), expected)


@pytest.mark.parametrize("size", ["1b3", "7b"])
@pytest.mark.parametrize("method", ["grpo_os", "grpo_ps", "grpo_iterative"])
def test_rl_is_the_papers(size, method):
    config = _config("rl", f"{size},{method}")
    expected = {
        "group_size": 64,
        "beta": 0.04,
        "updates_per_rollout": 1,
        "kl": "k3",
        "aggregation": "output",
        "iterations": 2 if method == "grpo_iterative" else 1,
        "replay.share": 0.1,
        "replay.learning_rate": 2e-5,
        "decoding.max_new_tokens": 1024,
        "optimizer.peak_learning_rate": 1e-6,
    }
    _assert_holds(config, expected)
    assert config.num_groups * config.group_size == 1024


def test_the_methods_are_those_of_table_10():
    rl = importlib.import_module("configs.rl")
    for name, (source, reward, coefficient) in {
        "sft": ("sft_data", "none", "sft"),
        "rft": ("sft_model", "rule", "rft"),
        "online_rft": ("policy", "rule", "rft"),
        "dpo": ("sft_model", "rule", "dpo"),
        "ppo": ("policy", "outcome_model", "ppo"),
        "grpo_os": ("policy", "outcome_model", "grpo"),
        "grpo_ps": ("policy", "process_model", "grpo"),
        "grpo_iterative": ("policy", "outcome_model", "grpo"),
    }.items():
        _assert_holds(rl.get_config(f"7b,{name}"), {"source": source, "reward": reward, "coefficient": coefficient})
    assert len(rl.METHODS) == 8


def test_evaluation_is_the_papers():
    _assert_holds(_config("evaluate", "7b"), {"temperature": 0.7, "num_samples": 64, "max_new_tokens": 1024})


def test_mining_is_the_papers():
    expected = {
        "classifier.dim": 256,
        "classifier.lr": 0.1,
        "classifier.word_ngrams": 3,
        "classifier.min_count": 3,
        "classifier.epochs": 3,
        "positives": 500_000,
        "negatives": 500_000,
        "math_domain_share": 0.1,
        "stop_share": 0.98,
        "max_rounds": 4,
    }
    _assert_holds(_config("mine", "paper"), expected)


def _layer_parameters(preset: str) -> int:
    """Parameters without the embedding and the output matrix."""
    c = _config("pretrain", preset).model
    attention = 2 * c.width * c.head_dim * (c.num_heads + c.num_kv_heads)
    return c.num_layers * (attention + 3 * c.width * c.mlp_width)


def test_the_models_have_the_sizes_of_their_names():
    assert _layer_parameters("nano") < 1e6
    assert _layer_parameters("1b3") == pytest.approx(1.3e9, rel=0.1)
    vocabulary = 2 * _config("tokenizer", "7b").vocab_size * _config("pretrain", "7b").model.width
    assert _layer_parameters("7b") + vocabulary == pytest.approx(7e9, rel=0.03)


def test_every_preset_is_a_model_that_can_be_built():
    for preset in PRESETS["pretrain"]:
        ModelConfig.create({**_config("pretrain", preset).model, "vocab_size": 1024})


def test_the_chain_shares_its_fields():
    config = _config("pipeline")
    config.seed = 7
    config.problems = "gsm8k"
    config.input = "crawl/*.warc.gz"
    config.num_cpu_devices = 2
    stages = ("tokenizer", "pretrain", "sft", "rl", "evaluate")
    assert {config[stage].seed for stage in (*stages, "mine")} == {7}
    assert {config[stage].problems for stage in ("tokenizer", "sft", "rl", "evaluate")} == {"gsm8k"}
    assert {config[stage].num_cpu_devices for stage in ("pretrain", "sft", "rl", "evaluate")} == {2}
    assert config.mine.input == "crawl/*.warc.gz"


SPEEDRUNS = ("laptop", "h100", "v5p128")


def test_every_speed_run_is_known_here():
    files = (ROOT / "configs" / "speedruns").glob("*.py")
    assert sorted(SPEEDRUNS) == sorted(file.stem for file in files if file.stem != "__init__")


@pytest.mark.parametrize("name", SPEEDRUNS)
def test_a_speed_run_tells_its_command_and_its_plan_holds(name):
    text = (ROOT / "configs" / "speedruns" / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    assert f"python -m experiments.pipeline --config=configs/speedruns/{name}.py:full" in text
    assert ("NEVER RUN" in text) == (name != "laptop")
    config = _config(f"speedruns.{name}")
    for word in (
        f"{config.pretrain.num_steps:,} steps",
        f"{config.rl.num_steps:,} steps",
        f"{config.sft.num_steps:,} steps",
    ):
        assert word in text
    assert f"{config.tokenizer.vocab_size:,} pieces" in text
    with pytest.raises(ValueError, match="'huge' is none of full, try"):
        _config(f"speedruns.{name}", "huge")


@pytest.mark.parametrize("name", SPEEDRUNS)
def test_a_speed_run_is_a_chain_whose_trial_has_two_steps_a_stage(name):
    config = _config(f"speedruns.{name}", "try")
    assert {config[stage].num_steps for stage in ("pretrain", "sft", "rl")} == {2}
    assert config.rl.reward == "rule"  # the chain trains no reward model
    assert len(config.evaluate.benchmarks) == len(config.evaluate.modes) == 1  # the report card is of one
    ModelConfig.create({**config.pretrain.model, "vocab_size": config.tokenizer.vocab_size})
    assert sorted(config.pretrain.corpora) == sorted(config.pretrain.weights)


ABLATIONS = {
    "corpus_size": ("nano", "1b3"),
    "fig5": ("nano", "1b3"),
    "fig6": ("nano", "7b"),
    "fig7": ("nano", "7b"),
    "kl_and_group": ("nano", "7b"),
    "mixture": ("nano", "1b3", "7b"),
    "table1": ("nano", "1b3"),
    "table6": ("nano", "1b3"),
    "table7": ("nano", "1b3"),
    "table8": ("nano", "1b3", "7b"),
    "tools": ("nano", "7b"),
}
RL_ABLATIONS = ("fig5", "fig6", "fig7", "kl_and_group")
BASE_ABLATIONS = tuple(name for name in ABLATIONS if name not in (*RL_ABLATIONS, "tools"))


def _plan(name: str, preset: str) -> Iterable[sweep.Stage]:
    """What an ablation runs, from the tokenizer on."""
    config = _config(f"ablations.{name}", preset)
    config.parents.base.workdir = ""
    if "start" in config.parents:
        config.parents.start.workdir = str(ROOT / "tests")  # any folder: it is not looked into
    stages, _ = sweep.plan(config, pathlib.Path("/store"), _config)
    return stages.values()


def _stages(name: str, preset: str) -> list[tuple[str, str, dict]]:
    """Name and stage of each command of an ablation, and its config's values."""
    found = []
    for stage in _plan(name, preset):
        of = stage.command[2].removeprefix("experiments.")
        values = dict(arg.removeprefix("--config.").split("=", 1) for arg in stage.command[5:])
        values["workdir"] = str(stage.workdir)
        default = _config(of, stage.command[3].split(":", 1)[1])
        fields = {
            field: default[field] for field in default if not isinstance(default[field], ml_collections.ConfigDict)
        }
        found.append((stage.name, of, {field: str(value) for field, value in (fields | values).items()}))
    return found


def _rl_configs(name: str, preset: str, monkeypatch: pytest.MonkeyPatch) -> list[ml_collections.ConfigDict]:
    """The config of every RL run that an ablation plans, as its command reads it."""
    monkeypatch.chdir(ROOT)  # the commands name files from here
    found = []
    for stage in _plan(name, preset):
        if stage.command[2] == "experiments.rl":
            values = flags.FlagValues()
            config_flags.DEFINE_config_file("config", flag_values=values)
            flags.DEFINE_string("workdir", None, "", flag_values=values)
            monkeypatch.setattr("sys.argv", stage.command[2:])  # where the flag looks for the fields that change
            values(stage.command[2:])
            found.append(values.config)
    return found


def test_every_ablation_is_known_here():
    files = (ROOT / "configs" / "ablations").glob("*.py")
    assert sorted(ABLATIONS) == sorted(file.stem for file in files if file.stem != "__init__")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_opens_with_its_command_and_names_its_presets(name):
    text = (ROOT / "configs" / "ablations" / f"{name}.py").read_text(encoding="utf-8")
    assert f"python -m experiments.sweep --config=configs/ablations/{name}.py:nano" in text.split('"""')[1]
    assert _config(f"ablations.{name}").to_json() == _config(f"ablations.{name}", "nano").to_json()
    with pytest.raises(ValueError, match=r"'huge' is none of nano"):
        _config(f"ablations.{name}", "huge")
    fields = [sorted(_config(f"ablations.{name}", preset).keys()) for preset in ABLATIONS[name]]
    assert fields[0] == fields[1]


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in RL_ABLATIONS for preset in ABLATIONS[name]])
def test_every_ablation_has_a_plan_of_three_seeds_or_more(name, preset):
    config = _config(f"ablations.{name}", preset)
    assert len(config.seeds) >= 3
    names = [stage for _, stage, _ in _stages(name, preset)]
    assert names[:4] == ["mine", "tokenizer", "pretrain", "sft"]
    assert names.count("rl") == len(config.seeds) * len([run for run in config.runs if run["stage"] == "rl"])


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in ("fig5", "fig6") for preset in ABLATIONS[name]]
)
def test_the_lines_of_a_figure_differ_in_the_method_alone(name, preset):
    """They begin with one model, see equally many questions and samples, and are evaluated in one way."""
    stages = _stages(name, preset)
    runs = [values for _, stage, values in stages if stage == "rl"]
    same = ("init_from", "problems", "num_problems", "num_steps", "num_groups", "group_size", "num_cpu_devices")
    assert len({tuple(values[field] for field in same) for values in runs}) == 1
    assert len({values["seed"] for values in runs}) == 3
    evaluations = [values for _, stage, values in stages if stage == "evaluate"]
    assert (
        len({tuple(sorted((values | {"init_from": "", "step": "", "workdir": ""}).items())) for values in evaluations})
        == 1
    )


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in ABLATIONS for preset in ABLATIONS[name]])
def test_every_rl_run_of_an_ablation_passes_the_checks_of_its_start(name, preset, monkeypatch):
    configs = _rl_configs(name, preset, monkeypatch)
    assert bool(configs) == (name in RL_ABLATIONS)
    for config in configs:
        paradigm.check(config)
        paradigm.check_reward_model(config)
        paradigm.check_prompts(config, 2048)  # tokens for which the presets leave room


def test_figure_5_compares_the_papers_methods():
    runs = {name: values for name, stage, values in _stages("fig5", "1b3") if stage == "rl"}
    methods = {
        name.split(", seed")[0]: (values["source"], values["reward"], values["coefficient"])
        for name, values in runs.items()
    }
    assert methods == {
        "RFT": ("sft_model", "rule", "rft"),
        "Online RFT": ("policy", "rule", "rft"),
        "GRPO+OS": ("policy", "outcome_model", "grpo"),
        "GRPO+PS": ("policy", "process_model", "grpo"),
    }


def test_figure_7_samples_as_the_paper():
    values = next(values for _, stage, values in _stages("fig7", "7b") if stage == "evaluate")
    assert (values["num_samples"], values["temperature"]) == ("64", "0.7")


@pytest.mark.parametrize(("name", "preset"), [(name, preset) for name in BASE_ABLATIONS for preset in ABLATIONS[name]])
def test_an_ablation_of_base_models_trains_judges_and_tells_each(name, preset):
    config = _config(f"ablations.{name}", preset)
    stages = _stages(name, preset)
    judged = {run["label"] for run in config.runs if run.get("judged", True)}
    names = [stage for _, stage, _ in stages]
    assert len(config.seeds) == (3 if preset == "nano" else 1)
    assert names.count(config.evaluation.stage) == len(judged) * len(config.seeds)
    assert set(config.figure.metrics) <= set(config.metrics)
    if name != "table7" and preset == "nano":  # a chat model of each
        assert names.count("sft") == names.count("evaluate")
    if preset != "nano":
        assert set(names) == {"pretrain", "evaluate"}
        asked = next(values for _, stage, values in stages if stage == "evaluate")
        assert all(repr(metric.split("-")[0]) in asked["benchmarks"] for metric in config.metrics)
        assert all(repr(metric.split("-")[1].split(".")[0]) in asked["modes"] for metric in config.metrics)


def test_table_1_compares_the_papers_corpora_on_150_b_tokens_each():
    runs = [values for _, stage, values in _stages("table1", "1b3") if stage == "pretrain"]
    assert len(runs) == 4
    assert [run["corpora"] for run in runs[:2]] == [
        "{'mathpile': 'data/mathpile'}",
        "{'open_web_math': 'data/open_web_math'}",
    ]
    assert {run["num_steps"] for run in runs} == {"37500"}  # times 4 M


def test_table_6_has_400_b_tokens_of_code_and_150_b_of_mathematics():
    runs = {
        name.removesuffix(", seed 0"): values for name, stage, values in _stages("table6", "1b3") if stage == "pretrain"
    }
    assert {name: run["num_steps"] for name, run in runs.items()} == {
        "General": "100000",
        "General, then mathematics": "37500",
        "Code": "100000",
        "Code, then mathematics": "37500",
        "Mathematics": "37500",
        "Code and mathematics mixed": "137500",
    }
    assert runs["Code, then mathematics"]["init_from"].startswith("/store/Code-seed-0")


def test_table_7_judges_the_models_of_table_6():
    for preset in ("nano", "1b3"):
        six, seven = (
            {values["workdir"] for _, stage, values in _stages(name, preset) if stage == "pretrain"}
            for name in ("table6", "table7")
        )
        assert {folder.rsplit("-", 1)[1] for folder in six} == {folder.rsplit("-", 1)[1] for folder in seven}


def test_kl_and_group_keep_the_outputs_of_a_step():
    for preset, outputs in (("nano", 512), ("7b", 1024)):
        runs = [values for _, stage, values in _stages("kl_and_group", preset) if stage == "rl"]
        assert {int(run["num_groups"]) * int(run["group_size"]) for run in runs} == {outputs}
        assert "0.04" in {run["beta"] for run in runs}
