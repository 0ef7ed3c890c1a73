"""Flash attention on NVIDIA: cuDNN's kernel over a packed row's documents; the scores never stand in memory whole."""

import jax.numpy as jnp
from jax import Array

# JAX's public function takes one document a row, or a mask, with which the kernel takes twice the time.
from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

_SHORTEST = 32  # tokens of a document, on average over a row


def most_documents(length: int) -> int:
    """Documents that a row of so many tokens may hold, its padding counted as one."""
    return max(8, length // _SHORTEST)


def fits(segment_ids: Array) -> Array:
    """Whether a row has no more documents than `most_documents`: int32 [rows, length] -> bool [rows]."""
    return _number(segment_ids)[:, -1] < most_documents(segment_ids.shape[1])


def attend(query: Array, key: Array, value: Array, segment_ids: Array) -> Array:
    """Causal attention within segments; arguments as in `attention.attend`, bfloat16.

    Rows that do not `fit` come out wrong.
    """
    number = _number(segment_ids)
    documents = jnp.arange(most_documents(segment_ids.shape[1]))
    lengths = (number[:, :, None] == documents).sum(axis=1, dtype=jnp.int32)  # [rows, documents]
    starts = jnp.cumsum(lengths, axis=1) - lengths
    lengths, starts = (jnp.where(lengths > 0, x, -1) for x in (lengths, starts))
    starts = jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1)
    return dot_product_attention(
        query,
        key,
        value,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=starts,
        kv_offsets=starts,
        scale=query.shape[-1] ** -0.5,
        mask_type=MaskType.PADDING_CAUSAL,
    )


def _number(segment_ids: Array) -> Array:
    """The number of each token's document within its row, from 0: [rows, length]."""
    begins = segment_ids[:, 1:] != segment_ids[:, :-1]
    return jnp.pad(jnp.cumsum(begins, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
