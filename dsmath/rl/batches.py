"""From groups of samples to the arrays of an update, and the forward pass over them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dsmath.model.generation import group_hidden
from dsmath.model.transformer import Transformer
from dsmath.rollout.samples import Samples, pad_prompts
from dsmath.train.losses import entropy, token_logprobs


def make_batch(prompts: Sequence[Sequence[int]], samples: Samples, pad_id: int) -> dict[str, np.ndarray]:
    """The arrays of an update; a question's prompt stands once for its whole group.

    Args:
      prompts: token ids of the questions.
      samples: their groups, arrays [questions, group_size, max_new_tokens].
      pad_id: fills the rest.
    Returns:
      int32 `prompts` [questions, prefix_length], `prompt_lengths` [questions], `completions` [questions, group_size,
      max_new_tokens], and float32 `mask` of the completions' shape, 1 on the tokens that the policy chose.
    """
    tokens, lengths = pad_prompts(prompts, pad_id)
    return {
        "prompts": tokens,
        "prompt_lengths": lengths,
        "completions": samples.tokens,
        "mask": samples.mask,
    }


def completion_logprobs(
    model: Transformer, params: Any, batch: Mapping[str, Array], logits_chunk: int
) -> tuple[Array, Array]:
    """The log-probability and the entropy at every token of the completions.

    Args:
      model, params: the policy.
      batch: `make_batch`'s arrays.
      logits_chunk: tokens of each completion whose logits stand in memory at a time: those of 64 completions of
        1,024 tokens over 102,400 words would be 27 GB a question.
    Returns:
      two float32 arrays [questions, group_size, max_new_tokens].
    """
    completions = batch["completions"]
    hidden = group_hidden(model, params, batch["prompts"], batch["prompt_lengths"], completions)

    def look_up(part: tuple[Array, Array]) -> tuple[Array, Array]:
        logits = model.apply(params, part[0], method="logits")  # [questions, group, chunk, vocab]
        return token_logprobs(logits, part[1]), entropy(logits)

    length = completions.shape[2]
    if logits_chunk >= length:
        return look_up((hidden, completions))
    chunks = -(-length // logits_chunk)
    hidden, targets = (_split(x, chunks, logits_chunk) for x in (hidden, completions))
    found = jax.lax.map(jax.checkpoint(look_up), (hidden, targets))  # [chunks, questions, group, chunk] each
    return tuple(jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1)[..., :length] for x in found)


def _split(x: Array, chunks: int, size: int) -> Array:
    """[questions, group, length, …] -> [chunks, questions, group, size, …], padded at the end."""
    padding = [(0, 0)] * x.ndim
    padding[2] = (0, chunks * size - x.shape[2])
    x = jnp.pad(x, padding)
    return jnp.moveaxis(x.reshape(*x.shape[:2], chunks, size, *x.shape[3:]), 2, 0)
