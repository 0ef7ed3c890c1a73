"""The peer's side of train_gpu.py and rollout_gpu.py; started by them, with its job in the variable JOB.

It prints its figures as one line of JSON, last.
"""

import json
import os
import statistics
import time
from typing import Any

import torch
import transformers


def main() -> None:
    job = json.loads(os.environ["JOB"])
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    found = {"train": train, "rollout": rollout}[job["task"]](job)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"versions": versions, "device": device_name(), **found}))


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def make_model(job: dict[str, Any], dtype: torch.dtype) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(**job["shape"], bos_token_id=None, eos_token_id=None, pad_token_id=None)
    config._attn_implementation = "sdpa"
    with torch.device(device()):
        return transformers.LlamaForCausalLM(config).to(dtype)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Steps of AdamW on float32 weights, products in bfloat16; a step's rows in parts where they do not fit at once."""
    model = make_model(job, torch.float32)
    options = job["optimizer"]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=options["peak_learning_rate"],
        betas=(options["b1"], options["b2"]),
        weight_decay=options["weight_decay"],
        fused=True,
    )
    compiled = torch.compile(model, dynamic=False)
    tokens = torch.randint(job["shape"]["vocab_size"], (job["rows"], job["length"]), device=device())

    def step(part_rows: int) -> float:
        optimizer.zero_grad()
        parts, total = tokens.split(part_rows), 0.0
        for part in parts:
            # Each token is the next one's target; of a row of n that makes n - 1, as its users have it.
            with torch.autocast(device(), torch.bfloat16):
                loss = compiled(input_ids=part, labels=part, use_cache=False).loss / len(parts)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
        optimizer.step()
        return float(total)

    for part_rows in job["part_rows"]:
        try:
            started = time.perf_counter()
            losses = [step(part_rows)]
            first = time.perf_counter() - started
            break
        except torch.OutOfMemoryError:
            optimizer.zero_grad()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(job["warm_up"] - 1 + job["steps"]):
        wait()
        started = time.perf_counter()
        losses.append(step(part_rows))
        wait()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "seconds": seconds[job["warm_up"] - 1 :],
        "first_seconds": first,
        "losses": losses,
        "part_rows": part_rows,
        "peak_bytes": peak,
    }


def rollout(job: dict[str, Any]) -> dict[str, Any]:
    """Samples of as many questions as one batch holds, until they end or the seconds are over."""
    model = make_model(job, torch.bfloat16).eval()
    questions = job["batch_size"] // job["group_size"]
    vocab = job["shape"]["vocab_size"]
    prompts = torch.randint(max(job["stop_ids"]) + 1, vocab, (questions, job["prompt_tokens"]), device=device())
    stop_ids = torch.tensor(job["stop_ids"], device=device())

    def generate(new_tokens: int, seconds: float) -> tuple[torch.Tensor, float]:
        wait()
        started = time.perf_counter()
        samples = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            num_return_sequences=job["group_size"],
            max_new_tokens=new_tokens,
            max_time=seconds,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            eos_token_id=job["stop_ids"],
            pad_token_id=0,
            use_cache=True,
        )
        wait()
        return samples[:, prompts.shape[1] :], time.perf_counter() - started

    generate(8, 60.0)
    samples, seconds = generate(job["max_new_tokens"], job["seconds"])
    ended = torch.isin(samples, stop_ids)
    lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, samples.shape[1])
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "seconds": seconds,
        "steps": samples.shape[1],
        "samples": samples.shape[0],
        "tokens": int(lengths.sum()),
        "mean_length": statistics.mean(lengths.tolist()),
        "peak_bytes": peak,
    }


if __name__ == "__main__":
    main()
