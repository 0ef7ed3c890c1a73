"""The programs of a step of reinforcement learning, for every method."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh

from dsmath.model.config import ModelConfig
from dsmath.model.heads import ValueModel, headless
from dsmath.model.precision import cast_matrices
from dsmath.model.transformer import Transformer
from dsmath.plan import flops
from dsmath.plan.sampling import sampling
from dsmath.plan.work import Stage, Work, device_bytes, rows_of
from dsmath.rl import loop, paradigm
from dsmath.rollout.batches import PACKED, row_shape, size_of
from dsmath.rollout.samples import PREFIX_BUCKET
from dsmath.runs.errors import InputError
from dsmath.train import lora
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import (
    LossFunction,
    TrainState,
    abstract_params,
    abstract_state,
    make_accumulate,
    make_apply,
)


@dataclasses.dataclass(frozen=True)
class _MicroBatches:
    """How a step's groups are worked through, where every sample is as long as may be.

    Attributes:
      number: of micro-batches.
      groups: of each, on all devices.
      group_size: samples of a group.
      length: most tokens of a sample.
      rows: packed rows of a group and their width.
      prompt_length: padded.
    """

    number: int
    groups: int
    group_size: int
    length: int
    rows: tuple[int, int]
    prompt_length: int

    def arrays(self, mesh: Mesh, by_token: tuple[str, ...], by_sample: tuple[str, ...]) -> dict[str, Any]:
        """`make_batch`'s arrays and further float32 ones."""
        samples = rows_of(mesh, self.groups, self.group_size, self.length)
        numbers = rows_of(mesh, self.groups, self.group_size)
        return {
            **dict.fromkeys(PACKED, rows_of(mesh, self.groups, *self.rows)(jnp.int32)),
            **dict.fromkeys(("places", "completions"), samples(jnp.int32)),
            **dict.fromkeys(("mask", *by_token), samples(jnp.float32)),
            **dict.fromkeys(by_sample, numbers(jnp.float32)),
            "prompts": rows_of(mesh, self.groups, self.prompt_length)(jnp.int32),
            "prompt_lengths": rows_of(mesh, self.groups)(jnp.int32),
            "lengths": numbers(jnp.int32),
        }

    def forward(self, model: ModelConfig) -> flops.Forward:
        """Operations of a forward pass over one of them."""
        tokens = self.groups * self.group_size * self.length
        pairs = self.groups * flops.causal_pairs(self.prompt_length)
        within = self.length * self.prompt_length + flops.causal_pairs(self.length)
        pairs += self.groups * self.group_size * within
        return flops.forward(model, self.groups * self.prompt_length + tokens, tokens, pairs)


def reinforcement(
    config: ml_collections.ConfigDict, model_config: ModelConfig, mesh: Mesh, prompt_length: int
) -> Stage:
    """A step of `experiments.rl`.

    Raises:
      InputError: fields that make no sense, or do not go with the mesh.
    """
    paradigm.check(config)
    if prompt_length < 1:
        raise InputError(f"--prompt_length: {prompt_length} must be at least 1")
    values = ValueModel(headless(model_config))  # of a reward model and a critic: neither has adapters
    if config.lora_rank:
        model_config = lora.frozen_config(model_config)
    prompt_length = math.ceil(prompt_length / PREFIX_BUCKET) * PREFIX_BUCKET
    paradigm.check_prompts(config, prompt_length)
    model, micro = Transformer(model_config), _cut(config, mesh, prompt_length, paradigm.learned_samples(config))
    optimizer = _optimizer(config, config.optimizer.peak_learning_rate)
    state, whole = abstract_state(model, optimizer, mesh, config.lora_rank), abstract_params(model, mesh)
    frozen = cast_matrices(whole, model_config) if paradigm.uses_parent(config) else None
    batch = micro.arrays(mesh, *_arrays(config))
    works, beside = {}, {}
    renews = config.iterations > 1 and paradigm.uses_reference(config)
    if renews and (config.lora_rank or config.source == "sft_model"):
        beside["renewed reference"] = frozen  # the parent stays: it is the adapters' base, or the source

    # Adapters are merged into parameters for the rollout and the scores: a copy of all of them.
    merged = {"merged parameters": device_bytes(whole)} if config.lora_rank else {}
    if config.source != "sft_data":
        source = frozen if config.source == "sft_model" else whole
        for name, work in sampling(config, model, mesh, prompt_length, source).items():
            works[name] = dataclasses.replace(work, held={**work.held, **merged})
    logprobs, forward = loop.make_logprobs(model, mesh, config.logits_chunk), micro.forward(model_config)
    scored = [("score", whole, merged)] if paradigm.uses_old_logprobs(config) else []
    scored += [("reference", frozen, {})] if paradigm.uses_reference(config) else []
    for name, params, held in scored:
        lower = functools.partial(logprobs.lower, params, batch)
        works[name] = Work(lower, batch, forward, 1, times=micro.number, held=held)
    if config.reward in paradigm.LEARNED:
        reward_model = abstract_params(values, mesh)
        learns = config.iterations > 1  # between two of them
        beside["reward model"] = reward_model if learns else cast_matrices(reward_model, values.config)
        groups = _cut(config, mesh, prompt_length, config.group_size)  # a pair is chosen after all have been scored
        all_samples = groups.arrays(mesh, *_arrays(config))
        works["reward"] = _pass(values, beside["reward model"], all_samples, mesh, groups, "token")
    loss_function = loop.make_loss(model, paradigm.make_objective(config), config)
    base, passes = (whole, 2) if config.lora_rank else (None, 3)
    works |= _update("update", loss_function, state, batch, optimizer, mesh, micro, config, model_config, base, passes)
    if config.coefficient == "ppo":
        critic_optimizer = _optimizer(config, config.ppo.critic_learning_rate)
        critic = abstract_state(values, critic_optimizer, mesh)
        beside |= {"critic": critic.params, "critic's optimizer": critic.opt_state}
        works["value"] = _pass(values, critic.params, batch, mesh, micro, "before")
        loss_function = loop.make_value_loss(values, config)
        works |= _update(
            "critic update", loss_function, critic, batch, critic_optimizer, mesh, micro, config, values.config, None, 3
        )
    tokens = config.num_groups * config.group_size * config.decoding.max_new_tokens
    return Stage(state, works, tokens, frozen, beside)


