"""The sampler: a request's sample is its own, and its numbers are those of the training forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rl.batches import completion_logprobs, make_batch
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.sampler import Sampler, Samples, pad_prompts
from dsmath.train.state import abstract_state, create_state

PAD, EOS, LIMIT = 0, 2, 12
PROMPTS = [
    np.random.default_rng(seed).integers(4, 64, length).tolist()
    for seed, length in enumerate([1, 5, 16, 17, 9, 30, 3, 12, 20, 7])
]
KEY = 7


@pytest.fixture(scope="module")
def model(make_model_config):
    return Transformer(make_model_config())


@functools.cache
def _mesh(**shape: int):
    return make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])


@pytest.fixture(scope="module")
def params(model):
    """Parameters whose distributions are flat enough to draw many different tokens, EOS among them."""
    params = jax.device_get(create_state(model, optax.identity(), _mesh(data=1), seed=3).params)
    params["params"]["final_norm"]["scale"] = params["params"]["final_norm"]["scale"] * 0.3
    return params


@pytest.fixture(scope="module")
def sample(model, params):
    """(places in PROMPTS, …) -> samples; the request id of a prompt is its place where no other is given."""

    @functools.cache
    def sampler(mesh: tuple[tuple[str, int], ...], batch_size: int, group_size: int, temperature: float):
        mesh = _mesh(**dict(mesh))
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optax.identity(), mesh).params)
        decoding = Decoding(temperature, 1.0, LIMIT)
        built = Sampler(
            model, mesh, eos_id=EOS, pad_id=PAD, decoding=decoding, group_size=group_size, batch_size=batch_size
        )
        return built, jax.device_put(params, shardings)

    def sample(
        places=range(10),
        requests=None,
        mesh=(("data", 1),),
        batch_size=10,
        group_size=3,
        temperature=1.0,
        seed=KEY,
        **kwargs,
    ):
        built, placed = sampler(tuple(mesh), batch_size, group_size, temperature)
        sample.last = built
        requests = list(places) if requests is None else requests
        return built(placed, [PROMPTS[place] for place in places], requests, jax.random.key(seed), **kwargs)

    return sample


@pytest.fixture(scope="module")
def reference(sample) -> Samples:
    return sample()


def _assert_same(samples: Samples, reference: Samples, requests) -> None:
    requests = list(requests)
    np.testing.assert_array_equal(samples.tokens, reference.tokens[requests])
    np.testing.assert_array_equal(samples.lengths, reference.lengths[requests])
    np.testing.assert_array_equal(samples.truncated, reference.truncated[requests])
    np.testing.assert_allclose(samples.logprobs, reference.logprobs[requests], atol=1e-4)


def test_samples_are_worth_comparing(reference):
    assert reference.tokens.shape == reference.logprobs.shape == (10, 3, LIMIT)
    assert len({tuple(row) for row in reference.tokens.reshape(30, LIMIT).tolist()}) > 25
    assert 0 < reference.truncated.sum() < 30


def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(sample, reference):
    for requests in ([9, 2, 5, 0, 1, 3, 4, 6, 7, 8], [4, 7]):
        _assert_same(sample(requests), reference, requests)


def test_a_sample_does_not_depend_on_the_batch_size(sample, reference):
    finished = []
    _assert_same(sample(batch_size=4, on_batch=finished.append), reference, range(10))
    assert finished == [4, 4, 2]


@pytest.mark.parametrize("mesh", [[("data", 8)], [("data", 2), ("fsdp", 2), ("tensor", 2)]], ids=str)
def test_a_sample_does_not_depend_on_the_mesh(sample, reference, mesh):
    _assert_same(sample(mesh=mesh), reference, range(10))


def test_another_request_of_the_same_prompt_and_another_place_in_the_group_draw_anew(sample, reference):
    samples = sample([5, 5], requests=[5, 105])
    np.testing.assert_array_equal(samples.tokens[0], reference.tokens[5])
    assert (samples.tokens[0] != samples.tokens[1]).any(axis=-1).all()
    assert (samples.tokens[0, 0] != samples.tokens[0, 1]).any()


def test_the_root_key_decides(sample, reference):
    assert (sample(seed=KEY + 1).tokens != reference.tokens).any(axis=-1).all()


def test_greedy_takes_the_argmax_of_the_plain_forward_pass(model, params, sample):
    samples = sample(group_size=2, temperature=0.0)
    np.testing.assert_array_equal(samples.tokens[:, 0], samples.tokens[:, 1])
    width = 48

    @jax.jit
    def forward(params, row):
        hidden, _ = model.apply(params, row, jnp.arange(width)[None], jnp.ones_like(row))
        return model.apply(params, hidden, method="logits")[0]

    for prompt, tokens, length in zip(PROMPTS, samples.tokens[:, 0], samples.lengths[:, 0], strict=True):
        row = np.zeros((1, width), np.int32)
        row[0, : len(prompt) + length] = [*prompt, *tokens[:length]]
        logits = np.asarray(forward(params, row))[len(prompt) - 1 : len(prompt) - 1 + length]
        best, chosen = logits.max(axis=-1), logits[np.arange(length), tokens[:length]]
        np.testing.assert_allclose(chosen, best, atol=1e-5)


@pytest.mark.parametrize("mesh", [[("data", 1)], [("data", 2), ("fsdp", 2), ("tensor", 2)]], ids=str)
def test_logprobs_are_those_of_the_training_forward_pass(model, params, sample, mesh):
    samples = sample(mesh=mesh)
    batch = make_batch(PROMPTS, samples, PAD)
    logprobs, entropies = jax.jit(functools.partial(completion_logprobs, model, logits_chunk=64))(params, batch)
    np.testing.assert_allclose(samples.logprobs * batch["mask"], logprobs * batch["mask"], atol=1e-4)
    assert (np.asarray(entropies) > 0).all()


def test_eos_ends_a_sample_and_a_sample_without_it_is_flagged(reference):
    for tokens, logprobs, length, truncated in zip(
        *(array.reshape(30, *array.shape[2:]) for array in reference), strict=True
    ):
        ends = np.flatnonzero(tokens == EOS)
        assert truncated == (len(ends) == 0)
        assert length == (LIMIT if truncated else ends[0] + 1)
        assert (tokens[length:] == PAD).all()
        assert (logprobs[length:] == 0).all()
        assert (logprobs[:length] < 0).all()


def test_calls_of_the_same_shape_do_not_compile_again(sample):
    sample()
    built = sample.last
    compiled = built._sample._cache_size()
    sample([3, 1, 4])
    sample([9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert sample.last is built
    assert built._sample._cache_size() == compiled


def test_the_batch_fills_the_shards_of_the_mesh(model):
    decoding = Decoding(1.0, 1.0, LIMIT)
    sizes = [
        Sampler(model, _mesh(data=8), eos_id=EOS, pad_id=PAD, decoding=decoding, group_size=1, batch_size=n).batch_size
        for n in (1, 8, 9)
    ]
    assert sizes == [8, 8, 16]


def test_prompts_are_padded_on_the_right_to_a_multiple_of_the_bucket():
    tokens, lengths = pad_prompts([[5, 6], list(range(1, 18))], PAD)
    assert tokens.shape == (2, 32)
    assert lengths.tolist() == [2, 17]
    assert tokens[0].tolist() == [5, 6] + [PAD] * 30
    assert tokens[1, :17].tolist() == list(range(1, 18))
