"""What an NVIDIA GPU alone runs, against plain attention in float32 (JAX_PLATFORMS=cuda pytest …)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.model import attention, cudnn, flash_decoding
from dsmath.model.transformer import Transformer, init_params

on_gpu = pytest.mark.skipif(jax.default_backend() != "gpu", reason="no NVIDIA GPU")
BATCH, LENGTH, SIZE = 2, 512, 128


def _error(got, expected) -> float:
    got, expected = (np.asarray(x, np.float32) for x in (got, expected))
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_the_documents_of_packed_rows_are_told_to_cudnn(monkeypatch):
    """In the kernel's place stands plain attention over each document that it is told of."""

    def each_document(query, key, value, *, q_seqlen, q_offsets, kv_seqlen, kv_offsets, scale, mask_type):
        assert mask_type == cudnn.MaskType.PADDING_CAUSAL
        out = np.full(query.shape, np.nan, np.float32)
        for row in range(len(query)):
            for start, length in zip(q_offsets[row], q_seqlen[row], strict=False):
                if length > 0:
                    part = np.s_[row : row + 1, start : start + length]
                    out[part] = jax.nn.dot_product_attention(query[part], key[part], value[part], is_causal=True)
        return out

    monkeypatch.setattr(cudnn, "dot_product_attention", each_document)
    query, key, value = jax.random.normal(jax.random.key(0), (3, 2, 40, 2, 8))
    segments = np.ones((2, 40), np.int32)
    segments[0, 10:], segments[0, 30:], segments[1, 1:], segments[1, 2:] = 2, 0, 2, 3
    got = attention.attend(query, key, value, segments, "cudnn_documents")
    np.testing.assert_allclose(got, attention.attend(query, key, value, segments, "xla"), atol=1e-5)


def test_rows_with_more_documents_than_the_kernel_takes_are_denied():
    few, many = np.arange(48) // 3, np.arange(48) * 17 // 48
    assert cudnn.have_few_documents(jnp.asarray([few, many])).tolist() == [True, False]


@on_gpu
@pytest.mark.parametrize("kind", ["cudnn", "cudnn_documents"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_flash_attention_and_its_gradients_within_segments(kind, kv_heads):
    keys = jax.random.split(jax.random.key(kv_heads), 4)
    shapes = [(BATCH, LENGTH, heads, SIZE) for heads in (4, kv_heads, kv_heads, 4)]
    *tensors, weights = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    segments = np.ones((BATCH, LENGTH), np.int32)
    segments[0, 100:], segments[1, 37:], segments[1, 480:] = 2, 2, 0
    weights *= jnp.asarray(segments > 0)[..., None, None]

    def run(implementation: str, dtype: str):
        def loss(*tensors):
            out = attention.attend(*(x.astype(dtype) for x in tensors), segments, implementation)
            return (out.astype(jnp.float32) * weights).sum(), out * (segments > 0)[..., None, None]

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*tensors)
        return out, *gradients

    with jax.default_matmul_precision("highest"):
        expected = run("xla", "float32")
    for got, right in zip(run(kind, "bfloat16"), expected, strict=True):
        assert _error(got, right) < 0.01


@on_gpu
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_decoding_kernel(heads, kv_heads, dtype):
    questions, group, prefix_room, room = 3, 4, 128, 256
    keys = iter(jax.random.split(jax.random.key(0), 6))
    query = jax.random.normal(next(keys), (questions, group, 1, heads, SIZE), jnp.bfloat16)
    shapes = [(questions, prefix_room), (questions, group, room), (questions, group, 1)]
    prefix, past, new = (
        attention.store(
            *(jax.random.normal(key, (*shape, kv_heads, SIZE)) for key in jax.random.split(next(keys))), dtype
        )
        for shape in shapes
    )
    prefix_lengths = np.array([0, 77, 128], np.int32)
    lengths = np.asarray(jax.random.randint(next(keys), (questions, group), 0, room))
    masks = np.arange(prefix_room) < prefix_lengths[:, None], np.arange(room) <= lengths[..., None, None]
    own = attention.write(past, new, lengths)
    with jax.default_matmul_precision("highest"):
        plain = jax.jit(attention.attend_with_prefix)
        expected = plain(query.astype(jnp.float32), prefix, masks[0], own, masks[1])
    got, stored = jax.jit(flash_decoding.attend)(query, prefix, prefix_lengths, past, new, lengths)
    assert _error(got, expected) < 0.01
    jax.tree.map(np.testing.assert_array_equal, stored, own)


@on_gpu
def test_logits_of_a_model(make_model_config):
    config = make_model_config(head_dim=64, num_heads=4, num_kv_heads=2, width=256)
    params = init_params(Transformer(config), jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 256), 0, config.vocab_size)
    places = jnp.broadcast_to(jnp.arange(256), tokens.shape)
    segments = (places >= 100).astype(jnp.int32) + 1

    def logits(config):
        model = Transformer(config)
        hidden, _ = model.apply(params, tokens, places, segments)
        return model.apply(params, hidden, method="logits")

    with jax.default_matmul_precision("highest"):
        expected = logits(config)
    assert _error(logits(dataclasses.replace(config, dtype="bfloat16", attention="cudnn")), expected) < 0.02
