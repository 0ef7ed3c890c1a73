"""The peer's side of train_step.py and rollout.py; started by them with the Python of the peers' environment.

It reads JSON lines from standard input, first the job, then requests, and answers each with one line.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np
import torch
import transformers
from torch.nn import functional

Request = Callable[[], dict[str, Any]]


def main() -> None:
    answers, job, arrays, model = start()
    requests = {"train": train, "rollout": rollout}[job["task"]](model, job, arrays)
    say(answers, ready(model))
    for line in sys.stdin:
        say(answers, requests[json.loads(line)["do"]]())


def start() -> tuple[TextIO, dict[str, Any], dict[str, torch.Tensor], transformers.LlamaForCausalLM]:
    """Where answers go, the job, its arrays, and a model with our weights."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the libraries print must not mix with the answers
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    with np.load(job["file"]) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    weights = {name.removeprefix("weights/"): arrays.pop(name) for name in list(arrays) if name.startswith("weights/")}
    config = transformers.LlamaConfig(**job["shape"], bos_token_id=None, eos_token_id=None, pad_token_id=None)
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(weights)
    return answers, job, arrays, model


def say(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


def ready(model: transformers.LlamaForCausalLM) -> dict[str, Any]:
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"versions": versions, "parameters": sum(parameter.numel() for parameter in model.parameters())}


def nats(model: transformers.LlamaForCausalLM, checked: torch.Tensor, length: int) -> dict[str, Any]:
    """Log-probabilities of what follows `length` tokens of each row."""
    with torch.inference_mode():
        logprobs = model(input_ids=checked, use_cache=False).logits.log_softmax(-1)[:, length - 1 : -1]
    return {"nats": logprobs.gather(-1, checked[:, length:, None])[..., 0].tolist()}


def train(
    model: transformers.LlamaForCausalLM, job: dict[str, Any], arrays: dict[str, torch.Tensor]
) -> dict[str, Request]:
    """Steps of AdamW over `tokens` and `targets`, [steps, batch, length] each."""
    tokens, targets = arrays["tokens"].long(), arrays["targets"].long()
    options = job["optimizer"]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=options["learning_rate"],
        betas=(options["b1"], options["b2"]),
        weight_decay=options["weight_decay"],
        fused=True,
    )

    def loss(step: int) -> torch.Tensor:
        logits = model(input_ids=tokens[step], use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1), targets[step].flatten())

    def run() -> dict[str, Any]:
        started, losses = time.perf_counter(), []
        for step in range(len(tokens)):
            optimizer.zero_grad()
            value = loss(step)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
            optimizer.step()
            losses.append(value.detach())
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": seconds, "losses": torch.stack(losses).tolist(), "peak_bytes": peak}

    def check() -> dict[str, Any]:
        with torch.inference_mode():
            return {"nats": -loss(0).item()}

    return {"run": run, "check": check}


def rollout(
    model: transformers.LlamaForCausalLM, job: dict[str, Any], arrays: dict[str, torch.Tensor]
) -> dict[str, Request]:
    """Samples of `prompts` [questions, length], which end with any of `stop_ids`.

    `checked` [rows, total] are prompts with their completions.
    """
    prompts, checked = arrays["prompts"].long(), arrays["checked"].long()
    length, group = prompts.shape[1], job["group_size"]
    stop_ids = torch.tensor(job["stop_ids"])
    model.eval()

    def run() -> dict[str, Any]:
        started, lengths, first = time.perf_counter(), [], []
        for chunk in prompts.split(job["batch_size"] // group):
            samples = model.generate(
                chunk,
                attention_mask=torch.ones_like(chunk),
                num_return_sequences=group,
                max_new_tokens=job["max_new_tokens"],
                do_sample=True,
                temperature=job["temperature"],
                top_k=0,
                top_p=job["top_p"],
                eos_token_id=job["stop_ids"],
                pad_token_id=0,
                use_cache=True,
            )[:, length:]
            ended = torch.isin(samples, stop_ids)
            ends = torch.where(ended.any(1), ended.int().argmax(1) + 1, samples.shape[1])
            lengths += ends.tolist()
            first += samples[:, 0].tolist()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "cpu_seconds": time.process_time(), "lengths": lengths, "first": first}

    return {"run": run, "check": lambda: nats(model, checked, length)}


if __name__ == "__main__":
    main()
