"""The decoder: what a position sees, and that decoding computes what the plain forward pass computes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dsmath.model.attention import rotary_frequencies
from dsmath.model.config import ModelConfig, RopeScaling
from dsmath.model.generation import decode, empty_cache, fill, group_hidden, unstack
from dsmath.model.transformer import Transformer, look_up
from dsmath.runs.errors import InputError

LENGTH = 16


def group_logits(model, params, prompts, lengths, completions):
    """Logits that predict the completions, each in a row of its own."""
    offsets = jnp.broadcast_to(jnp.arange(completions.shape[-1]), completions.shape)
    before, _ = group_hidden(model, params, prompts, lengths, completions, jnp.ones_like(offsets), offsets)
    return model.apply(params, before, method="logits")


@pytest.fixture(scope="module")
def build(make_model_config):
    """(changes) -> a model and its parameters."""

    @functools.cache
    def build(**changes):
        model = Transformer(make_model_config(**changes))
        one = jnp.zeros((1, 2), jnp.int32)
        init = jax.jit(functools.partial(model.init, method="init_all"))
        return model, nn.meta.unbox(init(jax.random.key(0), one, one, one))

    return build


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, params, tokens, positions, segment_ids):
    hidden, _ = model.apply(params, tokens, positions, segment_ids)
    return model.apply(params, hidden, method="logits")


def _forward(model, params, tokens, positions=None, segment_ids=None) -> np.ndarray:
    """Logits [batch, length, vocab] of a plain forward pass; rows are padded to LENGTH: few programs compile."""
    missing = [(0, 0), (0, LENGTH - tokens.shape[1])]
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape) if positions is None else positions
    segment_ids = np.ones_like(tokens) if segment_ids is None else segment_ids
    rows = (np.pad(x, missing).astype(np.int32) for x in (tokens, positions, segment_ids))
    return np.asarray(_apply(model, params, *rows))[:, : tokens.shape[1]]


def _tokens(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(4, 64, shape).astype(np.int32)


def test_a_position_sees_no_later_token(build):
    model, params = build()
    tokens = _tokens(1, LENGTH)
    changed = tokens.copy()
    changed[0, 9] = (changed[0, 9] + 1) % 64
    before, after = _forward(model, params, tokens), _forward(model, params, changed)
    np.testing.assert_allclose(before[0, :9], after[0, :9], atol=1e-6)
    assert (np.abs(before[0, 9:] - after[0, 9:]).max(axis=-1) > 1e-4).all()  # each later one does see it


def test_packed_segments_do_not_see_each_other(build):
    model, params = build()
    first, second = _tokens(1, 6, seed=1), _tokens(1, 7, seed=2)
    packed = np.concatenate([first, second, np.zeros((1, 3), np.int32)], axis=1)
    segment_ids = np.array([[1] * 6 + [2] * 7 + [0] * 3], np.int32)
    positions = np.array([[*range(6), *range(7), 0, 1, 2]], np.int32)
    logits = _forward(model, params, packed, positions, segment_ids)
    np.testing.assert_allclose(logits[:, :6], _forward(model, params, first), atol=1e-5)
    np.testing.assert_allclose(logits[:, 6:13], _forward(model, params, second), atol=1e-5)
    assert np.isfinite(logits).all()  # padding too
    unsegmented = _forward(model, params, packed, positions)
    assert np.abs(unsegmented[:, 6:13] - logits[:, 6:13]).max() > 1e-2  # the segments make the difference


def test_only_relative_positions_matter(build):
    model, params = build()
    tokens = _tokens(2, LENGTH)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape)
    logits = _forward(model, params, tokens, positions)
    np.testing.assert_allclose(_forward(model, params, tokens, positions + 7), logits, atol=1e-4)
    assert np.abs(_forward(model, params, tokens, positions * 2) - logits).max() > 1e-2


def _plain_logits(model, params, prompts, lengths, completions):
    """For each question and sample the plain logits from the prompt's last token on."""
    for question, length in enumerate(lengths):
        for sample, completion in enumerate(completions[question]):
            row = np.concatenate([prompts[question, :length], completion])[None]
            yield question, sample, _forward(model, params, row)[0, length - 1 :]


