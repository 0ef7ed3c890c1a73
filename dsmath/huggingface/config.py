"""Hugging Face's config.json and our `ModelConfig`; what we would not compute the same is refused."""

import pathlib
from collections.abc import Mapping
from typing import Any

from dsmath.model.config import ModelConfig
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json

FILE = "config.json"
# Architecture -> its model_type and whether its attention has biases on queries, keys and values.
_ARCHITECTURES = {"LlamaForCausalLM": ("llama", False), "Qwen2ForCausalLM": ("qwen2", True)}
# Field -> the value that we compute with; a field that is absent has it.
_FIXED = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
_ROPE_KINDS = {"default": "none", "linear": "linear", "llama3": "llama3"}  # theirs -> ours
_FULL_ATTENTION = "full_attention"


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The config.json of a checkpoint's folder.

    Raises:
      InputError: it is absent or damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"--from=hf:{folder}: no {path}; name the folder of a downloaded Hugging Face checkpoint")
    return read_json(path)


def from_huggingface(fields: Mapping[str, Any], path: pathlib.Path, numerics: Mapping[str, Any]) -> ModelConfig:
    """Our config of their model.

    Args:
      fields: of their config.json, in its older or newer spelling.
      path: of that file, for messages.
      numerics: our fields that theirs does not have: dtype, param_dtype, remat, attention.
    Raises:
      InputError: something that we would not compute the same; the message names the first such field.
    """
    architecture = _architecture(fields, path)
    bias = _ARCHITECTURES[architecture][1]
    fixed = _FIXED if bias else {**_FIXED, "attention_bias": False}  # Llama's attention_bias has one on o_proj too
    for field, wanted in fixed.items():
        if (found := fields.get(field, wanted)) != wanted:
            _refuse(path, field, found, f"only {wanted} is computed here")
    _check_attention_windows(fields, path)

    def number(field: str) -> int:
        if not isinstance(value := fields.get(field), int):
            _refuse(path, field, value, "an integer is needed")
        return value

    heads, width = number("num_attention_heads"), number("hidden_size")
    theta, scaling = _rope(fields, path)
    return ModelConfig.create(
        {
            "vocab_size": number("vocab_size"),
            "num_layers": number("num_hidden_layers"),
            "width": width,
            "num_heads": heads,
            "num_kv_heads": fields.get("num_key_value_heads") or heads,
            "head_dim": fields.get("head_dim") or width // heads,
            "mlp_width": number("intermediate_size"),
            "norm_eps": fields.get("rms_norm_eps", 1e-6),
            "rope_theta": theta,
            "rope_scaling": scaling,
            "attention_bias": bias,
            "tied": bool(fields.get("tie_word_embeddings", False)),
            **numerics,
        }
    )


def to_huggingface(config: ModelConfig, *, dtype: str, length: int) -> dict[str, Any]:
    """Their config.json of our model, in the older spelling, which every version reads.

    Args:
      config: of our model.
      dtype: of the weights in the files.
      length: tokens of the longest context.
    """
    architecture = next(name for name, (_, bias) in _ARCHITECTURES.items() if bias == config.attention_bias)
    scaling = config.rope_scaling
    theirs = None if scaling.kind == "none" else {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        theirs |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_length,
        }
    return {
        "architectures": [architecture],
        "model_type": _ARCHITECTURES[architecture][0],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": theirs,
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
    }


def _architecture(fields: Mapping[str, Any], path: pathlib.Path) -> str:
    known = {model_type: name for name, (model_type, _) in _ARCHITECTURES.items()}
    names = fields.get("architectures") or [known.get(fields.get("model_type"))]
    if len(names) != 1 or names[0] not in _ARCHITECTURES:
        _refuse(path, "architectures", names, f"only {' and '.join(_ARCHITECTURES)} are computed here")
    return names[0]


def _check_attention_windows(fields: Mapping[str, Any], path: pathlib.Path) -> None:
    """Refuses sliding windows that some layer uses."""
    for kind in fields.get("layer_types") or ():
        if kind != _FULL_ATTENTION:
            _refuse(path, "layer_types", kind, f"only {_FULL_ATTENTION} is computed here")
    # Qwen2 names a window that it uses only where use_sliding_window is set, and there only in its upper layers.
    used = fields.get("use_sliding_window") and fields.get("sliding_window")
    if used and fields.get("max_window_layers", 0) < fields.get("num_hidden_layers", 0):
        _refuse(path, "use_sliding_window", True, "attention is full here")


def _rope(fields: Mapping[str, Any], path: pathlib.Path) -> tuple[float, dict[str, Any]]:
    """The base of the rotary frequencies and our `rope_scaling`."""
    newer = fields.get("rope_parameters")
    name = "rope_parameters" if newer else "rope_scaling"
    theirs = newer or fields.get("rope_scaling") or {}
    for field, value in theirs.items():
        if isinstance(value, dict):
            _refuse(path, f"{name}.{field}", value, "all layers rotate alike here")
    kind = theirs.get("rope_type", theirs.get("type", "default"))
    if kind not in _ROPE_KINDS:
        _refuse(path, f"{name}.rope_type", kind, f"only {', '.join(_ROPE_KINDS)} are computed here")
    if theirs.get("partial_rotary_factor", 1.0) != 1.0:
        _refuse(path, f"{name}.partial_rotary_factor", theirs["partial_rotary_factor"], "only 1.0 is computed here")
    theta = float(theirs.get("rope_theta", fields.get("rope_theta", 10000.0)))

    def number(field: str) -> float:
        if not isinstance(theirs.get(field), int | float):
            _refuse(path, f"{name}.{field}", theirs.get(field), "a number is needed")
        return theirs[field]

    return theta, {
        "kind": _ROPE_KINDS[kind],
        "factor": 1.0 if kind == "default" else float(number("factor")),
        # Llama 3 alone uses the rest; the others take numbers that change nothing.
        "low_freq_factor": float(number("low_freq_factor")) if kind == "llama3" else 1.0,
        "high_freq_factor": float(number("high_freq_factor")) if kind == "llama3" else 4.0,
        "original_length": int(number("original_max_position_embeddings")) if kind == "llama3" else 1,
    }


def _refuse(path: pathlib.Path, field: str, found: Any, reason: str) -> None:
    raise InputError(f"{path}: {field} is {found!r}: {reason}; convert another checkpoint")
