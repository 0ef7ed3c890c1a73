"""Flash attention on NVIDIA: cuDNN's kernel, which never holds the matrix of scores."""

import jax
import jax.numpy as jnp
from jax import Array

# JAX's public function takes one document a row, or a mask, with which the kernel takes twice the time.
from jax._src.cudnn.fused_attention_stablehlo import MaskType, dot_product_attention

MOST_DOCUMENTS = 16  # of a row, its padding counted as one; the kernel's memory grows with it


def attend(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """Attention under a causal mask, bool [batch, length, length]; the rest as in `attention.attend`, bfloat16."""
    # Told that the mask is causal besides, cuDNN leaves out the half of the work that no query looks at.
    return jax.nn.dot_product_attention(query, key, value, mask=mask[:, None], is_causal=True, implementation="cudnn")


def attend_documents(query: Array, key: Array, value: Array, segment_ids: Array) -> Array:
    """Causal attention within few segments without a mask; arguments as in `attention.attend`, bfloat16.

    Rows that `have_few_documents` denies come out wrong.
    """
    number = _number(segment_ids)
    lengths = (number[:, :, None] == jnp.arange(MOST_DOCUMENTS)).sum(axis=1, dtype=jnp.int32)  # [rows, documents]
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


def have_few_documents(segment_ids: Array) -> Array:
    """Whether a row has no more than `MOST_DOCUMENTS`: int32 [rows, length] -> bool [rows]."""
    return _number(segment_ids)[:, -1] < MOST_DOCUMENTS


def _number(segment_ids: Array) -> Array:
    """The number of each token's document within its row, from 0: [rows, length]."""
    begins = segment_ids[:, 1:] != segment_ids[:, :-1]
    return jnp.pad(jnp.cumsum(begins, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
