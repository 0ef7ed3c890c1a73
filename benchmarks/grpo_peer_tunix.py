"""Tunix's side of grpo_step.py, its GRPO learner; started by it with the Python of Tunix's own environment.

The learner runs its own loop; it gets the prompts of a step when that is asked for, and asking for more is its end.
"""

import copy
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import jax
import numpy as np
import optax
from flax import nnx
from tunix.models.llama3 import model as llama
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout
from tunix_peer import Numbers, nats, ready, say, start


class Turns:
    """Times steps when they are asked for, from their prompts to the updated parameters."""

    def __init__(self, answers: TextIO):
        self.answers, self.drawn = answers, {}

    def batches(self, prompts: np.ndarray, cluster: rl_cluster.RLCluster) -> Iterator[dict[str, np.ndarray]]:
        while True:
            started = time.perf_counter()
            yield {"prompts": prompts}
            jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
            seconds = time.perf_counter() - started
            say(self.answers, {"seconds": seconds, "cpu_seconds": time.process_time(), **self.drawn})
            if not sys.stdin.readline():
                return

    def reward(self, prompts: list[str], completions: list[str], **_) -> list[float]:
        del prompts
        rewards = [float(int(text.split()[0]) % 2 == 0) if text else 0.0 for text in completions]
        lengths = [len(text.split()) for text in completions]  # without the stop id
        self.drawn = {"lengths": lengths, "reward": sum(rewards) / len(rewards)}
        return rewards


def main() -> None:
    answers, job, arrays, model = start()
    prompts = arrays["prompts"]
    say(answers, ready(model))
    while json.loads(sys.stdin.readline())["do"] == "check":
        say(answers, nats(model, arrays["checked"], prompts.shape[1]))
    turns = Turns(answers)
    learner = make_learner(model, job, prompts.shape, turns)
    texts = np.array([" ".join(map(str, prompt)) for prompt in prompts])
    learner.train(turns.batches(texts, learner.rl_cluster))


def make_learner(
    model: llama.Llama3, job: dict[str, Any], shape: tuple[int, int], turns: Turns
) -> grpo_learner.GRPOLearner:
    """A learner on one device; policy and rollout share their parameters."""
    questions, prompt_length = shape
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    options, micro = job["optimizer"], job["microbatch_size"] // job["group_size"]
    optimizer = optax.chain(
        optax.clip_by_global_norm(options["clip_norm"]),
        optax.adamw(options["learning_rate"], options["b1"], options["b2"], weight_decay=options["weight_decay"]),
    )
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    cluster = rl_cluster.RLCluster(
        actor=model,
        reference=copy.deepcopy(model),
        tokenizer=Numbers(),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=optimizer,
                eval_every_n_steps=1_000_000,
                max_steps=1_000_000,
                mini_batch_size=questions,
                train_micro_batch_size=micro,
                rollout_micro_batch_size=questions,
                compute_logps_micro_batch_size=questions,
            ),
            rollout_config=base_rollout.RolloutConfig(
                max_tokens_to_generate=job["max_new_tokens"],
                max_prompt_length=prompt_length,
                kv_cache_size=prompt_length + job["max_new_tokens"] + 1,
                temperature=job["temperature"],
                top_p=job["top_p"],
                eos_tokens=job["stop_ids"],
            ),
        ),
    )
    config = grpo_learner.GRPOConfig(
        num_generations=job["group_size"], num_iterations=1, beta=job["beta"], epsilon=job["clip_eps"]
    )
    return grpo_learner.GRPOLearner(rl_cluster=cluster, algo_config=config, reward_fns=turns.reward)


if __name__ == "__main__":
    main()