def _decode_all(model, params, prompts, lengths, completions, dtype=jnp.float32) -> np.ndarray:
    """Logits [questions, group, tokens + 1, vocab] from each prompt's last token on, one token at a time.

    The second sample of each question starts two steps after the first, so that their places in the cache differ.
    """
    questions, group, tokens = completions.shape
    params = unstack(params, model.config)
    cache = empty_cache(model.config, questions, group, 10, tokens + 1, dtype)
    last = np.take_along_axis(prompts, lengths[:, None] - 1, axis=1)  # is read by every sample itself
    rows = jnp.array([questions, *range(questions)])  # the first goes nowhere
    cache = jax.jit(functools.partial(fill, model))(
        params, cache, np.concatenate([prompts[:1], prompts]), np.array([3, *lengths - 1]), rows
    )
    step = jax.jit(functools.partial(decode, model))
    got = np.zeros((questions, group, tokens + 1, 64), np.float32)
    read = np.concatenate([np.broadcast_to(last[:, None], (questions, group, 1)), completions], axis=2)
    for index in range(tokens + 1 + 2 * (group - 1)):
        own = np.broadcast_to(index - 2 * np.arange(group), (questions, group))
        now = np.clip(own, 0, tokens)
        fed = np.take_along_axis(read, now[..., None], axis=2)[..., 0]
        # A sample that is not under way writes beyond its room, which is nowhere.
        places = np.where((own >= 0) & (own <= tokens), own, tokens + 1).astype(np.int32)
        logits, cache = step(params, fed, lengths - 1, places, cache)
        for sample in np.flatnonzero((own[0] >= 0) & (own[0] <= tokens)):
            got[:, sample, own[0, sample]] = np.asarray(logits)[:, sample]
    return got


@pytest.mark.parametrize(("num_kv_heads", "tied"), [(1, True), (2, False), (4, True)])
def test_prefill_and_decode_equal_the_plain_forward_pass(build, num_kv_heads, tied):
    model, params = build(num_kv_heads=num_kv_heads, tied=tied)
    prompts, completions = _tokens(3, 8, seed=1), _tokens(3, 2, 5, seed=2)
    lengths = np.array([8, 1, 5], np.int32)
    got = _decode_all(model, params, prompts, lengths, completions)
    for question, sample, plain in _plain_logits(model, params, prompts, lengths, completions):
        np.testing.assert_allclose(got[question, sample], plain, atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.bfloat16, 0.03), (jnp.int8, 0.05)])
def test_a_smaller_cache_is_near_the_plain_forward_pass(build, dtype, bound):
    model, params = build()
    prompts, completions = _tokens(3, 8, seed=1), _tokens(3, 2, 5, seed=2)
    lengths = np.array([8, 1, 5], np.int32)
    got = _decode_all(model, params, prompts, lengths, completions, dtype)
    for question, sample, plain in _plain_logits(model, params, prompts, lengths, completions):
        difference = np.abs(got[question, sample] - plain).max() / plain.std()
        assert 0 < difference < bound


@pytest.mark.parametrize(
    ("num_kv_heads", "tied", "remat"), [(1, True, "none"), (2, False, "none"), (4, True, "none"), (2, True, "full")]
)
def test_group_logits_equal_the_plain_forward_pass(build, num_kv_heads, tied, remat):
    model, params = build(num_kv_heads=num_kv_heads, tied=tied, remat=remat)
    prompts, completions = _tokens(3, 8, seed=1), _tokens(3, 2, 5, seed=2)
    lengths = np.array([8, 1, 5], np.int32)
    got = np.asarray(jax.jit(functools.partial(group_logits, model))(params, prompts, lengths, completions))
    assert got.shape == (3, 2, 5, 64)
    for question, sample, plain in _plain_logits(model, params, prompts, lengths, completions):
        np.testing.assert_allclose(got[question, sample], plain[:-1], atol=1e-5)


