"""The programs of a rollout, lowered for shapes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from dsmath.model.transformer import Transformer
from dsmath.plan import flops
from dsmath.plan.work import Work, device_bytes
from dsmath.rollout.blocks import Block
from dsmath.rollout.decoding import Decoding, Settings
from dsmath.rollout.memory import fit
from dsmath.rollout.programs import Programs
from dsmath.rollout.requests import Limits


def sampling(
    config: ml_collections.ConfigDict, model: Transformer, mesh: Mesh, prompt_length: int, policy: Any
) -> dict[str, Work]:
    """What an engine runs to sample the groups of a step, but for the prompts, which are few tokens.

    Args:
      config: of reinforcement learning.
      model: the decoder.
      mesh: the training mesh.
      prompt_length: of the longest question.
      policy: shapes and shardings of the parameters, as in training.
    """
    length = config.decoding.max_new_tokens
    sizes = {"group_size": config.group_size, "longest_prompt": prompt_length, "max_new_tokens": length}
    limits = fit(model.config, mesh, **config.rollout, **sizes)
    programs = Programs(model, mesh, limits)
    reshard = programs.resharding(policy)
    gathered = reshard.eval_shape(policy)
    cache = programs.create.eval_shape()
    # Where bfloat16 is compiled as float16, the cache is too.
    if model.config.dtype == "float16":
        cache = jax.tree.map(_narrow, cache)
    block = _block(limits, programs, Decoding.read(config.decoding))
    buckets = {"prefix_length": limits.prompt_buckets[-1], "suffix_length": limits.new_buckets[-1]}

    def lower_block() -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            key = jax.eval_shape(jax.random.key, 0)
            return programs.decode.lower(gathered, cache, block, None, key, steps=limits.block_steps, **buckets)

    def lower_gathering() -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            return reshard.lower(policy)

    samples = config.num_groups * config.group_size
    blocks = math.ceil(samples / (limits.rows * limits.width)) * math.ceil(length / limits.block_steps)
    pairs = samples * (length * prompt_length + flops.causal_pairs(length))
    forward = flops.forward(model.config, samples * length, samples * length, pairs)
    of_block = flops.Forward(*(part / blocks for part in forward))
    held = {"gathered parameters": device_bytes(gathered), "keys and values": device_bytes(cache)}
    return {
        "gather": Work(lower_gathering, (), flops.Forward(0.0, 0.0), 1),
        "sample": Work(lower_block, block, of_block, 1, times=blocks, held=held),
    }


def _narrow(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return leaf.update(dtype=jnp.float16) if leaf.dtype == jnp.bfloat16 else leaf


def _block(limits: Limits, programs: Programs, decoding: Decoding) -> Block:
    """Shapes of what the host says before a block, no row with a penalty."""

    def rows(*shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((limits.rows, *shape), dtype, sharding=programs.rows)

    slots, width = rows(limits.width), limits.width
    settings = Settings.stack([decoding])
    return Block(
        tokens=slots,
        lengths=slots,
        limits=slots,
        active=rows(width, dtype=bool),
        forced=rows(width, limits.block_steps),
        num_forced=slots,
        samples=rows(width, dtype=jnp.uint32),
        prefix_lengths=rows(),
        streams=rows(dtype=jnp.uint32),
        stop_ids=rows(limits.max_stop_ids),
        settings=jax.tree.map(lambda one: rows(dtype=one.dtype), settings),
        history=None,
        least_active=jax.ShapeDtypeStruct((), jnp.int32),
    )
