"""Their config.json and our config of a model: both spellings are read, and what we do not compute is refused."""

import json
import pathlib

import pytest

from configs.pretrain import get_config
from dsmath.huggingface import config as configs
from dsmath.model.config import ModelConfig
from dsmath.runs.errors import InputError

PATH = pathlib.Path("checkpoint/config.json")
NUMERICS = {"dtype": "float32", "param_dtype": "float32", "remat": "none", "attention": "xla"}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": False,
}  # DeepSeekMath 7B's
QWEN2 = LLAMA | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def _read(fields: dict):
    return configs.from_huggingface(fields, PATH, NUMERICS)


def test_deepseekmath_is_read_as_the_paper_says():
    config = _read(LLAMA)
    assert (config.num_layers, config.width, config.num_heads, config.head_dim) == (30, 4096, 32, 128)
    assert (config.vocab_size, config.mlp_width, config.norm_eps, config.rope_theta) == (102400, 11008, 1e-6, 1e4)
    assert (config.rope_scaling.kind, config.attention_bias, config.tied) == ("none", False, False)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_theta": 1e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope_theta": None, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}},
    ],
)
def test_every_spelling_of_a_stretched_context_is_read(fields):
    config = _read(LLAMA | fields)
    assert (config.rope_theta, config.rope_scaling.kind, config.rope_scaling.factor) == (1e5, "linear", 4.0)


def test_llama_3s_frequencies_are_read():
    scaling = _read(LLAMA | {"rope_scaling": {"rope_type": "llama3", **LLAMA3}}).rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_length) == ("llama3", 8.0, 8192)
    assert (scaling.low_freq_factor, scaling.high_freq_factor) == (1.0, 4.0)


def test_fields_that_old_files_lack_have_the_values_of_their_time():
    old = {name: LLAMA[name] for name in LLAMA if not name.startswith(("rope", "num_key", "attention", "tie"))}
    assert _read(old) == _read(LLAMA)


def test_the_preset_of_the_7b_goes_on_from_deepseeks_checkpoint():
    preset = get_config("7b").model
    ModelConfig.create({**preset, "vocab_size": 102400}).check_child_of(_read(LLAMA))
    stretched = _read(LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}})
    with pytest.raises(InputError, match=r"config\.model\.rope_scaling: "):
        ModelConfig.create({**preset, "vocab_size": 102400}).check_child_of(stretched)


@pytest.mark.parametrize(
    "fields",
    [
        LLAMA,
        QWEN2 | {"tie_word_embeddings": True, "num_key_value_heads": 4, "head_dim": 64},
        LLAMA | {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ],
)
def test_what_goes_out_comes_back_the_same(fields):
    config = _read(fields)
    theirs = json.loads(json.dumps(configs.to_huggingface(config, dtype="bfloat16", length=4096)))
    assert _read(theirs) == config
    assert theirs["architectures"] == fields["architectures"]
    assert (theirs["torch_dtype"], theirs["max_position_embeddings"]) == ("bfloat16", 4096)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, r"architectures is \['MixtralForCausalLM'\]: only Llama"),
        ({"architectures": None, "model_type": "gpt2"}, r"architectures is \[None\]"),
        ({"hidden_act": "gelu"}, r"hidden_act is 'gelu': only silu"),
        ({"mlp_bias": True}, r"mlp_bias is True"),
        ({"attention_bias": True}, r"attention_bias is True"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantization_config is \{'quant_method': 'gptq'\}"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, r"rope_scaling\.rope_type is 'dynamic': only default"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, r"rope_scaling\.rope_type is 'yarn'"),
        ({"rope_scaling": {"type": "linear"}}, r"rope_scaling\.factor is None: a number is needed"),
        ({"rope_parameters": {"rope_type": "longrope"}}, r"rope_parameters\.rope_type is 'longrope'"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, r"rope_parameters\.full_attention is"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types is 'sliding_attention'"),
        ({"hidden_size": None}, r"hidden_size is None: an integer is needed"),
    ],
)
def test_what_we_would_not_compute_the_same_is_refused_by_name(changes, named):
    with pytest.raises(InputError, match=rf"^checkpoint/config\.json: {named}") as caught:
        _read(LLAMA | changes)
    assert str(caught.value).endswith("; convert another checkpoint")


def test_a_sliding_window_is_refused_only_where_a_layer_uses_it():
    assert _read(QWEN2).attention_bias
    assert _read(QWEN2 | {"use_sliding_window": True, "max_window_layers": 30}) == _read(QWEN2)
    with pytest.raises(InputError, match=r"use_sliding_window is True: attention is full here"):
        _read(QWEN2 | {"use_sliding_window": True})