def _cut(config: ml_collections.ConfigDict, mesh: Mesh, prompt_length: int, size: int) -> _MicroBatches:
    """As `dsmath.rollout.batches.split` cuts groups of `size` of the longest samples."""
    length = config.decoding.max_new_tokens
    rows, shards = row_shape(size, length), mesh.shape["data"] * mesh.shape["fsdp"]
    on_each = -(-config.num_groups // shards)
    fitting = on_each
    if config.microbatch_tokens:
        fitting = config.microbatch_tokens // (rows[0] * rows[1] + prompt_length)
    number = -(-on_each // fitting)
    groups = (
        shards * min(fitting, size_of(-(-on_each // number))) if config.microbatch_tokens else shards * size_of(on_each)
    )
    return _MicroBatches(number, groups, size, length, rows, prompt_length)


def _optimizer(config: ml_collections.ConfigDict, peak: float) -> optax.GradientTransformation:
    settings = config.optimizer.to_dict() | {"peak_learning_rate": peak}
    optimizer, _ = make_optimizer(settings, config.num_steps * config.updates_per_rollout)
    return Guard(config.guards, rollback=False).wrap(optimizer)


def _arrays(config: ml_collections.ConfigDict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a batch holds besides `make_batch`'s arrays: by token and by sample."""
    if config.coefficient in ("sft", "rft"):
        return (), ("weights", "counted")
    by_token = ["ref_logprobs"] * paradigm.uses_reference(config)
    if config.coefficient in ("ppo", "grpo"):
        by_token += ["rollout_logprobs", "advantages"] + ["old_logprobs"] * paradigm.uses_old_logprobs(config)
    if config.coefficient == "ppo":
        by_token += ["returns", "old_values"]
    return tuple(by_token), ()


def _pass(model: ValueModel, params: Any, batch: Mapping[str, Any], mesh: Mesh, micro: _MicroBatches, at: str) -> Work:
    values = loop.make_values(model, mesh, at)
    return Work(lambda: values.lower(params, batch), batch, micro.forward(model.config), 1, times=micro.number)


def _update(
    name: str,
    loss_function: LossFunction,
    state: TrainState,
    batch: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    micro: _MicroBatches,
    config: ml_collections.ConfigDict,
    model_config: ModelConfig,
    frozen: Any,
    passes: int,
) -> dict[str, Work]:
    """The gradients of a micro-batch, added to the sums of those before it, and the optimizer's update."""
    accumulate, apply = make_accumulate(loss_function, mesh, frozen), make_apply(optimizer, mesh)
    with jax.set_mesh(mesh):
        params = state.params if frozen is None else lora.join(frozen, state.params)
        loss, sums = jax.eval_shape(loss_function, params, batch)
    totals = (state.params, {"loss": loss, **sums})
    held = {"gradients": device_bytes(state.params)}
    times = config.updates_per_rollout
    return {
        name: Work(
            lambda: accumulate.lower(state.params, batch, state.params),
            batch,
            micro.forward(model_config),
            passes,
            times=times * micro.number,
            held=held,
        ),
        f"{name}: apply": Work(
            lambda: apply.lower(state, totals), (), flops.Forward(0.0, 0.0), 1, times=times, changes=state, held=held
        ),
    }
