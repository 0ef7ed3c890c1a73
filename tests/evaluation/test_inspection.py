"""A look into a checkpoint agrees with the model's own computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from dsmath.evaluation import inspection, notebook_figures
from dsmath.model import attention
from dsmath.model.transformer import Attention, RMSNorm
from dsmath.runs.errors import InputError

TEXT = "Anna has 12 apples and gets 7 more."


@pytest.fixture(scope="module")
def loaded(checkpoint) -> inspection.Checkpoint:
    return inspection.load(checkpoint)


@pytest.fixture(scope="module")
def found(loaded) -> inspection.Trace:
    return inspection.trace(loaded, TEXT)


def _inputs(loaded) -> tuple:
    ids = [loaded.tokenizer.bos_id, *loaded.tokenizer.encode(TEXT)]
    tokens = jnp.array([ids])
    return tokens, jnp.arange(len(ids))[None], jnp.ones_like(tokens)


def test_the_last_layer_says_what_the_model_says(loaded, found):
    hidden, _ = loaded.model.apply(loaded.params, *_inputs(loaded))
    logits = loaded.model.apply(loaded.params, hidden, method="logits")
    np.testing.assert_allclose(found.logprobs[-1], jax.nn.log_softmax(logits)[0], atol=1e-4)
    words, probability = inspection.likeliest(found, loaded.tokenizer)
    assert len(words) == loaded.model.config.num_layers + 1 == len(found.stream)
    assert probability[-1] == pytest.approx(np.exp(found.logprobs[-1]).max(axis=-1))


def test_attention_looks_back_alone_and_mixes_the_values_as_the_model_does(loaded, found):
    config = loaded.model.config
    assert found.attention.shape[:2] == (config.num_layers, config.num_heads)
    np.testing.assert_allclose(found.attention.sum(axis=-1), 1.0, atol=1e-5)
    assert not np.triu(found.attention, 1).any()

    _, positions, segments = _inputs(loaded)
    layer = jax.tree.map(lambda leaf: leaf[1], loaded.params["params"]["blocks"])
    normalized = RMSNorm(config).apply({"params": layer["attention_norm"]}, jnp.array(found.stream[1:2]))
    query, key, value = Attention(config).apply(
        {"params": layer["attention"]}, normalized, positions, method="_project"
    )
    expected = attention.attend(query, key, value, segments, "xla")[0]
    of_heads = np.repeat(np.asarray(value[0]), config.num_heads // config.num_kv_heads, axis=1)
    np.testing.assert_allclose(np.einsum("hqk,khd->qhd", found.attention[1], of_heads), expected, atol=1e-4)


def test_a_weights_size_is_its_root_mean_square_by_layer(loaded):
    norms = inspection.weight_norms(loaded.params)
    gate = np.asarray(loaded.params["params"]["blocks"]["mlp"]["gate"])
    assert norms["mlp/gate"] == pytest.approx([np.sqrt((layer**2).mean()) for layer in gate])
    assert {values.shape for values in norms.values()} == {(loaded.model.config.num_layers,)}


def test_the_sharpest_heads_come_first(found):
    entropy = -(found.attention * np.log(found.attention + 1e-30)).sum(axis=-1).mean(axis=-1)
    heads = inspection.sharpest_heads(found, 3)
    assert [entropy[head] for head in heads] == sorted(entropy.ravel())[:3]


def test_an_empty_text_is_refused(loaded):
    with pytest.raises(InputError, match="text: empty"):
        inspection.trace(loaded, "")


def test_plots_name_tokens_that_no_font_and_no_formula_may_break(loaded, found):
    figure = Figure()
    panels = figure.subplots(1, 3)
    tokens = ["$x$", "^{", "\n", "苹", "\x00", *found.tokens[5:]]
    words, probability = inspection.likeliest(found, loaded.tokenizer)
    notebook_figures.plot_attention(panels[0], found.attention[0, 0], tokens, "layer 1, head 1")
    notebook_figures.plot_lens(panels[1], words, probability, tokens)
    notebook_figures.plot_norms(panels[2], inspection.weight_norms(loaded.params))
    figure.draw_without_rendering()
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels[:5] == ["$x$", "^{", "⏎", "▯", "·"]
    assert panels[1].get_yticklabels()[0].get_text() == "embedding"
