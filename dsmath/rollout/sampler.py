"""Samples G answers to each of many questions, jitted on the training mesh, with a key-value cache."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from dsmath.model.sharding import batch_sharding, replicated
from dsmath.model.transformer import Transformer, decode, prefill
from dsmath.rollout.decoding import Decoding, draw

PREFIX_BUCKET = 16  # prompts are padded to a multiple of this, which bounds the number of compiled programs


class Samples(NamedTuple):
    """The group of samples of each question, as arrays on the host.

    Attributes:
      tokens: int32 [questions, group_size, max_new_tokens], `pad_id` after the end.
      logprobs: float32 of the same shape, under the untempered policy; 0 after the end.
      lengths: int32 [questions, group_size], tokens of each sample with its end-of-sequence token.
      truncated: bool [questions, group_size], no end within max_new_tokens.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray


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


class Sampler:
    """Draws groups of samples for prompts of token ids.

    A sample depends on the root key, its request id, its place in the group and the parameters alone: not on the
    batch that it was drawn in.

    Args:
      model: the decoder.
      mesh: the training mesh; questions are spread over its data and fsdp axes.
      eos_id, pad_id: token ids.
      decoding: temperature, top-p and the limit of new tokens.
      group_size: samples of each question.
      batch_size: questions decoded at once.
    """

    def __init__(
        self,
        model: Transformer,
        mesh: Mesh,
        *,
        eos_id: int,
        pad_id: int,
        decoding: Decoding,
        group_size: int,
        batch_size: int,
    ):
        shards = mesh.shape["data"] * mesh.shape["fsdp"]
        self.batch_size = -(-batch_size // shards) * shards
        self._pad_id = pad_id
        self._mesh = mesh
        sample = functools.partial(
            _sample_batch, model, eos_id=eos_id, pad_id=pad_id, decoding=decoding, group_size=group_size
        )
        self._sample = jax.jit(sample, out_shardings=replicated(mesh))

    def __call__(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        request_ids: Sequence[int],
        key: Array,
        on_batch: Callable[[int], None] = lambda questions: None,
    ) -> Samples:
        """Samples a group for every prompt.

        Args:
          params: the model's parameters, sharded as in training.
          prompts: token ids of each prompt, none empty.
          request_ids: one integer a prompt; it names the request in the random stream.
          key: root random key.
          on_batch: called with the number of questions that a batch has finished.
        """
        batches = []
        for start in range(0, len(prompts), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            batches.append(self._run(params, prompts[chunk], request_ids[chunk], key))
            on_batch(len(prompts[chunk]))
        return Samples(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))

    def _run(self, params: Any, prompts: Sequence[Sequence[int]], request_ids: Sequence[int], key: Array) -> Samples:
        missing = self.batch_size - len(prompts)  # rows that fill the batch hold one padding token
        tokens, lengths = pad_prompts([*prompts, *[[self._pad_id]] * missing], self._pad_id)
        ids = np.array([*request_ids, *[0] * missing], np.uint32)
        used = np.arange(self.batch_size) < len(prompts)
        with jax.set_mesh(self._mesh):
            rows = jax.device_put((tokens, lengths, ids, used), batch_sharding(self._mesh))
            samples = jax.device_get(self._sample(params, *rows, key))
        return Samples(*(array[: len(prompts)] for array in samples))


def _sample_batch(
    model: Transformer,
    params: Any,
    prompts: Array,
    lengths: Array,
    request_ids: Array,
    used: Array,
    key: Array,
    *,
    eos_id: int,
    pad_id: int,
    decoding: Decoding,
    group_size: int,
) -> Samples:
    """prompts [questions, prefix_length], lengths, request_ids and used [questions]."""
    questions, limit = prompts.shape[0], decoding.max_new_tokens
    shape = (questions, group_size)
    keys = jax.vmap(lambda request: jax.random.split(jax.random.fold_in(key, request), group_size))(request_ids)
    keys = keys.reshape(-1)  # [questions * group]

    def choose(logits: Array, step: Array) -> tuple[Array, Array]:
        """logits [questions, group, vocab] -> tokens and logprobs [questions, group]."""
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
        tokens, logprobs = draw(logits.reshape(questions * group_size, -1), step_keys, decoding)
        return tokens.reshape(shape), logprobs.reshape(shape)

    first_logits, cache = prefill(model, params, prompts, lengths, group_size, limit)
    logits = jnp.broadcast_to(first_logits[:, None], (*shape, first_logits.shape[-1]))
    start = (
        jnp.zeros((), jnp.int32),
        logits,
        cache,
        jnp.broadcast_to(~used[:, None], shape),  # done
        jnp.full((*shape, limit), pad_id, jnp.int32),
        jnp.zeros((*shape, limit), jnp.float32),
    )

    def unfinished(carry) -> Array:
        step, _, _, done, _, _ = carry
        return (step < limit) & ~done.all()

    def advance(carry):
        step, logits, cache, done, tokens, logprobs = carry
        chosen, chosen_logprobs = choose(logits, step)
        chosen = jnp.where(done, pad_id, chosen)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, chosen, step, axis=2)
        logprobs = jax.lax.dynamic_update_index_in_dim(logprobs, jnp.where(done, 0.0, chosen_logprobs), step, axis=2)
        done |= chosen == eos_id
        positions = jnp.broadcast_to((lengths[:, None] + step), shape)
        logits, cache = decode(model, params, chosen, positions, cache)
        return step + 1, logits, cache, done, tokens, logprobs

    *_, tokens, logprobs = jax.lax.while_loop(unfinished, advance, start)
    ended = tokens == eos_id  # [questions, group, limit]
    truncated = ~ended.any(axis=-1)
    sample_lengths = jnp.where(truncated, limit, jnp.argmax(ended, axis=-1) + 1).astype(jnp.int32)
    return Samples(tokens, logprobs, sample_lengths, truncated)
