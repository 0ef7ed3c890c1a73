"""Log-probabilities of completions, whole and in chunks."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from dsmath.model.transformer import Transformer
from dsmath.rl.batches import completion_logprobs


@pytest.mark.parametrize("logits_chunk", [1, 4, 7])
def test_logits_in_chunks_give_the_same_numbers_and_gradients(make_model_config, logits_chunk):
    model = Transformer(make_model_config())
    rng = np.random.default_rng(0)
    batch = {
        "prompts": rng.integers(1, 64, (2, 5)),
        "prompt_lengths": np.array([5, 3]),
        "completions": rng.integers(1, 64, (2, 3, 7)),
    }
    tokens = batch["prompts"]
    params = nn.meta.unbox(model.init(jax.random.key(0), tokens, tokens, tokens, method="init_all"))

    def total(params, chunk):
        logprobs, entropies = completion_logprobs(model, params, batch, chunk)
        return logprobs.sum() + entropies.sum(), (logprobs, entropies)

    gradient = jax.jit(jax.grad(total, has_aux=True), static_argnums=1)
    whole, chunked = gradient(params, 64), gradient(params, logits_chunk)
    assert chunked[1][0].shape == (2, 3, 7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), whole, chunked)
