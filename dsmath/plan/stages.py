"""The programs of a step of each stage, lowered for shapes: nothing here makes an array."""

import dataclasses

import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from dsmath.model.config import ModelConfig
from dsmath.model.transformer import Transformer
from dsmath.plan import flops
from dsmath.plan.reinforcement import reinforcement
from dsmath.plan.work import Stage, Work, rows_of
from dsmath.runs.errors import InputError
from dsmath.train import supervised
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import abstract_state, make_train_step


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
        return reinforcement(config, model_config, mesh, prompt_length)
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
    rows = rows_of(mesh, config.batch_size, config.length)
    batch = dict.fromkeys(("tokens", "targets", "positions", "segment_ids"), rows(jnp.int32))
    batch["loss_mask"] = rows(jnp.float32)
    tokens = config.batch_size * config.length
    forward = flops.forward(model_config, tokens, tokens, config.batch_size * flops.causal_pairs(config.length))
    kernels = 0.0 if model_config.attention == "xla" else forward.attention
    update = Work(lambda: step.lower(state, batch), batch, forward, 3, changes=state, kernels=kernels)
    return Stage(state, {"update": update}, tokens)