def test_a_model_that_trains_with_a_flash_kernel_samples_without_it(build):
    model, params = build()
    splash = Transformer(dataclasses.replace(model.config, attention="splash"))
    prompts, completions, lengths = _tokens(2, 8), _tokens(2, 2, 3), np.array([8, 5], np.int32)
    expected = group_logits(model, params, prompts, lengths, completions)
    np.testing.assert_array_equal(group_logits(splash, params, prompts, lengths, completions), expected)


def test_group_logits_of_one_token_need_the_prompt_alone(build):
    model, params = build()
    prompts = _tokens(2, 4)
    lengths = jnp.array([4, 2])
    got = jax.jit(functools.partial(group_logits, model))(params, prompts, lengths, _tokens(2, 3, 1))
    plain = _forward(model, params, prompts)
    np.testing.assert_allclose(got[0, :, 0], np.broadcast_to(plain[0, 3], (3, 64)), atol=1e-5)
    np.testing.assert_allclose(got[1, :, 0], np.broadcast_to(plain[1, 1], (3, 64)), atol=1e-5)


def test_gradients_of_group_logits_equal_those_of_the_plain_forward_pass(build):
    model, params = build()
    prompts, completions = jnp.asarray(_tokens(2, 4)), jnp.asarray(_tokens(2, 1, 5, seed=3))
    target = jax.random.normal(jax.random.key(1), (2, 5, 64))

    def grouped(params):
        logits = group_logits(model, params, prompts, jnp.array([4, 4]), completions)
        return (logits[:, 0] * target).sum()

    def plain(params):
        row = jnp.concatenate([prompts, completions[:, 0]], axis=1)
        positions = jnp.broadcast_to(jnp.arange(9), row.shape)
        hidden, _ = model.apply(params, row, positions, jnp.ones_like(row))
        return (model.apply(params, hidden, method="logits")[:, 3:-1] * target).sum()

    gradients = jax.jit(lambda params: (jax.grad(grouped)(params), jax.grad(plain)(params)))(params)
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


def test_a_tied_output_matrix_is_the_embedding_and_an_untied_one_is_its_own(build):
    tied, tied_params = build(tied=True)
    untied, untied_params = build(tied=False)
    assert untied_params["params"].keys() - tied_params["params"].keys() == {"output"}
    hidden = jax.random.normal(jax.random.key(3), (2, 32))
    np.testing.assert_allclose(
        tied.apply(tied_params, hidden, method="logits"), hidden @ tied_params["params"]["embedding"].T, atol=1e-5
    )
    np.testing.assert_allclose(
        untied.apply(untied_params, hidden, method="logits"), hidden @ untied_params["params"]["output"], atol=1e-5
    )


