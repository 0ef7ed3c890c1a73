"""The programs of a step of each stage, lowered for shapes: nothing here makes an array."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from dsmath.model.config import ModelConfig
from dsmath.model.sharding import batch_sharding, check_batch
from dsmath.model.transformer import Transformer
from dsmath.plan import flops
from dsmath.plan.sampling import sampling
from dsmath.plan.work import Work, device_bytes
from dsmath.rl import loop
from dsmath.rollout.batches import PACKED, row_shape
from dsmath.rollout.samples import PREFIX_BUCKET
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.train import lora, supervised
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import TrainState, abstract_params, abstract_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a step of a stage is.

    Attributes:
      state: shapes and shardings of what it changes.
      frozen: of the parameters that stay: the reference's, the adapters' base, or nothing.
      works: its programs by what they are for.
      tokens: that a step learns from, or draws.
    """

    state: TrainState
    frozen: Any
    works: dict[str, Work]
    tokens: int


def for_cpu(model: ModelConfig) -> ModelConfig:
    """The same model for CPU devices: in float16, as wide as the bfloat16 that their compiler would widen."""
    narrow = {"bfloat16": "float16"}
    return dataclasses.replace(
        model, dtype=narrow.get(model.dtype, model.dtype), param_dtype=narrow.get(model.param_dtype, model.param_dtype)
    )


def make_stage(config: ml_collections.ConfigDict, model_config: ModelConfig, mesh: Mesh, prompt_length: int) -> Stage:
    """The stage of a config of `configs/{pretrain,sft,rl}.py`.

    Raises:
      InputError: another stage's config, or fields that do not go with the mesh.
    """
    if "group_size" in config and "clip_eps" in config:
        return _reinforcement(config, model_config, mesh, prompt_length)
    if "batch_size" in config and "logits_chunk" in config:
        return _supervised(config, model_config, mesh)
    raise InputError("--config: this is no config of pretraining, fine-tuning or reinforcement learning")


def _supervised(config: ml_collections.ConfigDict, model_config: ModelConfig, mesh: Mesh) -> Stage:
    supervised.check(config, mesh)
    optimizer, _ = make_optimizer(config.optimizer, config.num_steps)
    optimizer = Guard(config.guards).wrap(optimizer)
    model = Transformer(model_config)
    state = abstract_state(model, optimizer, mesh)
    loss_function = supervised.next_token_loss(model, config.logits_chunk)
    step = make_train_step(loss_function, optimizer, mesh, config.num_microbatches)
    rows = _rows(mesh, config.batch_size, config.length)
    batch = dict.fromkeys(("tokens", "targets", "positions", "segment_ids"), rows(jnp.int32))
    batch["loss_mask"] = rows(jnp.float32)
    tokens = config.batch_size * config.length
    forward = flops.forward(model_config, tokens, tokens, config.batch_size * flops.causal_pairs(config.length))
    kernels = 0.0 if model_config.attention == "xla" else forward.attention
    update = Work(lambda: step.lower(state, batch), batch, forward, 3, updates=True, kernels=kernels)
    return Stage(state, None, {"update": update}, tokens)


def _reinforcement(
    config: ml_collections.ConfigDict, model_config: ModelConfig, mesh: Mesh, prompt_length: int
) -> Stage:
    check_positive(config, "updates_per_rollout", "group_size", "num_groups", "num_steps", "logits_chunk")
    check_batch(config.num_groups, config.num_microbatches, mesh, "config.num_groups")
    if prompt_length < 1:
        raise InputError(f"--prompt_length: {prompt_length} must be at least 1")
    if config.lora_rank:
        model_config = lora.frozen_config(model_config)
    prompt_length = math.ceil(prompt_length / PREFIX_BUCKET) * PREFIX_BUCKET
    groups, size, length = config.num_groups, config.group_size, config.decoding.max_new_tokens
    model = Transformer(model_config)
    optimizer, _ = make_optimizer(config.optimizer, config.num_steps * config.updates_per_rollout)
    optimizer = Guard(config.guards, rollback=False).wrap(optimizer)
    state, whole = abstract_state(model, optimizer, mesh, config.lora_rank), abstract_params(model, mesh)
    logprobs = loop.make_logprobs(model, mesh, config.logits_chunk)
    loss_function = loop.grpo_loss(model, clip_eps=config.clip_eps, beta=config.beta, logits_chunk=config.logits_chunk)
    frozen = whole if config.lora_rank else None
    step = make_train_step(loss_function, optimizer, mesh, config.num_microbatches, frozen)

    samples = _rows(mesh, groups, size, length)
    packed = _rows(mesh, groups, *row_shape(size, length))  # at worst every sample is as long as may be
    outputs = dict.fromkeys(PACKED, packed(jnp.int32)) | {
        "prompts": _rows(mesh, groups, prompt_length)(jnp.int32),
        "prompt_lengths": _rows(mesh, groups)(jnp.int32),
        "lengths": _rows(mesh, groups, size)(jnp.int32),
        "places": samples(jnp.int32),
        "completions": samples(jnp.int32),
        "mask": samples(jnp.float32),
        "rollout_logprobs": samples(jnp.float32),
        "advantages": _rows(mesh, groups, size)(jnp.float32),
    }
    names = ["ref_logprobs"] + ["old_logprobs"] * (config.updates_per_rollout > 1)
    learned = outputs | dict.fromkeys(names, samples(jnp.float32))
    tokens = groups * size * length
    pairs = groups * flops.causal_pairs(prompt_length)
    pairs += groups * size * (length * prompt_length + flops.causal_pairs(length))
    forward = flops.forward(model_config, groups * prompt_length + tokens, tokens, pairs)
    # Adapters are merged into parameters for the rollout and the scores: a copy of all of them.
    merged = {"merged parameters": device_bytes(whole)} if config.lora_rank else {}
    works = {
        name: dataclasses.replace(work, held={**work.held, **merged})
        for name, work in sampling(config, model, mesh, prompt_length, whole).items()
    }
    scored = 1 + (config.updates_per_rollout > 1)  # by the reference, and by the policy that sampled
    works["score"] = Work(lambda: logprobs.lower(whole, outputs), outputs, forward, 1, times=scored, held=merged)
    works["update"] = Work(
        lambda: step.lower(state, learned),
        learned,
        forward,
        2 if config.lora_rank else 3,
        times=config.updates_per_rollout,
        updates=True,
    )
    return Stage(state, whole, works, tokens)


def _rows(mesh: Mesh, *shape: int) -> Callable[[Any], jax.ShapeDtypeStruct]:
    """dtype -> an array of this shape, its rows spread over the devices."""
    return lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))
