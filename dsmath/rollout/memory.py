"""How many questions and samples fit: the engine's limits from the work and a budget of memory."""

import math

import jax.numpy as jnp
from jax.sharding import Mesh

from dsmath.model import flash_decoding
from dsmath.model.config import ModelConfig
from dsmath.rollout.programs import ROW_AXES
from dsmath.rollout.requests import Limits
from dsmath.runs.errors import InputError

_SHARE = 4  # a row has one slot for so many samples of a question: what ends early is followed by the others
_PROMPT_MULTIPLE = 16
_SMALLEST = 64  # room below which halving it is not worth a program


def token_bytes(config: ModelConfig, cache_dtype: str, tensor: int = 1) -> float:
    """Bytes of one token's keys and values in all layers, on each of the devices that share the heads."""
    number = jnp.dtype(cache_dtype).itemsize * config.head_dim + (4 if cache_dtype == "int8" else 0)
    return 2 * config.num_layers * config.num_kv_heads * number / tensor


def row_bytes(config: ModelConfig, limits: Limits, tensor: int = 1) -> float:
    """Bytes of a row of the engine on a device: its question once, and `width` samples of it.

    Counted are the cache, the copy of its shorter part that a block of short samples works on, or of its last samples
    (neither where a kernel reads what samples hold), and the logits with what is drawn from (three arrays of a number a
    word).
    """
    new, prompt = limits.new_buckets[-1], limits.prompt_buckets[-1]
    if not flash_decoding.serves(config, new, prompt):
        new += _copied(limits.new_buckets)
        prompt += _copied(limits.prompt_buckets)
    tokens = prompt + limits.width * new
    return tokens * token_bytes(config, limits.cache_dtype, tensor) + limits.width * 3 * 4 * config.vocab_size / tensor


def _copied(buckets: tuple[int, ...]) -> int:
    """Cells that a block's copy has at most: the last samples are half of all, see `blocks.lay_out`."""
    return buckets[-2] if len(buckets) > 1 else -(-buckets[-1] // 2)


def fit(
    config: ModelConfig,
    mesh: Mesh,
    *,
    slots: int,
    memory_gib: float,
    cache_dtype: str,
    block_steps: int,
    prefill_tokens: int,
    group_size: int,
    longest_prompt: int,
    max_new_tokens: int,
) -> Limits:
    """Limits for groups of samples.

    Args:
      config: the model's.
      mesh: the training mesh.
      slots: most samples decoded at once on the whole mesh.
      memory_gib: of each device, for the cache and the logits; it lowers the slots.
      cache_dtype, block_steps, prefill_tokens: see `Limits`.
      group_size: samples of a question.
      longest_prompt: tokens.
      max_new_tokens: of a sample.
    Raises:
      InputError: the budget holds not even one row.
    """
    shards = math.prod(mesh.shape[axis] for axis in ROW_AXES)
    multiple = math.lcm(_PROMPT_MULTIPLE, mesh.shape["sequence"])
    width = min(max(1, group_size // _SHARE), slots)
    new_multiple = math.lcm(block_steps, flash_decoding.MULTIPLE) if config.is_cudnn else block_steps
    limits = Limits(
        rows=max(1, slots // width // shards) * shards,
        width=width,
        prompt_buckets=halvings(longest_prompt, multiple),
        new_buckets=halvings(max_new_tokens, new_multiple),
        block_steps=block_steps,
        prefill_tokens=prefill_tokens,
        max_stop_ids=8,
        cache_dtype=cache_dtype,
    )
    return _within(limits, config, mesh.shape["tensor"], shards, memory_gib * 2**30)


def _within(limits: Limits, config: ModelConfig, tensor: int, shards: int, budget: float) -> Limits:
    of_row = row_bytes(config, limits, tensor)
    rows = min(limits.rows, int(budget // of_row) * shards)
    if rows:
        return Limits(**{**vars(limits), "rows": rows})
    if limits.width > 1:
        return _within(Limits(**{**vars(limits), "width": limits.width // 2}), config, tensor, shards, budget)
    raise InputError(
        f"config.rollout.memory_gib: {budget / 2**30:.2f} GiB, but one question with one sample takes "
        f"{of_row / 2**30:.2f} GiB; raise it, or lower max_new_tokens"
    )


def halvings(length: int, multiple: int) -> tuple[int, ...]:
    """Buckets up to a length: it, its half and its quarter, where they are worth it, rounded up to a multiple."""
    return tuple(
        sorted(
            {
                -(-math.ceil(length / part) // multiple) * multiple
                for part in (1, 2, 4)
                if part == 1 or length / part >= _SMALLEST
            }
        )
    )
