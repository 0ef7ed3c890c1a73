"""TRL's side of grpo_step.py, its GRPOTrainer; started by it with the Python of the peers' environment.

The trainer runs its own loop; a step of it waits for a request, and its end is the answer.
"""

import json
import sys
import tempfile
import time
from importlib import metadata
from typing import Any, TextIO

import datasets
import tokenizers
import torch
import transformers
import trl
from llama_peer import nats, ready, say, start

_MANY = 10_000  # steps, more than are asked for


class Turns(transformers.TrainerCallback):
    """Times steps, from the batch's prompts to the optimizer's end, when they are asked for."""

    def __init__(self, answers: TextIO):
        self.answers, self.asked, self.drawn = answers, True, {}  # the first request has been read

    def on_step_begin(self, *_, **__) -> None:
        if not self.asked and not sys.stdin.readline():
            sys.exit(0)
        self.asked = False
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__) -> None:
        seconds = time.perf_counter() - self.started
        say(self.answers, {"seconds": seconds, "cpu_seconds": time.process_time(), **self.drawn})

    def reward(self, completions: list[str], completion_ids: list[list[int]], **_) -> list[float]:
        rewards = [float(int(text.split()[0]) % 2 == 0) if text else 0.0 for text in completions]
        self.drawn = {"lengths": [len(ids) for ids in completion_ids], "reward": sum(rewards) / len(rewards)}
        return rewards


def main() -> None:
    answers, job, arrays, model = start()
    prompts, checked = arrays["prompts"], arrays["checked"].long()
    found = ready(model)
    say(answers, found | {"versions": found["versions"] | {"trl": metadata.version("trl")}})
    while json.loads(sys.stdin.readline())["do"] == "check":
        say(answers, nats(model, checked, prompts.shape[1]))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # the reference is read from where the policy was
        turns = Turns(answers)
        make_trainer(folder, job, prompts.tolist(), turns).train()


def make_trainer(folder: str, job: dict[str, Any], prompts: list[list[int]], turns: Turns) -> trl.GRPOTrainer:
    """A trainer whose steps sample all prompts; texts are token ids with blanks between."""
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({str(token): token for token in range(job["shape"]["vocab_size"])}, unk_token="0")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    ends = [str(job["stop_ids"][0])] * 2
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=ends[0], eos_token=ends[1], padding_side="left"
    )
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = job["stop_ids"]
    optimizer, samples = job["optimizer"], len(prompts) * job["group_size"]
    args = trl.GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        max_steps=_MANY,
        per_device_train_batch_size=job["microbatch_size"],
        gradient_accumulation_steps=samples // job["microbatch_size"],
        num_generations=job["group_size"],
        max_completion_length=job["max_new_tokens"],
        temperature=job["temperature"],
        top_p=job["top_p"],
        top_k=0,
        loss_type="grpo",
        beta=job["beta"],
        epsilon=job["clip_eps"],
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        learning_rate=optimizer["learning_rate"],
        adam_beta1=optimizer["b1"],
        adam_beta2=optimizer["b2"],
        weight_decay=optimizer["weight_decay"],
        max_grad_norm=optimizer["clip_norm"],
    )
    return trl.GRPOTrainer(
        model=model,
        reward_funcs=turns.reward,
        args=args,
        train_dataset=datasets.Dataset.from_list([{"prompt": " ".join(map(str, prompt))} for prompt in prompts]),
        processing_class=tokenizer,
        callbacks=[turns],
    )


if __name__ == "__main__":
    main()
