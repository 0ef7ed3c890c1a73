"""Reinforcement learning from a checkpoint, and what shares its form: SFT, RFT, online RFT, DPO, PPO, GRPO.

python -m experiments.rl --config=configs/rl.py:nano --workdir=runs/rl --config.init_from=runs/sft
"""

import contextlib
import dataclasses
import time
from typing import Any

import numpy as np

from dsmath.data import chat, problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.rl import exploration, paradigm, phases, replay
from dsmath.rl import state as run_state
from dsmath.rl.ahead import Ahead
from dsmath.rl.coefficients import EDGES
from dsmath.rl.critic import Critic
from dsmath.rl.explorer import Explorer
from dsmath.rl.journal import Journal
from dsmath.rl.judge import Judge
from dsmath.rl.phases import Setup
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
    if config.lag and processes.count() > 1:
        raise InputError("config.lag: rollout and update run side by side in one process only; set it to 0")
    parents = find_parents(config)
    samples = config.tool.enabled and config.source != "sft_data"
    with open_tool(config.tool) if samples else contextlib.nullcontext() as tool:
        setup = set_up(config, tool)
        write_lineage(workdir, parents=parents, data=problems.files(config.problems, "train"))
        if processes.is_main():
            setup.tokenizer.save(workdir)
        learn(setup, workdir)
    return summarize(config, workdir) if processes.is_main() else {}


def find_parents(config: Any) -> dict[str, Any]:
    """The checkpoints that a run starts from, by their fields; all are finished."""
    named = {"init_from": config.init_from, "reward_model": config.reward_model}
    if config.coefficient == "ppo":
        named["ppo.critic_from"] = config.ppo.critic_from
    parents = {name: parent for name, parent in named.items() if parent}
    for name, parent in parents.items():
        require_finished(parent, f"config.{name}")
    return parents


def set_up(config: Any, tool: Tool | None) -> Setup:
    """The questions; the policy with its parent, who rewards, who explores, and PPO's critic."""
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")
    kinds = ("tir",) if config.tool.enabled and config.source == "sft_data" else ("cot",)
    records = problems.load(config.problems, "train", count=config.num_problems, seed=config.seed, kinds=kinds)
    if config.tool.enabled:  # the prompt asks for programs
        records = [dataclasses.replace(record, kind="tir") for record in records]
    if config.source == "sft_data":
        records = exploration.keep_fitting(records, tokenizer, config.decoding.max_new_tokens)
    prompts = [chat.encode_prompt(record, tokenizer) for record in records]

    policy = Policy(config, mesh, tokenizer, max(map(len, prompts)), tool)
    judge = Judge(config, mesh, tokenizer)
    if config.iterations > 1 and judge.needs_steps:
        policy.check_labeller(judge.num_completions)
    critic = Critic(config, mesh, tokenizer) if config.coefficient == "ppo" else None
    explorer = Explorer(config, mesh, policy, judge, records, prompts, tokenizer)
    return Setup(config, mesh, tokenizer, records, prompts, policy, judge, explorer, critic)


def learn(setup: Setup, workdir: Any) -> None:
    """Outputs from the source, their rewards, their gradient coefficients, an update; and again.

    Source: DeepSeekMath §5.2.1; §4.1.4, Algorithm 1 (GRPO).
    """
    config = setup.config
    with contextlib.ExitStack() as stack:
        checkpointer = stack.enter_context(
            Checkpointer(
                workdir,
                setup.policy.config,
                save_every=config.save_every * config.updates_per_rollout,
                keep_last=config.keep_last,
                keep_best=config.keep_best,
                merge=setup.policy.merge,
            )
        )
        state, start, cursor = begin(checkpointer, setup)
        replay.go_back(workdir, start)
        journal = Journal(
            workdir, config, paradigm.make_objective(config), setup.records, setup.prompts, setup.tokenizer, start
        )
        writer = stack.enter_context(MetricsWriter(workdir, start))
        progress = stack.enter_context(Progress(config.num_steps, "rl", "step", done=start))
        watch = stack.enter_context(Watch(workdir, config.guards.hang_seconds, config.profile))
        ahead = stack.enter_context(Ahead(workdir, config.lag, setup.explorer))

        for step in range(start + 1, config.num_steps + 1):
            watch.begin(step)
            began, figures = time.perf_counter(), {}
            if phases.is_new_iteration(step, config):
                state, figures = phases.renew(state, step, workdir, setup)
            stage, explored = phases.explore(state, step, cursor, ahead, setup)
            if config.iterations > 1 and setup.judge.model:
                replay.keep(workdir, step, stage)
            batch, estimated = phases.estimate(state, stage, setup)
            estimated["reference_seconds"] += explored["reference_seconds"]
            state, updated, coefficients = phases.update(state, step, batch, setup)
            watch.end(step, updated)
            figures |= explored | estimated | updated
            cursor = stage.cursor

            # Records
            figures["seconds"] = time.perf_counter() - began
            figures["tokens_per_second"] = figures.pop("tokens") / figures["seconds"]
            watch.log(step)
            writer.write(step, figures)
            writer.write_histogram(step, "gradient_coefficient", coefficients, EDGES)
            journal.keep(step, figures, stage, batch)
            last, pauses = step == config.num_steps, watch.preempted(step)
            if step % config.save_every == 0 or last or pauses:
                save(checkpointer, ahead, state, step, cursor, figures, config)
            progress.advance(1, **{name: figures[name] for name in ("reward", "loss", "kl") if name in figures})
            if pauses and not last:
                raise Preempted(f"paused at step {step}; the same line resumes")


def begin(checkpointer: Checkpointer, setup: Setup) -> tuple[RunState, int, int]:
    """The state that a run starts from or goes on with, the steps done, and the questions used up."""
    config, policy, judge, critic = setup.config, setup.policy, setup.judge, setup.critic
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


def save(
    checkpointer: Checkpointer,
    ahead: Ahead,
    state: RunState,
    step: int,
    cursor: int,
    figures: dict[str, float],
    config: Any,
) -> None:
    """A checkpoint, after what was sampled ahead of it."""
    ahead.save(step)
    # The rewards of a source that never learns say nothing of the policy.
    loss = -figures["reward"] if config.source == "policy" else figures["loss"]
    run_state.save(checkpointer, state, {"step": step, "cursor": cursor}, loss)
    ahead.forget({step, *(number // config.updates_per_rollout for number in checkpointer.steps)})


def summarize(config: Any, workdir: Any) -> dict[str, Any]:
    """The result: means over the last tenth of the steps."""
    written = read_metrics(workdir)
    tail = written[-max(1, len(written) // 10) :]  # one step is noise
    names = [name for name in ("reward", "accuracy", "loss", "kl") if name in tail[-1]]
    return {"steps": config.num_steps} | {name: float(np.mean([line[name] for line in tail])) for name in names}


if __name__ == "__main__":
    driver.main(
        "rl",
        run,
        free=("guards", "keep_last", "keep_best", "keep_samples", "warnings", "profile"),
        many_processes=True,
    )
