"""Hugging Face checkpoints of every kind that is read, made without transformers."""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from dsmath.data.tokenizer import BytePairTokenizer, Tokenizer

TEXTS = [
    "Anna has 12 apples and gets 7 more. 12+7=19\n",
    "小明有3盒苹果，每盒12个。\n",
    "  def f(x):\n\treturn x\n",
] * 5
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCAB_SIZE = 360  # some rows more than the tokenizer has ids
BASE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
KINDS = {
    "llama2": BASE,  # before rope_theta was written at all
    "llama3": BASE
    | {"num_key_value_heads": 2, "head_dim": 12, "rope_theta": 500000.0}
    | {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "deepseek": BASE | {"rope_theta": 100000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "qwen2": BASE
    | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_key_value_heads": 2}
    | {"tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": 32768}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
}


def random_tensors(fields: dict, dtype: np.dtype) -> dict[str, np.ndarray]:
    """The tensors that a model of these fields has, by the names that transformers gives them."""
    rng = np.random.default_rng(0)
    width, mlp = fields["hidden_size"], fields["intermediate_size"]
    head_dim = fields.get("head_dim", width // fields["num_attention_heads"])
    queries, keys = fields["num_attention_heads"] * head_dim, fields["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": (fields["vocab_size"], width), "model.norm.weight": (width,)}
    if not fields["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (fields["vocab_size"], width)
    for layer in range(fields["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        projections = {"q": (queries, width), "k": (keys, width), "v": (keys, width), "o": (width, queries)}
        for name, shape in projections.items():
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = shape
            if fields["model_type"] == "qwen2" and name != "o":
                shapes[f"{prefix}self_attn.{name}_proj.bias"] = shape[:1]
        for name, shape in {"gate": (mlp, width), "up": (mlp, width), "down": (width, mlp)}.items():
            shapes[f"{prefix}mlp.{name}_proj.weight"] = shape
        shapes[f"{prefix}input_layernorm.weight"] = shapes[f"{prefix}post_attention_layernorm.weight"] = (width,)
    return {
        name: (rng.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.2) + ("norm" in name)).astype(dtype)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, vocab_size=340)


@pytest.fixture(scope="session")
def byte_level() -> BytePairTokenizer:
    """A byte-level BPE as Qwen2's checkpoints have it: its own split of texts, no token to begin with."""
    library = tokenizers.Tokenizer(models.BPE())
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_QWEN2_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    library.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    library.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return BytePairTokenizer(
        {
            "tokenizer.json": library.to_str().encode(),
            "tokenizer_config.json": json.dumps(config).encode(),
            "generation_config.json": json.dumps(
                {"bos_token_id": library.token_to_id("<|endoftext|>"), "eos_token_id": [342, 340]}
            ).encode(),
        }
    )


@pytest.fixture
def make_checkpoint(tmp_path, tokenizer):
    """(kind, dtype, number of files, changes) -> the folder of a checkpoint, and its tensors.

    `fields` are put over those of config.json; `change` works on the dictionary of tensors.
    """

    def make(kind="llama2", dtype="float32", parts=1, fields=None, change=lambda tensors: None):
        folder = tmp_path / f"hf-{kind}-{dtype}"
        folder.mkdir()
        config = KINDS[kind] | (fields or {})
        tensors = random_tensors(config, np.dtype(getattr(ml_dtypes, dtype, dtype)))
        change(tensors)
        (folder / "config.json").write_text(json.dumps(config))
        write_tensors(folder, tensors, parts)
        tokenizer.save(folder)
        return folder, tensors

    return make


def write_tensors(folder: pathlib.Path, tensors: dict[str, np.ndarray], parts: int) -> None:
    """Spreads them over files, neighbours apart, so that every layer lies in several."""
    if parts == 1:
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        return
    weight_map = {name: f"model-{number % parts + 1}.safetensors" for number, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        safetensors.numpy.save_file(
            {name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture(scope="session")
def read_tensors():
    """(folder) -> the tensors of a checkpoint."""

    def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
        found = {}
        for file in folder.glob("*.safetensors"):
            found |= safetensors.numpy.load_file(file)
        return found

    return read
