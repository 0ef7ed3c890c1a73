"""Reinforcement learning from a checkpoint, and what shares its form: SFT, RFT, online RFT, DPO, PPO, GRPO.

python -m experiments.rl --config=configs/rl.py:nano --workdir=runs/rl --config.init_from=runs/sft
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import numpy as np

from dsmath.data import chat, problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.reward import groups, models
from dsmath.rl import exploration, loop, paradigm, replay
from dsmath.rl import state as run_state
from dsmath.rl.ahead import Ahead
from dsmath.rl.coefficients import EDGES
from dsmath.rl.critic import Critic
from dsmath.rl.exploration import Stage
from dsmath.rl.journal import Journal
from dsmath.rl.judge import Judge
from dsmath.rl.policy import Policy
from dsmath.rl.state import RunState
from dsmath.rollout.batches import make_batch
from dsmath.runs import driver, processes
from dsmath.runs.errors import InputError, Preempted
from dsmath.runs.metrics import MetricsWriter, read_metrics
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import abstract_like, root_key
from dsmath.train.watch import Watch

ROLLOUT = 1  # purpose of the random key


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Outputs from the source, their rewards, their gradient coefficients, an update; and again.

    Source: DeepSeekMath §5.2.1; §4.1.4, Algorithm 1 (GRPO).
    """
    paradigm.check(config)
    paradigm.check_reward_model(config)
    parents = {name: config[name] for name in ("init_from", "reward_model") if config[name]}
    for name, parent in parents.items():
        require_finished(parent, f"config.{name}")
    if config.lag and processes.count() > 1:
        raise InputError("config.lag: rollout and update run side by side in one process only; set it to 0")
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)

    # Questions
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")
    records = problems.load(config.problems, "train", count=config.num_problems, seed=config.seed)
    if config.source == "sft_data":
        records = exploration.keep_fitting(records, tokenizer, config.decoding.max_new_tokens)
    prompts = [chat.encode_prompt(record, tokenizer) for record in records]

    # The policy with its parent, who rewards, and PPO's critic
    policy = Policy(config, mesh, tokenizer, max(map(len, prompts)))
    judge = Judge(config, mesh, tokenizer)
    critic = Critic(config, mesh, tokenizer) if config.coefficient == "ppo" else None
    write_lineage(workdir, parents=parents, data=problems.files(config.problems, "train"))
    if processes.is_main():
        tokenizer.save(workdir)

    def explore(params: Any, cursor: int, version: int) -> Stage:
        """Outputs from the source, rewarded."""
        sampler = params if config.source == "policy" else policy.parent
        seconds = dict.fromkeys(("rollout_seconds", "reward_seconds"), 0.0)

        def sample(questions: np.ndarray, requests: np.ndarray) -> tuple:
            began = time.perf_counter()
            asked = [records[index] for index in questions]
            if config.source == "sft_data":
                return exploration.from_data(asked, tokenizer, config.decoding.max_new_tokens)
            samples = policy.sample(sampler, [prompts[index] for index in questions], requests, key)
            sampled = time.perf_counter()
            rewards = judge.reward(samples, [prompts[i] for i in questions], [record.answer for record in asked])
            seconds["rollout_seconds"] += sampled - began
            seconds["reward_seconds"] += time.perf_counter() - sampled
            return samples, rewards

        stage = exploration.explore(
            sample,
            cursor=cursor,
            num_groups=config.num_groups,
            num_questions=len(records),
            seed=config.seed,
            zero_variance=config.zero_variance,
            max_resamples=config.max_resamples,
            version=version,
        )
        if paradigm.uses_old_logprobs(config):
            batch = make_batch([prompts[index] for index in stage.questions], stage.samples, tokenizer.pad_id)
            old_logprobs = policy.logprobs(sampler, loop.cut(batch, config.microbatch_tokens, mesh))
            stage = dataclasses.replace(stage, old_logprobs=old_logprobs)
        return dataclasses.replace(stage, figures=stage.figures | seconds)

    def go_on_judging(step: int, params: Any) -> None:
        """The reward model learns from the iteration that ends with this step, with older samples among the new."""
        golds = [record.answer for record in records]
        ended = step // steps_per_iteration
        found = []
        for steps in (range(1, step - steps_per_iteration + 1), range(step - steps_per_iteration + 1, step + 1)):
            tables, asked = replay.read_steps(workdir, steps, prompts, golds)
            if judge.model.kind == models.PROCESS:
                tables = policy.label_steps(
                    params, tables, asked, judge.num_completions, jax.random.fold_in(key, ended)
                )
            found.append(
                [g for of_step in zip(tables, asked, strict=True) for g in groups.from_table(*of_step, judge.soft)]
            )
        older, new = found
        older += replay.read_training(config.reward_model, tokenizer)
        judge.replace_params(replay.go_on(judge.model, new, older, config, mesh, tokenizer.pad_id, ended))

    # The loop
    updates, steps_per_iteration = config.updates_per_rollout, config.num_steps // config.iterations
    with Checkpointer(
        workdir,
        policy.config,
        save_every=config.save_every * updates,
        keep_last=config.keep_last,
        keep_best=config.keep_best,
        merge=policy.merge,
    ) as checkpointer:
        if checkpointer.latest_step is None:
            state, start, cursor = RunState(policy.start(), critic=critic and critic.start()), 0, 0
        else:
            abstract = _abstract(config, policy, critic, judge, checkpointer.latest_step)
            state, data = run_state.restore(checkpointer, abstract)
            start, cursor = data["step"], data["cursor"]
            if state.reward_model is not None:
                judge.replace_params(state.reward_model)
        policy.guard.begin(state.policy)
        key = jax.random.fold_in(root_key(state.policy), ROLLOUT)
        replay.go_back(workdir, start)
        journal = Journal(workdir, config, paradigm.make_objective(config), records, prompts, tokenizer, start)

        with (
            MetricsWriter(workdir, start) as writer,
            Progress(config.num_steps, "rl", "step", done=start) as progress,
            Watch(workdir, config.guards.hang_seconds, config.profile) as watch,
            Ahead(workdir, config.lag, explore) as ahead,
        ):
            for step in range(start + 1, config.num_steps + 1):
                watch.begin(step)
                began = time.perf_counter()
                params = policy.params(state.policy)

                # A new iteration: the policy becomes the reference, the reward model learns from what it saw
                if step > 1 and (step - 1) % steps_per_iteration == 0:
                    state = state.replace(reference=run_state.copy(params))
                    if judge.model:
                        go_on_judging(step - 1, params)
                        state = state.replace(reward_model=judge.model.params)

                # Outputs and rewards; with a lag the next ones are sampled beside what follows
                stage = ahead.begin(step, params, cursor, version=(step - 1) * updates)
                cursor, figures = stage.cursor, dict(stage.figures)
                figures["off_policy_depth"] = (step - 1) * updates - stage.version
                if step < config.num_steps:
                    ahead.go_on(functools.partial(run_state.copy, params), cursor, version=(step - 1) * updates)

                if config.iterations > 1 and judge.model:
                    replay.keep(workdir, step, stage)

                # Reference and advantages
                since = time.perf_counter()
                asked = [prompts[index] for index in stage.questions]
                batch, more = loop.make_step_batch(stage, asked, config, tokenizer.decode, tokenizer.pad_id)
                figures |= more
                parts = loop.cut(batch, config.microbatch_tokens, mesh)
                if paradigm.uses_reference(config):
                    reference = policy.parent if state.reference is None else state.reference
                    batch["ref_logprobs"] = policy.logprobs(reference, parts)
                if critic:
                    values = critic.values(state.critic, parts)
                    arrays, more = loop.estimate_advantages(batch, stage, values, config)
                    batch, figures = batch | arrays, figures | more
                del params  # the update gives the state's memory away
                figures["reference_seconds"] = time.perf_counter() - since

                # Updates
                since = time.perf_counter()
                parts = loop.cut(batch, config.microbatch_tokens, mesh)
                for _ in range(updates):
                    learner, metrics = policy.update(state.policy, parts)
                    state = state.replace(policy=learner)
                    if critic:
                        learner, of_critic = critic.update(state.critic, parts)
                        state, metrics = state.replace(critic=learner), metrics | of_critic
                watch.end(step, metrics)
                metrics = jax.device_get(metrics)
                figures["update_seconds"] = time.perf_counter() - since
                coefficients = metrics.pop("gradient_coefficients")
                figures |= {name: float(value) for name, value in metrics.items()}
                policy.guard.must_go_back(step, state.policy, figures["loss"])  # it raises, or the step is skipped
                figures["skipped"] = policy.guard.skipped(state.policy)

                # Records
                figures["seconds"] = time.perf_counter() - began
                figures["tokens_per_second"] = float(stage.samples.lengths.sum()) / figures["seconds"]
                watch.log(step)
                writer.write(step, figures)
                writer.write_histogram(step, "gradient_coefficient", coefficients, EDGES)
                journal.keep(step, figures, stage, batch)
                last, pauses = step == config.num_steps, watch.preempted(step)
                if step % config.save_every == 0 or last or pauses:
                    ahead.save(step)
                    loss = -figures.get("reward", -figures["loss"])
                    run_state.save(checkpointer, state, {"step": step, "cursor": cursor}, loss)
                    ahead.forget({step, *(number // updates for number in checkpointer.steps)})
                progress.advance(1, **{name: figures[name] for name in ("reward", "loss", "kl") if name in figures})
                if pauses and not last:
                    raise Preempted(f"paused at step {step}; the same line resumes")

    if not processes.is_main():
        return {}
    written = read_metrics(workdir)
    tail = written[-max(1, len(written) // 10) :]  # one step is noise
    names = [name for name in ("reward", "accuracy", "loss", "kl") if name in tail[-1]]
    return {"steps": config.num_steps} | {name: float(np.mean([line[name] for line in tail])) for name in names}


def _abstract(config: Any, policy: Policy, critic: Critic | None, judge: Judge, updates_done: int) -> RunState:
    """Shapes and shardings of the state in a checkpoint."""
    changed = updates_done > config.num_steps // config.iterations * config.updates_per_rollout  # the first iteration
    return RunState(
        policy.abstract,
        reference=policy.abstract_params if changed else None,
        critic=critic and critic.abstract,
        reward_model=abstract_like(judge.model.params) if changed and judge.model else None,
    )


if __name__ == "__main__":
    driver.main(
        "rl", run, free=("guards", "keep_last", "keep_best", "keep_samples", "warnings", "profile"), many_processes=True
    )
