"""What a decoder is: its shape, its numerics, how it is computed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dsmath.runs.errors import InputError

CHOICES = {  # how a model is computed
    "dtype": ("float32", "bfloat16"),
    "param_dtype": ("float32", "bfloat16"),
    "remat": ("none", "minimal", "dots", "full", "offload"),
    "attention": ("xla", "cudnn", "cudnn_documents", "splash"),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies of a model with a stretched context differ from the plain ones.

    Attributes:
      kind: "none"; "linear", positions divided by `factor`; "llama3", low frequencies divided and the middle blended.
      factor: how many times longer the context is.
      low_freq_factor, high_freq_factor: of "llama3": `original_length` over these are the wavelengths between which
        frequencies are blended.
      original_length: of "llama3": the context before it was stretched.
    Source: Chen et al. 2023 (linear); the Llama 3 release (llama3).
    """

    kind: str
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    @classmethod
    def create(cls, fields: Mapping[str, Any]) -> "RopeScaling":
        """Builds and checks it from a mapping, such as `config.model.rope_scaling`."""
        _check_names(cls, fields, "config.model.rope_scaling")
        scaling = cls(**fields)
        if scaling.kind not in ("none", "linear", "llama3"):
            raise InputError(f"config.model.rope_scaling.kind: {scaling.kind!r} is none of 'none', 'linear', 'llama3'")
        if scaling.factor <= 0 or scaling.original_length < 1:
            raise InputError(f"config.model.rope_scaling: factor {scaling.factor} and original_length must be positive")
        if not 0 < scaling.low_freq_factor < scaling.high_freq_factor:
            raise InputError("config.model.rope_scaling: low_freq_factor must be positive and below high_freq_factor")
        if scaling.kind == "llama3":
            return scaling
        # What the kind does not use must not tell two models apart.
        unused = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_length": 1}
        return dataclasses.replace(scaling, **unused, factor=1.0 if scaling.kind == "none" else scaling.factor)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the decoder; the values stand in `configs/`.

    Attributes:
      vocab_size, num_layers, width, num_heads, num_kv_heads, head_dim, mlp_width: the shape.
      norm_eps: epsilon of RMSNorm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: see `RopeScaling`.
      attention_bias: whether queries, keys and values have biases (Qwen2).
      tied: whether the output matrix is the embedding's.
      dtype: of the computation, "float32" or "bfloat16".
      param_dtype: of the parameters; float32 for training, bfloat16 for frozen ones.
      remat: what of a layer stays in memory for the backward pass: "none" (everything stays, but for attention's
        scores), "minimal" (every matrix product stays), "dots" (those with weights stay, and what "xla" attends to; a
        kernel's attention is computed again), "full" (the layer's input alone stays), "offload" (as full, and the
        inputs wait in the host's memory).
      attention: "xla", anywhere; "cudnn" on NVIDIA, "splash" on TPU. None keeps the scores for the backward pass; the
        last two never hold the whole matrix of them.
        "cudnn_documents" is cuDNN in half the time for rows of at most 16 documents, padding counted as one; with more
        the loss is no number.
    """

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling
    attention_bias: bool
    tied: bool
    dtype: str
    param_dtype: str
    remat: str
    attention: str

    @classmethod
    def create(cls, fields: Mapping[str, Any]) -> "ModelConfig":
        """Builds and checks a config from a mapping, such as `config.model` or a checkpoint's record."""
        _check_names(cls, fields, "config.model")
        config = cls(**{**fields, "rope_scaling": RopeScaling.create(fields["rope_scaling"])})
        for field in ("vocab_size", "num_layers", "width", "num_heads", "num_kv_heads", "head_dim", "mlp_width"):
            if fields[field] < 1:
                raise InputError(f"config.model.{field}: {fields[field]} must be at least 1")
        if config.num_heads % config.num_kv_heads:
            raise InputError(
                f"config.model.num_kv_heads: {config.num_kv_heads} does not divide num_heads {config.num_heads}"
            )
        if config.head_dim % 2:
            raise InputError(f"config.model.head_dim: {config.head_dim} must be even for rotary positions")
        for field, choices in CHOICES.items():
            if fields[field] not in choices:
                raise InputError(f"config.model.{field}: {fields[field]!r} is none of {', '.join(map(repr, choices))}")
        if config.is_cudnn and config.dtype == "float32":
            raise InputError(
                f"config.model.attention={config.attention!r} computes in bfloat16; set config.model.dtype or "
                "take 'xla'"
            )
        return config

    @property
    def is_cudnn(self) -> bool:
        """Whether attention runs on NVIDIA alone."""
        return self.attention.startswith("cudnn")

    def check_child_of(self, parent: "ModelConfig") -> None:
        """Refuses a model that would read a parent's parameters differently than the parent did.

        Raises:
          InputError: names the first field; how it is computed (dtype, remat, attention) may differ.
        """
        for field in dataclasses.fields(self):
            here, there = getattr(self, field.name), getattr(parent, field.name)
            if field.name not in CHOICES and here != there:
                raise InputError(
                    f"config.model.{field.name}: {here} here and {there} in config.init_from; give the parent's value"
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which `create` builds the same config."""
        return dataclasses.asdict(self)


def _check_names(cls: type, fields: Mapping[str, Any], where: str) -> None:
    known = {field.name for field in dataclasses.fields(cls)}
    if set(fields) != known:
        wrong = sorted(set(fields) ^ known)
        raise InputError(f"{where}: {wrong[0]!r} is {'unknown' if wrong[0] in fields else 'missing'}")
