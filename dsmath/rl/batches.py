"""From groups of samples to the arrays of an update, and the forward pass over them."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from dsmath.model.transformer import Transformer
from dsmath.rollout.sampler import Samples
from dsmath.train.losses import entropy, token_logprobs


def make_batch(prompts: Sequence[Sequence[int]], samples: Samples, prompt_length: int, pad_id: int) -> dict:
    """Lays each prompt and each of its samples out in one row.

    Args:
      prompts: token ids of the questions.
      samples: their groups, arrays [questions, group_size, max_new_tokens].
      prompt_length: room for the longest prompt; rows are prompt_length + max_new_tokens long.
      pad_id: fills the rest.
    Returns:
      int32 `tokens` [batch, length], `prompt_lengths` [batch], `completions` [batch, max_new_tokens], and
      float32 `mask` and `rollout_logprobs` [batch, max_new_tokens]; batch = questions * group_size.
    """
    questions, group_size, limit = samples.tokens.shape
    batch = questions * group_size
    completions = samples.tokens.reshape(batch, limit)
    mask = np.arange(limit) < samples.lengths.reshape(batch, 1)
    tokens = np.full((batch, prompt_length + limit), pad_id, np.int32)
    prompt_lengths = np.repeat([len(prompt) for prompt in prompts], group_size).astype(np.int32)
    for row in range(batch):
        prompt = prompts[row // group_size]
        tokens[row, : len(prompt)] = prompt
        tokens[row, len(prompt) : len(prompt) + limit] = completions[row]
    return {
        "tokens": tokens,
        "prompt_lengths": prompt_lengths,
        "completions": completions,
        "mask": mask.astype(np.float32),
        "rollout_logprobs": samples.logprobs.reshape(batch, limit),
    }


def completion_logprobs(model: Transformer, params: Any, batch: dict[str, Array]) -> tuple[Array, Array]:
    """The log-probability and the entropy at every token of the completions.

    The logits are taken at the completions alone: a prompt's are never needed.

    Returns:
      two float32 arrays [batch, max_new_tokens].
    """
    tokens, lengths = batch["tokens"], batch["prompt_lengths"]
    limit = batch["completions"].shape[1]
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    used = lengths + batch["mask"].sum(axis=-1).astype(jnp.int32)
    segment_ids = (positions < used[:, None]).astype(jnp.int32)
    hidden, _ = model.apply(params, tokens, positions, segment_ids)
    before = (lengths - 1)[:, None] + jnp.arange(limit)  # the position that predicts each completion token
    logits = model.apply(params, jnp.take_along_axis(hidden, before[..., None], axis=1), method="logits")
    return token_logprobs(logits, batch["completions"]), entropy(logits)
