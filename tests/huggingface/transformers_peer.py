"""The peer's side of test_transformers.py; started by it with the Python of the peers' environment.

`make FOLDER` writes a checkpoint of every kind with random weights, and what it computes; `read FOLDER` reads the
checkpoints that came back, computes the same again, and tokenizes `texts.json`.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers

BASE = {
    "vocab_size": 420,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "initializer_range": 0.2,  # large, so that every part counts
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CONFIGS = {
    "llama2": (transformers.LlamaConfig, BASE),
    "llama3": (
        transformers.LlamaConfig,
        BASE | {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3}},
    ),
    "deepseek": (
        transformers.LlamaConfig,
        BASE | {"rope_parameters": {"rope_type": "linear", "rope_theta": 100000.0, "factor": 4.0}},
    ),
    "qwen2": (transformers.Qwen2Config, BASE | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
}
LENGTH, PROMPT = 48, 9


def compute(model: transformers.PreTrainedModel) -> dict[str, np.ndarray]:
    """Logits of random tokens, of one pass and of one token after the other through the cache."""
    ids = torch.randint(BASE["vocab_size"], (2, LENGTH), generator=torch.Generator().manual_seed(1))
    model.eval()
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
        found = model(input_ids=ids[:, :PROMPT], use_cache=True)
        cached = [found.logits[:, -1]]
        for position in range(PROMPT, LENGTH):
            step = ids[:, position : position + 1]
            found = model(input_ids=step, past_key_values=found.past_key_values, use_cache=True)
            cached.append(found.logits[:, -1])
    return {"ids": ids.numpy(), "logits": logits.numpy(), "cached": torch.stack(cached, 1).numpy()}


def make(folder: pathlib.Path) -> None:
    for number, (kind, (config, fields)) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        model = transformers.AutoModelForCausalLM.from_config(config(**fields))
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # the library starts norms at one and biases at zero
                torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
        model.save_pretrained(folder / kind, max_shard_size="100KB")
        np.savez(folder / f"{kind}.npz", **compute(model))


def read(folder: pathlib.Path) -> None:
    texts = json.loads((folder / "texts.json").read_text())
    for kind in CONFIGS:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / f"{kind}-back")
        np.savez(folder / f"{kind}-back.npz", **compute(model))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / f"{kind}-back")
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        found = {
            "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
            "ids": ids,
            "texts": [tokenizer.decode(row) for row in ids],
            "framed": tokenizer.encode(texts[0]),
        }
        (folder / f"{kind}-tokens.json").write_text(json.dumps(found))


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](pathlib.Path(sys.argv[2]))