def test_remat_changes_neither_loss_nor_gradient(build):
    tokens = jnp.asarray(_tokens(2, LENGTH))
    results = []
    _, params = build()
    for remat in ("none", "minimal", "dots", "full"):
        model, _ = build(remat=remat)
        gradient = str(jax.make_jaxpr(jax.grad(lambda p, m=model: _loss(m, p, tokens)))(params))
        assert ("remat" in gradient) == (remat != "none")
        results.append(jax.jit(jax.value_and_grad(lambda p, m=model: _loss(m, p, tokens)))(params))
    for other in results[1:]:
        for one, two in zip(jax.tree.leaves(results[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)


def _loss(model, params, tokens):
    hidden, _ = model.apply(params, tokens, jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape), jnp.ones_like(tokens))
    return jnp.square(jax.nn.log_softmax(model.apply(params, hidden, method="logits"))).mean()


def test_bfloat16_computes_in_bfloat16_over_float32_parameters_and_gives_float32_logits(build):
    model, params = build(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    tokens = jnp.asarray(_tokens(1, 4))
    hidden, _ = jax.eval_shape(model.apply, params, tokens, tokens, tokens)
    assert hidden.dtype == jnp.bfloat16
    logits = _forward(model, params, _tokens(1, 4))
    assert logits.dtype == np.float32
    exact, _ = build()
    gap = np.abs(logits - _forward(exact, params, _tokens(1, 4)))
    assert 1e-4 < gap.max() < 0.1


def test_first_logits_have_unit_scale_tied_or_not(build):
    for tied in (True, False):
        model, params = build(tied=tied, width=128)
        assert 0.5 < np.std(_forward(model, params, _tokens(2, LENGTH))) < 2


def test_the_embeddings_gradient_adds_up_in_float32():
    table, tokens = jnp.ones((4, 2)), jnp.full((1, 4096), 2)
    gradient = jax.grad(lambda table: look_up(table, tokens, "bfloat16").astype(jnp.float32).sum())(table)
    np.testing.assert_array_equal(gradient, [[0, 0], [0, 0], [4096, 4096], [0, 0]])  # bfloat16 would stop at 256


def test_a_child_must_read_the_parameters_as_its_parent_did(make_model_config):
    parent = make_model_config()
    make_model_config(remat="full", dtype="bfloat16").check_child_of(parent)
    with pytest.raises(InputError, match=r"config\.model\.rope_theta: 500000.0 here and 10000.0 in config\.init_from"):
        make_model_config(rope_theta=500000.0).check_child_of(parent)


def _scaling(**changes):
    plain = {"kind": "none", "factor": 1.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_length": 64}
    return RopeScaling.create(plain | changes)


def test_linear_scaling_stretches_positions():
    plain, linear = (rotary_frequencies(4, 1e4, _scaling(kind=kind, factor=4.0)) for kind in ("none", "linear"))
    np.testing.assert_allclose(linear, plain / 4, rtol=1e-6)


def test_llama3_scaling_keeps_high_frequencies_and_stretches_low_ones():
    plain = np.asarray(rotary_frequencies(16, 1e4, _scaling()))
    scaled = np.asarray(rotary_frequencies(16, 1e4, _scaling(kind="llama3", factor=8.0)))
    turns = 64 * plain / (2 * np.pi)  # within the original context
    np.testing.assert_allclose(scaled[turns >= 4], plain[turns >= 4], rtol=1e-6)
    np.testing.assert_allclose(scaled[turns <= 1], plain[turns <= 1] / 8, rtol=1e-6)
    between = (turns > 1) & (turns < 4)
    assert between.any()
    assert ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_biases_move_queries_keys_and_values(build):
    model, params = build(attention_bias=True)
    attention = params["params"]["blocks"]["attention"]
    assert attention["q_bias"].shape == (2, 4, 8)
    assert attention["k_bias"].shape == attention["v_bias"].shape == (2, 2, 8)
    assert not attention["q_bias"].any()  # they start at zero
    before = _forward(model, params, _tokens(1, 8))
    for name in ("q_bias", "k_bias", "v_bias"):
        moved = jax.tree_util.tree_map_with_path(
            lambda path, leaf, name=name: leaf + 0.5 if path[-1].key == name else leaf, params
        )
        assert np.abs(_forward(model, moved, _tokens(1, 8)) - before).max() > 1e-4


def test_bfloat16_parameters_take_half_the_memory(build):
    _, params = build(param_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_kv_heads": 3}, r"config\.model\.num_kv_heads: 3 does not divide num_heads 4"),
        ({"head_dim": 7}, r"config\.model\.head_dim: 7"),
        ({"dtype": "float16"}, r"config\.model\.dtype: 'float16'"),
        ({"attention": "flash"}, r"config\.model\.attention: 'flash'"),
        ({"attention": "cudnn"}, r"config\.model\.attention='cudnn' computes in bfloat16"),
        ({"remat": True}, r"config\.model\.remat: True is none of 'none', 'minimal'"),
        ({"rope_scaling": {"kind": "yarn"}}, r"config\.model\.rope_scaling: 'factor' is missing"),
        ({"depth": 3}, r"config\.model: 'depth' is unknown"),
    ],
)
def test_wrong_fields_are_named(make_model_config, changes, named):
    with pytest.raises(InputError, match=named):
        make_model_config(**changes)


def test_a_missing_field_is_named(make_model_config):
    fields = dataclasses.asdict(make_model_config())
    del fields["rope_theta"]
    with pytest.raises(InputError, match=r"config\.model: 'rope_theta' is missing"):
        ModelConfig.create(fields)
