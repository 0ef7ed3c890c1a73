"""Groups of samples as arrays, for training."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsmath.rollout.requests import Completion

PREFIX_BUCKET = 16  # prompts are padded to a multiple of this, which bounds the number of compiled programs


class Samples(NamedTuple):
    """The group of samples of each question, as arrays on the host.

    Attributes:
      tokens: int32 [questions, group_size, max_new_tokens], `pad_id` after the end.
      logprobs: float32 of the same shape, under the untempered policy; 0 after the end and where a tool spoke.
      mask: float32 of the same shape, 1 where the policy chose the token: not after the end, not where a tool spoke.
      lengths: int32 [questions, group_size], tokens of each sample with its end-of-sequence token.
      truncated: bool [questions, group_size], no end within max_new_tokens.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray


def empty_samples(questions: int, group_size: int, max_new_tokens: int, pad_id: int) -> Samples:
    """Samples of no tokens, for `put`."""
    shape = (questions, group_size)
    return Samples(
        tokens=np.full((*shape, max_new_tokens), pad_id, np.int32),
        logprobs=np.zeros((*shape, max_new_tokens), np.float32),
        mask=np.zeros((*shape, max_new_tokens), np.float32),
        lengths=np.zeros(shape, np.int32),
        truncated=np.zeros(shape, bool),
    )


def put(samples: Samples, question: int, completion: Completion) -> None:
    """Writes a completion into its place."""
    place, length = (question, completion.sample), len(completion.tokens)
    samples.tokens[place][:length] = completion.tokens
    samples.logprobs[place][:length] = completion.logprobs
    samples.mask[place][:length] = completion.loss_mask
    samples.lengths[place] = length
    samples.truncated[place] = completion.finish_reason == "length"


def pad_prompts(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one array, padded on the right to a multiple of `PREFIX_BUCKET`.

    Returns:
      tokens int32 [questions, prefix_length] and lengths int32 [questions].
    """
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens = np.full((len(prompts), -(-int(lengths.max()) // PREFIX_BUCKET) * PREFIX_BUCKET), pad_id, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return tokens, lengths
