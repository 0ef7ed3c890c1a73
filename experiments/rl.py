"""Reinforcement learning from a checkpoint: GRPO with outcome supervision.

python -m experiments.rl --config=configs/rl.py:nano --workdir=runs/rl --config.init_from=runs/sft
"""

import functools
import time
from typing import Any

import jax
import numpy as np
from absl import logging

from dsmath.data import chat, problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import batch_sharding, check_batch, make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.reward.rules import answer_rewards
from dsmath.rl import advantages, loop
from dsmath.rollout.batches import make_batch
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.runs import driver, processes
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import Preempted
from dsmath.runs.metrics import MetricsWriter, read_metrics
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.train import lora
from dsmath.train.checkpoint import Checkpointer, read_model, read_params
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import (
    abstract_params,
    abstract_state,
    create_state,
    make_train_step,
    root_key,
    start_from,
)
from dsmath.train.watch import Watch

ROLLOUT = 1  # purpose of the random key


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """GRPO: sample groups from the policy, score them, take group-relative advantages, update.

    Source: DeepSeekMath §4.1, Algorithm 1.
    """
    check_positive(config, "updates_per_rollout", "group_size", "num_groups", "num_steps", "logits_chunk")
    check_positive(config, "save_every", "keep_last")
    require_finished(config.init_from, "config.init_from")
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)
    check_batch(config.num_groups, config.num_microbatches, mesh, "config.num_groups")

    # Questions
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")
    records = problems.load(config.problems, "train", count=config.num_problems, seed=config.seed)
    prompts = [chat.encode_prompt(record, tokenizer) for record in records]

    # Policy and reference, both from the parent
    model_config = read_model(config.init_from)
    model = Transformer(lora.frozen_config(model_config) if config.lora_rank else model_config)
    optimizer, _ = make_optimizer(config.optimizer, config.num_steps * config.updates_per_rollout)
    guard = Guard(config.guards, rollback=False)
    optimizer = guard.wrap(optimizer)
    abstract = abstract_state(model, optimizer, mesh, config.lora_rank)
    reference = read_params(config.init_from, abstract_params(model, mesh))
    merge = None
    if config.lora_rank:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, reference)
        merge = functools.partial(jax.jit(lora.merge, out_shardings=shardings), reference)
    decoding = Decoding(**config.decoding)
    limits = fit(
        model.config,
        mesh,
        **config.rollout,
        group_size=config.group_size,
        longest_prompt=max(map(len, prompts)),
        max_new_tokens=decoding.max_new_tokens,
    )
    engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id)
    logprobs = loop.make_logprobs(model, mesh, config.logits_chunk)
    loss_function = loop.grpo_loss(model, clip_eps=config.clip_eps, beta=config.beta, logits_chunk=config.logits_chunk)
    update = make_train_step(
        loss_function, optimizer, mesh, config.num_microbatches, frozen=reference if config.lora_rank else None
    )
    write_lineage(workdir, parents={"init_from": config.init_from}, data=problems.files(config.problems, "train"))
    if processes.is_main():
        tokenizer.save(workdir)

    with Checkpointer(
        workdir,
        model_config,
        save_every=config.save_every * config.updates_per_rollout,
        keep_last=config.keep_last,
        keep_best=config.keep_best,
        merge=merge,
    ) as checkpointer:
        if checkpointer.latest_step is not None:
            state, _ = checkpointer.restore(abstract)
        elif config.lora_rank:
            state = create_state(model, optimizer, mesh, config.seed, config.lora_rank)
        else:
            state = start_from(reference, model, optimizer, mesh, config.seed)
        guard.begin(state)
        start = int(state.step) // config.updates_per_rollout
        key = jax.random.fold_in(root_key(state), ROLLOUT)

        with (
            MetricsWriter(workdir, start) as writer,
            Progress(config.num_steps, "rl", "step", done=start) as progress,
            Watch(workdir, config.guards.hang_seconds, config.profile) as watch,
        ):
            for step in range(start + 1, config.num_steps + 1):
                # Exploration: G outputs for each question from the policy as it stands
                watch.begin(step)
                began = time.perf_counter()
                chosen = loop.choose_questions(
                    step - 1, num_questions=len(records), batch_size=config.num_groups, seed=config.seed
                )
                requests = [(step - 1) * config.num_groups + place for place in range(config.num_groups)]
                asked = [prompts[index] for index in chosen]
                policy = merge(state.params) if merge else state.params
                samples = engine.sample(
                    policy,
                    asked,
                    requests,
                    key,
                    decoding=decoding,
                    group_size=config.group_size,
                    stop_ids=(tokenizer.eos_id,),
                )
                rollout_seconds = time.perf_counter() - began

                # Rewards and advantages
                graded = None
                if processes.is_main():  # one grades for all: a limit of time may fall otherwise in another
                    golds = [records[index].answer for index in chosen]
                    scores = loop.score(samples, golds, tokenizer.decode, answer_rewards)
                    graded = [scores.rewards.tolist(), scores.figures]
                rewards, of_samples = processes.broadcast(graded)
                if of_samples["truncated"] > 0.5:
                    logging.log_first_n(
                        logging.WARNING,
                        "step %d: %.0f %% of the samples are cut at config.decoding.max_new_tokens=%d",
                        1,
                        step,
                        100 * of_samples["truncated"],
                        config.decoding.max_new_tokens,
                    )
                batch = make_batch(asked, samples, tokenizer.pad_id)
                batch["advantages"] = np.asarray(advantages.outcome(np.array(rewards, np.float32)))
                batch["rollout_logprobs"] = samples.logprobs
                batch = jax.device_put(batch, batch_sharding(mesh))  # every process has all of it
                batch["ref_logprobs"] = logprobs(reference, batch)
                if config.updates_per_rollout > 1:
                    batch["old_logprobs"] = logprobs(policy, batch)

                del policy  # the update gives the state's memory away

                # Updates
                for _ in range(config.updates_per_rollout):
                    state, metrics = update(state, batch)
                watch.end(step, metrics)
                figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
                guard.must_go_back(step, state, figures["loss"])  # it does not: it raises, or it has skipped
                figures["skipped"] = guard.skipped(state)
                seconds = {"seconds": time.perf_counter() - began, "rollout_seconds": rollout_seconds}
                watch.log(step)
                writer.write(step, of_samples | figures | seconds)
                last, pauses = step == config.num_steps, watch.preempted(step)
                if step % config.save_every == 0 or last or pauses:
                    checkpointer.save(state, {"step": step}, loss=-of_samples["reward"])
                progress.advance(1, reward=of_samples["reward"], kl=figures["kl"])
                if pauses and not last:
                    raise Preempted(f"paused at step {step}; the same line resumes")

    if not processes.is_main():
        return {}
    records_of_run = read_metrics(workdir)
    tail = records_of_run[-max(1, len(records_of_run) // 10) :]  # one step's reward is noise
    return {
        "steps": config.num_steps,
        "reward": float(np.mean([record["reward"] for record in tail])),
        "kl": tail[-1]["kl"],
    }


if __name__ == "__main__":
    driver.main("rl", run, free=("guards", "keep_last", "keep_best", "profile"), many_processes=True)
