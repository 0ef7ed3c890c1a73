"""TRL's side of test_trl.py; started by it with the Python of the peers' environment: `trl_peer.py FOLDER`.

It reads `arrays.npz` and `job.json` there and writes `found.npz`: what TRL's own trainers compute.
"""

import json
import pathlib
import sys
import types
from typing import Any

import datasets
import numpy as np
import tokenizers
import torch
import transformers
import trl

GROUP_SIZE = 4


class Table(torch.nn.Module):
    """Stands where a trainer asks a model: log-probabilities and entropies that are parameters themselves."""

    def __init__(self, logprobs: np.ndarray, entropies: np.ndarray):
        super().__init__()
        self.logprobs = torch.nn.Parameter(torch.from_numpy(logprobs))
        self.entropies = torch.nn.Parameter(torch.from_numpy(entropies))

    def forward(self, **_) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            log_probs=self.logprobs,
            entropy=self.entropies,
            mean_logits=torch.zeros_like(self.logprobs),
            is_top1=torch.zeros_like(self.logprobs, dtype=torch.bool),
        )


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    make_models(folder, job["shape"], arrays)
    found = {}
    for name, options in job["grpo"].items():
        found |= {f"{name}/{key}": value for key, value in grpo_of_arrays(folder, arrays, options).items()}
    for name, options in job["steps"].items():
        found |= {f"{name}/{key}": value for key, value in grpo_of_samples(folder, job, arrays, options).items()}
    for name, options in job["dpo"].items():
        found |= {f"{name}/{key}": value for key, value in dpo_of_arrays(folder, arrays, options).items()}
    defaults = trl.GRPOConfig(output_dir=str(folder), use_cpu=True, bf16=False)
    found["default_beta"], found["default_loss_type"] = defaults.beta, defaults.loss_type
    found["default_unbiased_kl"] = defaults.use_bias_correction_kl
    np.savez(folder / "found.npz", **found)


