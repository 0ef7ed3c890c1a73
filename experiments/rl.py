"""Reinforcement learning from a checkpoint, and what shares its form: SFT, RFT, online RFT, DPO, PPO, GRPO.

python -m experiments.rl --config=configs/rl.py:nano --workdir=runs/rl --config.init_from=runs/sft
"""

import contextlib
import dataclasses
import functools
import time
from typing import Any

import numpy as np

from dsmath.data import chat, problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.rl import exploration, loop, paradigm, replay
from dsmath.rl import state as run_state
from dsmath.rl.ahead import Ahead
from dsmath.rl.coefficients import EDGES
from dsmath.rl.critic import Critic
from dsmath.rl.explorer import Explorer
from dsmath.rl.journal import Journal
from dsmath.rl.judge import Judge
from dsmath.rl.policy import Policy
from dsmath.rl.state import RunState
from dsmath.rollout.requests import Tool
from dsmath.runs import driver, processes
from dsmath.runs.errors import InputError, Preempted
from dsmath.runs.metrics import MetricsWriter, read_metrics
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.sandbox.tool import open_tool
from dsmath.train.checkpoint import Checkpointer
from dsmath.train.state import abstract_like
from dsmath.train.watch import Watch


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Refuses what makes no sense, and learns; with a tool, jails for the programs stand by meanwhile."""
    paradigm.check(config)
    paradigm.check_reward_model(config)
    if config.tool.enabled and processes.count() > 1:
        raise InputError(
            "config.tool.enabled: a block that runs out of time in one process may end in another, so tools are for "
            "runs of one process; set it to False"
        )
    samples = config.tool.enabled and config.source != "sft_data"
    with open_tool(config.tool) if samples else contextlib.nullcontext() as tool:
        return learn(config, workdir, tool)


def learn(config: Any, workdir: Any, tool: Tool | None) -> dict[str, Any]:
    """Outputs from the source, their rewards, their gradient coefficients, an update; and again.

    Source: DeepSeekMath §5.2.1; §4.1.4, Algorithm 1 (GRPO).
    """
    named = {"init_from": config.init_from, "reward_model": config.reward_model}
    if config.coefficient == "ppo":
        named["ppo.critic_from"] = config.ppo.critic_from
    parents = {name: parent for name, parent in named.items() if parent}
    for name, parent in parents.items():
        require_finished(parent, f"config.{name}")
    if config.lag and processes.count() > 1:
        raise InputError("config.lag: rollout and update run side by side in one process only; set it to 0")
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)

    # Questions
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")
    kinds = ("tir",) if config.tool.enabled and config.source == "sft_data" else ("cot",)
    records = problems.load(config.problems, "train", count=config.num_problems, seed=config.seed, kinds=kinds)
    if config.tool.enabled:  # the prompt asks for programs
        records = [dataclasses.replace(record, kind="tir") for record in records]
    if config.source == "sft_data":
        records = exploration.keep_fitting(records, tokenizer, config.decoding.max_new_tokens)
    prompts = [chat.encode_prompt(record, tokenizer) for record in records]

    # The policy with its parent, who rewards, PPO's critic, and who explores
    policy = Policy(config, mesh, tokenizer, max(map(len, prompts)), tool)
    judge = Judge(config, mesh, tokenizer)
    critic = Critic(config, mesh, tokenizer) if config.coefficient == "ppo" else None
    explorer = Explorer(config, mesh, policy, judge, records, prompts, tokenizer)
    write_lineage(workdir, parents=parents, data=problems.files(config.problems, "train"))
    if processes.is_main():
        tokenizer.save(workdir)

    with Checkpointer(
        workdir,
        policy.config,
        save_every=config.save_every * config.updates_per_rollout,
        keep_last=config.keep_last,
        keep_best=config.keep_best,
        merge=policy.merge,
    ) as checkpointer:
        state, start, cursor = begin(checkpointer, config, policy, judge, critic)
        replay.go_back(workdir, start)
        journal = Journal(workdir, config, paradigm.make_objective(config), records, prompts, tokenizer, start)
        with (
            MetricsWriter(workdir, start) as writer,
            Progress(config.num_steps, "rl", "step", done=start) as progress,
            Watch(workdir, config.guards.hang_seconds, config.profile) as watch,
            Ahead(workdir, config.lag, explorer) as ahead,
        ):
            for step in range(start + 1, config.num_steps + 1):
                watch.begin(step)
                began = time.perf_counter()
                updated = (step - 1) * config.updates_per_rollout
                params, figures = policy.params(state.policy), {}

                # A new iteration: the policy becomes the reference, the reward model learns from what it saw
                if is_new_iteration(step, config):
                    if paradigm.uses_reference(config):
                        state = state.replace(reference=policy.freeze(params))
                        policy.forget_parent()
                    if judge.model:
                        length = config.num_steps // config.iterations
                        label = policy.make_labeller(params, judge.num_completions) if judge.needs_steps else None
                        golds = [record.answer for record in records]
                        learned, figures = replay.go_on(
                            judge.model,
                            workdir,
                            range(step - length, step),
                            prompts,
                            golds,
                            label,
                            config,
                            mesh,
                            tokenizer,
                        )
                        judge.replace_params(learned)
                        state = state.replace(reward_model=learned)
                        figures["reward_model_seconds"] = time.perf_counter() - began

                # Outputs and rewards; with a lag the next ones are sampled beside what follows
                stage = ahead.begin(step, params, cursor, updated)
                cursor = stage.cursor
                figures |= stage.figures | {"off_policy_depth": updated - stage.version}
                if step < config.num_steps:
                    ahead.go_on(functools.partial(policy.freeze, params), cursor, updated)
                if config.iterations > 1 and judge.model:
                    replay.keep(workdir, step, stage)

                # Reference and advantages
                since = time.perf_counter()
                batch, more = loop.make_step_batch(
                    stage, explorer.asked(stage), config, tokenizer.decode, tokenizer.pad_id
                )
                figures |= more
                if paradigm.uses_reference(config) or critic:
                    parts = loop.cut(batch, config.microbatch_tokens, mesh)
                    if paradigm.uses_reference(config):
                        reference = policy.parent if state.reference is None else state.reference
                        batch["ref_logprobs"] = policy.logprobs(reference, parts)
                    if critic:
                        values = critic.values(state.critic, parts)
                        arrays, more = loop.estimate_advantages(batch, stage, values, config)
                        batch, figures = batch | arrays, figures | more
                del params  # the update gives the state's memory away
                figures["reference_seconds"] += time.perf_counter() - since

                # Updates
                since = time.perf_counter()
                parts = loop.cut(batch, config.microbatch_tokens, mesh)
                for _ in range(config.updates_per_rollout):
                    learner, metrics = policy.update(state.policy, parts)
                    state = state.replace(policy=learner)
                    if critic:
                        learner, of_critic = critic.update(state.critic, parts)
                        state, metrics = state.replace(critic=learner), metrics | of_critic
                watch.end(step, metrics)
                finished, coefficients = loop.finish_metrics(metrics)
                figures |= finished | {"update_seconds": time.perf_counter() - since}
                # Bad steps: these raise, or the step was skipped
                policy.guard.must_go_back(step, state.policy, figures["loss"])
                figures["skipped"] = policy.guard.skipped(state.policy)
                if critic:
                    critic.guard.must_go_back(step, state.critic, figures["value_loss"])
                    figures["skipped"] += critic.guard.skipped(state.critic)

                # Records
                figures["learning_rate"] = float(policy.schedule(updated))
                figures["seconds"] = time.perf_counter() - began
                figures["tokens_per_second"] = figures.pop("tokens") / figures["seconds"]
                watch.log(step)
                writer.write(step, figures)
                writer.write_histogram(step, "gradient_coefficient", coefficients, EDGES)
                journal.keep(step, figures, stage, batch)
                last, pauses = step == config.num_steps, watch.preempted(step)
                if step % config.save_every == 0 or last or pauses:
                    ahead.save(step)
                    # The rewards of a source that never learns say nothing of the policy.
                    loss = -figures["reward"] if config.source == "policy" else figures["loss"]
                    run_state.save(checkpointer, state, {"step": step, "cursor": cursor}, loss)
                    ahead.forget({step, *(number // config.updates_per_rollout for number in checkpointer.steps)})
                progress.advance(1, **{name: figures[name] for name in ("reward", "loss", "kl") if name in figures})
                if pauses and not last:
                    raise Preempted(f"paused at step {step}; the same line resumes")

    if not processes.is_main():
        return {}
    written = read_metrics(workdir)
    tail = written[-max(1, len(written) // 10) :]  # one step is noise
    names = [name for name in ("reward", "accuracy", "loss", "kl") if name in tail[-1]]
    return {"steps": config.num_steps} | {name: float(np.mean([line[name] for line in tail])) for name in names}


def is_new_iteration(step: int, config: Any) -> bool:
    """Whether an iteration begins with this step, the first one aside."""
    return step > 1 and (step - 1) % (config.num_steps // config.iterations) == 0


def begin(
    checkpointer: Checkpointer, config: Any, policy: Policy, judge: Judge, critic: Critic | None
) -> tuple[RunState, int, int]:
    """The state that a run starts from or goes on with, the steps done, and the questions used up."""
    if checkpointer.latest_step is None:
        state, data = RunState(policy.start(), critic=critic and critic.start()), {"step": 0, "cursor": 0}
    else:
        # In the first iteration the reference and the reward model are the parents, which no checkpoint holds.
        changed = checkpointer.latest_step > config.num_steps // config.iterations * config.updates_per_rollout
        renewed = changed and paradigm.uses_reference(config)
        abstract = RunState(
            policy.abstract,
            reference=policy.abstract_frozen if renewed else None,
            critic=critic and critic.abstract,
            reward_model=abstract_like(judge.model.params) if changed and judge.model else None,
        )
        state, data = run_state.restore(checkpointer, abstract)
        if renewed:
            policy.forget_parent()
        if state.reward_model is not None:
            judge.replace_params(state.reward_model)
    policy.guard.begin(state.policy)
    if critic:
        critic.guard.begin(state.critic)
    return state, data["step"], data["cursor"]


if __name__ == "__main__":
    driver.main(
        "rl",
        run,
        free=("guards", "keep_last", "keep_best", "keep_samples", "warnings", "profile"),
        many_processes=True,
    )
