"""The phases of a step, in the order of Algorithm 1; the driver strings them together.

Source: DeepSeekMath §4.1.4, Algorithm 1.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Sequence

import ml_collections
import numpy as np
from jax.sharding import Mesh

from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.rl import loop, paradigm, replay
from dsmath.rl.ahead import Ahead
from dsmath.rl.critic import Critic
from dsmath.rl.exploration import Stage
from dsmath.rl.explorer import Explorer
from dsmath.rl.judge import Judge
from dsmath.rl.policy import Policy
from dsmath.rl.state import RunState


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run works with from its first step to its last.

    Attributes:
      config: of the stage.
      mesh: of the run.
      tokenizer: of the policy.
      records, prompts: all questions, and their token ids.
      policy, judge, explorer: who learns, who rewards, who asks the one and the other.
      critic: PPO's; None elsewhere.
    """

    config: ml_collections.ConfigDict
    mesh: Mesh
    tokenizer: Tokenizer
    records: Sequence[Solution]
    prompts: Sequence[Sequence[int]]
    policy: Policy
    judge: Judge
    explorer: Explorer
    critic: Critic | None

    def updates_before(self, step: int) -> int:
        """Updates that the policy has seen when a step begins."""
        return (step - 1) * self.config.updates_per_rollout


def is_new_iteration(step: int, config: ml_collections.ConfigDict) -> bool:
    """Whether an iteration begins with this step, the first one aside."""
    return step > 1 and (step - 1) % (config.num_steps // config.iterations) == 0


def renew(state: RunState, step: int, workdir: str | os.PathLike, setup: Setup) -> tuple[RunState, dict[str, float]]:
    """What a new iteration begins with: the policy becomes the reference, the reward model learns from what it saw.

    Args:
      state: of the run.
      step: the first one of the iteration.
      workdir: of the run; its history is read.
      setup: of the run.
    Returns:
      the state, and metrics of the reward model.
    Source: Algorithm 1: the reference model, and the reward model's continuous training.
    """
    began = time.perf_counter()
    config, judge, policy = setup.config, setup.judge, setup.policy
    params = policy.params(state.policy)
    if paradigm.uses_reference(config):
        state = state.replace(reference=policy.freeze(params))
        policy.forget_parent()
    if not judge.model:
        return state, {}
    learned, figures = replay.go_on(
        judge.model,
        workdir,
        range(step - config.num_steps // config.iterations, step),
        setup.prompts,
        [record.answer for record in setup.records],
        policy.make_labeller(params, judge.num_completions) if judge.needs_steps else None,
        config,
        setup.mesh,
        setup.tokenizer,
    )
    judge.replace_params(learned)
    return state.replace(reward_model=learned), figures | {"reward_model_seconds": time.perf_counter() - began}


def explore(state: RunState, step: int, cursor: int, ahead: Ahead, setup: Setup) -> tuple[Stage, dict[str, float]]:
    """Outputs for the next questions, and their rewards; with a lag those of the next step begin beside what follows.

    Args:
      state: of the run.
      step: its number.
      cursor: questions of the stream that are used up.
      ahead: gives the stages.
      setup: of the run.
    Source: Algorithm 1: a batch of questions, the old policy, G outputs each, rewards.
    """
    params, updated = setup.policy.params(state.policy), setup.updates_before(step)
    stage = ahead.begin(step, params, cursor, updated)
    if step < setup.config.num_steps:
        ahead.go_on(functools.partial(setup.policy.freeze, params), stage.cursor, updated)
    return stage, stage.figures | {"off_policy_depth": updated - stage.version}


def estimate(state: RunState, stage: Stage, setup: Setup) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The batch that a stage teaches: what the reference thinks of it, and advantages.

    Args:
      state: of the run.
      stage: what was explored.
      setup: of the run.
    Returns:
      the batch on the host, and metrics; `reference_seconds` are this phase's alone.
    Source: Algorithm 1: the advantages; §4.1.1, eq. 1 and 2 (PPO).
    """
    began = time.perf_counter()
    config, tokenizer, policy, critic = setup.config, setup.tokenizer, setup.policy, setup.critic
    asked = setup.explorer.asked(stage)
    batch, figures = loop.make_step_batch(stage, asked, config, tokenizer.decode, tokenizer.pad_id)
    if paradigm.uses_reference(config) or critic:
        parts = loop.cut(batch, config.microbatch_tokens, setup.mesh)
        if paradigm.uses_reference(config):
            reference = policy.parent if state.reference is None else state.reference
            batch["ref_logprobs"] = policy.logprobs(reference, parts)
        if critic:
            values = critic.values(state.critic, parts)
            arrays, more = loop.estimate_advantages(batch, stage, values, config)
            batch, figures = batch | arrays, figures | more
    return batch, figures | {"reference_seconds": time.perf_counter() - began}


def update(
    state: RunState, step: int, batch: dict[str, np.ndarray], setup: Setup
) -> tuple[RunState, dict[str, float], np.ndarray]:
    """The updates of a step; the memory of the old state's policy and critic is given away.

    Args:
      state: of the run.
      step: its number.
      batch: of `estimate`.
      setup: of the run.
    Returns:
      the state, metrics of the last update, and the gradient coefficients' histogram.
    Raises:
      InputError: a guard stops the run.
    Source: Algorithm 1: mu updates.
    """
    began = time.perf_counter()
    policy, critic = setup.policy, setup.critic
    parts = loop.cut(batch, setup.config.microbatch_tokens, setup.mesh)
    for _ in range(setup.config.updates_per_rollout):
        learner, metrics = policy.update(state.policy, parts)
        state = state.replace(policy=learner)
        if critic:
            learner, of_critic = critic.update(state.critic, parts)
            state, metrics = state.replace(critic=learner), metrics | of_critic
    figures, coefficients = loop.finish_metrics(metrics)
    figures["update_seconds"] = time.perf_counter() - began
    # Bad steps: these raise, or the step was skipped
    policy.guard.must_go_back(step, state.policy, figures["loss"])
    figures["skipped"] = skipped = policy.guard.skipped(state.policy)
    if critic:
        critic.guard.must_go_back(step, state.critic, figures["value_loss"])
        figures["skipped"] += critic.guard.skipped(state.critic)
    # Of the last update; a skipped one moves no schedule.
    updates = setup.updates_before(step) + setup.config.updates_per_rollout
    figures["learning_rate"] = float(policy.schedule(max(updates - 1 - skipped, 0)))
    return state, figures, coefficients