def make_models(folder: pathlib.Path, shape: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Checkpoints of policy and reference, which the trainers read."""
    for kind in ("policy", "reference"):
        config = transformers.LlamaConfig(**shape, bos_token_id=None, eos_token_id=1, pad_token_id=0)
        model = transformers.LlamaForCausalLM(config)
        weights = {name.removeprefix(kind + "/"): arrays.pop(name) for name in list(arrays) if kind + "/" in name}
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        model.save_pretrained(folder / kind)
    words = tokenizers.models.WordLevel({str(token): token for token in range(shape["vocab_size"])}, unk_token="0")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), pad_token="0", eos_token="1"
    )
    tokenizer.save_pretrained(folder / "policy")


def read(folder: pathlib.Path, kind: str) -> transformers.LlamaForCausalLM:
    return transformers.LlamaForCausalLM.from_pretrained(folder / kind, dtype=torch.float32)


def make_grpo(folder: pathlib.Path, options: dict[str, Any], **parts) -> trl.GRPOTrainer:
    args = trl.GRPOConfig(
        output_dir=str(folder / "run"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=8,
        num_generations=GROUP_SIZE,
        **options,
    )
    trainer = trl.GRPOTrainer(
        model=read(folder, "policy"),
        args=args,
        train_dataset=datasets.Dataset.from_list([{"prompt": "2"}] * 8),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "policy"),
        **{"reward_funcs": lambda completions, **_: [0.0] * len(completions), **parts},
    )
    if trainer.ref_model is not None:  # it starts as the policy
        trainer.ref_model.load_state_dict(read(folder, "reference").state_dict())
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # the training loop would set it
    return trainer


def correct_the_sampler(trainer: trl.GRPOTrainer) -> None:
    """Turns on what TRL does about its sampler's numbers, without the sampler, vLLM."""
    trainer.use_vllm, trainer._last_loaded_step = True, trainer.state.global_step


def grpo_of_arrays(folder: pathlib.Path, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
    """The loss of `GRPOTrainer`, and its gradients by log-probabilities and entropies, both [outputs, length]."""
    options = dict(options)
    old, corrects = options.pop("old", True), options.pop("corrects", False)
    trainer = make_grpo(folder, options)
    if corrects:
        correct_the_sampler(trainer)
    table = Table(arrays["logprobs"], arrays["entropies"])
    mask = torch.from_numpy(arrays["mask"])
    ids = torch.ones(mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :2],
        "prompt_mask": ids[:, :2],
        "completion_ids": ids,
        "completion_mask": torch.from_numpy(arrays["completion_mask"]),
        "tool_mask": torch.from_numpy(arrays["tool_mask"]),
        "advantages": torch.from_numpy(arrays["advantages"]),
        "ref_per_token_logps": torch.from_numpy(arrays["ref_logprobs"]),
        "importance_sampling_ratio": torch.from_numpy(arrays["correction"]),
        "num_items_in_batch": mask.sum(),
    }
    if old:
        inputs["old_per_token_logps"] = torch.from_numpy(arrays["old_logprobs"])
    loss = trainer._compute_loss(table, inputs)
    loss.backward()
    found = {"loss": loss.item(), "gradient": table.logprobs.grad.numpy()}
    if table.entropies.grad is not None:
        found["entropy_gradient"] = table.entropies.grad.numpy()
    return found | {name: trainer._metrics["train"][name][-1] for name in ("kl", "clip_ratio/region_mean")}


def grpo_of_samples(
    folder: pathlib.Path, job: dict[str, Any], arrays: dict[str, np.ndarray], options: dict[str, Any]
) -> dict[str, Any]:
    """A step of `GRPOTrainer` on given samples: advantages, reference, correction, loss, gradients of parameters."""
    options = dict(options)
    corrects = options.pop("corrects", False)
    trainer = make_grpo(
        folder,
        options,
        rollout_func=lambda prompts, trainer: {
            "prompt_ids": [prompt for prompt in job["prompts"] for _ in range(GROUP_SIZE)],
            "completion_ids": job["completions"],
            "logprobs": job["sampler_logprobs"],
            "env_mask": job["chosen_tokens"],
        },
        reward_funcs=lambda completions, **_: arrays["rewards"].ravel().tolist(),
    )
    if corrects:
        correct_the_sampler(trainer)
    inputs = trainer._generate_and_score_completions([{"prompt": "2"}] * len(job["completions"]))
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    found = {"loss": loss.item(), "advantages": inputs["advantages"].numpy()}
    for key in ("ref_per_token_logps", "importance_sampling_ratio"):
        if key in inputs:
            found[key] = inputs[key].numpy()
    return found | {f"gradient/{name}": leaf.grad.numpy() for name, leaf in trainer.model.named_parameters()}


def dpo_of_arrays(folder: pathlib.Path, arrays: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
    """The loss of `DPOTrainer` and its gradient; the first half of the outputs is preferred to the second."""
    args = trl.DPOConfig(
        output_dir=str(folder / "run"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        **options,
    )
    trainer = trl.DPOTrainer(
        model=read(folder, "policy"),
        ref_model=read(folder, "reference"),
        args=args,
        train_dataset=datasets.Dataset.from_list([{"prompt": "2", "chosen": "3", "rejected": "4"}]),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "policy"),
    )
    trainer.model.train()
    mask = arrays["completion_mask"]
    trainer.ref_model = Table(arrays["ref_logprobs"] * mask, arrays["entropies"])
    table = Table(arrays["logprobs"] * mask, arrays["entropies"])
    whole = torch.from_numpy(np.pad(mask, [(0, 0), (1, 0)]))  # a prompt of one token
    inputs = {"input_ids": torch.ones_like(whole), "attention_mask": torch.ones_like(whole), "completion_mask": whole}
    loss = trainer._compute_loss(table, inputs, return_outputs=False)
    loss.backward()
    metrics = trainer._metrics["train"]
    return {
        "loss": loss.item(),
        "gradient": table.logprobs.grad.numpy() * mask,
        "accuracy": metrics["rewards/accuracies"][-1],
        "margin": metrics["rewards/margins"][-1],
    }


if __name__ == "__main__":
    main()
