"""From groups of samples to the arrays of an update, and the forward pass over them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array

from dsmath.model.transformer import Transformer, group_logits
from dsmath.rollout.sampler import Samples, pad_prompts
from dsmath.train.losses import entropy, token_logprobs


def make_batch(prompts: Sequence[Sequence[int]], samples: Samples, pad_id: int) -> dict[str, np.ndarray]:
    """The arrays of an update; a question's prompt stands once for its whole group.

    Args:
      prompts: token ids of the questions.
      samples: their groups, arrays [questions, group_size, max_new_tokens].
      pad_id: fills the rest.
    Returns:
      int32 `prompts` [questions, prefix_length], `prompt_lengths` [questions], `completions` [questions, group_size,
      max_new_tokens], and float32 `mask` of the completions' shape, 1 on the tokens of the output.
    """
    tokens, lengths = pad_prompts(prompts, pad_id)
    mask = np.arange(samples.tokens.shape[2]) < samples.lengths[..., None]
    return {
        "prompts": tokens,
        "prompt_lengths": lengths,
        "completions": samples.tokens,
        "mask": mask.astype(np.float32),
    }


def completion_logprobs(model: Transformer, params: Any, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """The log-probability and the entropy at every token of the completions.

    Returns:
      two float32 arrays [questions, group_size, max_new_tokens].
    """
    logits = group_logits(model, params, batch["prompts"], batch["prompt_lengths"], batch["completions"])
    return token_logprobs(logits, batch["completions"]), entropy(logits)
