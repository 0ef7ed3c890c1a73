"""The engine: a request's sample is its own, and its numbers are those of the training forward pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsmath.rollout.batches import completion_logprobs, make_batch
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.requests import Limits, Request
from dsmath.rollout.samples import Samples, pad_prompts
from dsmath.runs.errors import InputError

PAD, EOS, LIMIT = 0, 2, 12
PROMPTS = [
    np.random.default_rng(seed).integers(4, 64, length).tolist()
    for seed, length in enumerate([1, 5, 16, 17, 9, 30, 3, 12, 20, 7])
]
KEY = 7
PLAIN = Decoding(1.0, 1.0, LIMIT)
FEW = {"rows": 2, "width": 2, "new_buckets": (4, 8, 12)}
MESHES = [(("data", 8),), (("data", 2), ("fsdp", 2), ("tensor", 2)), (("sequence", 2), ("data", 2))]


@pytest.fixture(scope="module")
def sample(engine_of):
    """(places in PROMPTS, …) -> samples; the request id of a prompt is its place where no other is given."""

    def sample(
        places=range(10), requests=None, mesh=(("data", 1),), group_size=3, decoding=PLAIN, seed=KEY, **limits
    ) -> Samples:
        engine, params = engine_of(mesh, **limits)
        requests = list(places) if requests is None else requests
        return engine.sample(
            params,
            [PROMPTS[place] for place in places],
            requests,
            jax.random.key(seed),
            decoding=decoding,
            group_size=group_size,
            stop_ids=(EOS,),
        )

    return sample


@pytest.fixture(scope="module")
def reference(sample) -> Samples:
    return sample()


def _assert_same(samples: Samples, reference: Samples, requests) -> None:
    requests = list(requests)
    np.testing.assert_array_equal(samples.tokens, reference.tokens[requests])
    np.testing.assert_array_equal(samples.lengths, reference.lengths[requests])
    np.testing.assert_array_equal(samples.truncated, reference.truncated[requests])
    np.testing.assert_array_equal(samples.mask, reference.mask[requests])
    np.testing.assert_allclose(samples.logprobs, reference.logprobs[requests], atol=1e-4)


def test_samples_are_worth_comparing(reference):
    assert reference.tokens.shape == reference.logprobs.shape == (10, 3, LIMIT)
    assert len({tuple(row) for row in reference.tokens.reshape(30, LIMIT).tolist()}) > 25
    assert 0 < reference.truncated.sum() < 30


def test_a_sample_does_not_depend_on_the_order_and_number_of_requests(sample, reference):
    for requests in ([9, 2, 5, 0, 1, 3, 4, 6, 7, 8], [4, 7]):
        _assert_same(sample(requests), reference, requests)


@pytest.mark.parametrize(
    "limits",
    [{"rows": 1}, {"rows": 4, "width": 2}, {"rows": 3, "width": 1, "block_steps": 5}, FEW],
    ids=str,
)
def test_a_sample_does_not_depend_on_rows_slots_and_blocks(sample, reference, limits):
    _assert_same(sample(**limits), reference, range(10))


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_sample_does_not_depend_on_the_mesh(sample, reference, mesh):
    _assert_same(sample(mesh=mesh), reference, range(10))


@pytest.mark.slow
def test_a_sample_of_a_smaller_cache_does_not_depend_on_the_slots_either(sample, reference, cache_dtype="int8"):
    small = sample(cache_dtype=cache_dtype)
    _assert_same(sample(cache_dtype=cache_dtype, rows=2, width=2, block_steps=3), small, range(10))
    assert (small.tokens == reference.tokens).mean() > 0.5
    assert (small.logprobs != reference.logprobs).any()


def test_another_request_of_the_same_prompt_and_another_place_in_the_group_draw_anew(sample, reference):
    samples = sample([5, 5], requests=[5, 105])
    np.testing.assert_array_equal(samples.tokens[0], reference.tokens[5])
    assert (samples.tokens[0] != samples.tokens[1]).any(axis=-1).all()
    assert (samples.tokens[0, 0] != samples.tokens[0, 1]).any()


def test_more_samples_begin_with_the_same_ones(sample, reference):
    more = sample([6, 1], group_size=8)
    np.testing.assert_array_equal(more.tokens[:, :3], reference.tokens[[6, 1]])
    assert len({tuple(row) for row in more.tokens[0].tolist()}) == 8


def test_a_seed_names_the_stream_in_place_of_the_id(engine_of, reference):
    engine, params = engine_of()
    requests = [Request(77, PROMPTS[5], 3, PLAIN, (EOS,), seed=5)]
    for completion in engine.generate(params, requests, jax.random.key(KEY)):
        length = len(completion.tokens)
        assert list(completion.tokens) == reference.tokens[5, completion.sample, :length].tolist()
        assert completion.request_id == 77


def test_the_root_key_decides(sample, reference):
    assert (sample(seed=KEY + 1).tokens != reference.tokens).any(axis=-1).all()


def test_requests_of_any_decoding_mix(engine_of, sample):
    kinds = [
        Decoding(0.0, 1.0, LIMIT),
        Decoding(0.7, 0.8, 7),
        Decoding(1.0, 1.0, LIMIT, top_k=3),
        Decoding(1.5, 1.0, 1, min_p=0.2),
        Decoding(1.0, 1.0, LIMIT, repetition_penalty=2.0),
    ]
    engine, params = engine_of(rows=4, width=2)
    requests = [Request(place, PROMPTS[place], 3, kind, (EOS,)) for place, kind in enumerate(kinds)]
    mixed = {(c.request_id, c.sample): c for c in engine.generate(params, requests, jax.random.key(KEY))}
    assert len(mixed) == 15
    for place, kind in enumerate(kinds):
        alone = sample([place], decoding=kind)
        for number in range(3):
            tokens = mixed[place, number].tokens
            assert list(tokens) == alone.tokens[0, number, : alone.lengths[0, number]].tolist()
            assert len(tokens) <= kind.max_new_tokens


@pytest.mark.parametrize("penalty", [1.0, 2.0])
def test_greedy_takes_the_argmax_of_the_plain_forward_pass(model, params, sample, penalty):
    samples = sample(group_size=2, decoding=Decoding(0.0, 1.0, LIMIT, repetition_penalty=penalty))
    np.testing.assert_array_equal(samples.tokens[:, 0], samples.tokens[:, 1])
    width = 48

    @jax.jit
    def forward(params, row):
        hidden, _ = model.apply(params, row, jnp.arange(width)[None], jnp.ones_like(row))
        return model.apply(params, hidden, method="logits")[0]

    for prompt, tokens, length in zip(PROMPTS, samples.tokens[:, 0], samples.lengths[:, 0], strict=True):
        row = np.zeros((1, width), np.int32)
        row[0, : len(prompt) + length] = [*prompt, *tokens[:length]]
        logits = np.array(forward(params, row))[len(prompt) - 1 : len(prompt) - 1 + length]
        for place in range(length):
            seen = np.unique([*prompt, *tokens[:place]])
            logits[place, seen] *= np.where(logits[place, seen] > 0, 1 / penalty, penalty)
        best, chosen = logits.max(axis=-1), logits[np.arange(length), tokens[:length]]
        np.testing.assert_allclose(chosen, best, atol=1e-5)


@pytest.mark.parametrize("mesh", [(("data", 1),), MESHES[1]], ids=str)
def test_logprobs_are_those_of_the_training_forward_pass(model, params, sample, mesh):
    samples = sample(mesh=mesh)
    batch = make_batch(PROMPTS, samples, PAD)
    logprobs, entropies = jax.jit(functools.partial(completion_logprobs, model, logits_chunk=64))(params, batch)
    np.testing.assert_allclose(samples.logprobs * batch["mask"], logprobs * batch["mask"], atol=2e-5)
    assert (np.asarray(entropies)[batch["mask"] > 0] > 0).all()


def test_scores_are_the_logprobs_of_the_samples(engine_of, sample):
    greedy = sample(decoding=Decoding(0.0, 1.0, LIMIT))
    engine, params = engine_of()
    engine.load(params, jax.random.key(0))
    lengths = greedy.lengths[:, 0]
    places = [place for place in range(10) if len(PROMPTS[place]) + lengths[place] <= 32]
    texts = [[*PROMPTS[place], *greedy.tokens[place, 0, : lengths[place]].tolist()] for place in places]
    for place, text, scored in zip(places, texts, engine.score(texts), strict=True):
        assert len(scored.logprobs) == len(scored.best) == len(text) - 1
        begin = len(PROMPTS[place]) - 1
        np.testing.assert_allclose(scored.logprobs[begin:], greedy.logprobs[place, 0, : lengths[place]], atol=1e-4)
        np.testing.assert_array_equal(scored.best[begin:], text[begin + 1 :])
        np.testing.assert_array_equal(scored.best_logprobs[begin:], scored.logprobs[begin:])
    with pytest.raises(InputError, match="33 tokens"):
        engine.score([[5] * 33])
    engine.release()


def test_tokens_that_may_come_next_are_scored_by_one_pass(engine_of):
    engine, params = engine_of()
    engine.load(params, jax.random.key(0))
    texts = [prompt for prompt in PROMPTS if len(prompt) < 32]
    options = [[7, 9, 11][: 1 + place % 3] for place in range(len(texts))]
    for text, tokens, found in zip(texts, options, engine.score_next(texts, options), strict=True):
        whole = [scored.logprobs[-1] for scored in engine.score([[*text, token] for token in tokens])]
        np.testing.assert_allclose(found, whole, atol=1e-4)
    with pytest.raises(InputError, match="33 tokens"):
        engine.score_next([[5] * 33], [[1]])
    engine.release()


def test_samples_that_exist_already_can_be_left_out(engine_of):
    engine, params = engine_of()
    request = Request(3, PROMPTS[3], 6, Decoding(1.0, 1.0, LIMIT))

    def serve(request):
        return {completion.sample: completion for completion in engine.generate(params, [request], jax.random.key(5))}

    whole, rest = serve(request), serve(dataclasses.replace(request, skip=frozenset({0, 2, 5})))
    assert rest == {number: whole[number] for number in (1, 3, 4)}
    with pytest.raises(InputError, match="one not in skip"):
        serve(dataclasses.replace(request, skip=frozenset(range(6))))


def test_eos_ends_a_sample_and_a_sample_without_it_is_flagged(reference):
    for tokens, logprobs, mask, length, truncated in zip(
        *(array.reshape(30, *array.shape[2:]) for array in reference), strict=True
    ):
        ends = np.flatnonzero(tokens == EOS)
        assert truncated == (len(ends) == 0)
        assert length == (LIMIT if truncated else ends[0] + 1)
        assert (tokens[length:] == PAD).all()
        assert (logprobs[length:] == 0).all()
        assert (logprobs[:length] < 0).all()
        assert mask.sum() == mask[:length].sum() == length


def test_nothing_compiles_again_after_every_bucket_was_seen(engine_of, sample):
    sample(**FEW)
    for place in (0, 5):  # a short and a long prompt, whose only sample is picked out of the cache
        sample([place], group_size=1, **FEW)
    engine, _ = engine_of((("data", 1),), **FEW)
    compiled = engine.programs.count_compiled()
    sample([3, 1, 4], group_size=5, **FEW)
    sample([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], group_size=1, decoding=Decoding(0.0, 1.0, 9), seed=1, **FEW)
    assert engine.programs.count_compiled() == compiled


def test_the_rows_fill_the_shards_of_the_mesh(model, engine_of):
    assert [engine_of(MESHES[0], rows=rows)[0].limits.rows for rows in (1, 8, 9)] == [8, 8, 16]


def test_prompt_buckets_that_the_sequence_axis_does_not_divide_are_refused(engine_of):
    with pytest.raises(InputError, match=r"prompt_buckets: \(15,\)"):
        engine_of(MESHES[2], prompt_buckets=(15,))


def test_a_request_may_begin_and_another_be_cancelled_while_others_run(engine_of, reference):
    engine, params = engine_of(**FEW)
    engine.load(params, jax.random.key(KEY))
    for request in (0, 1, 2):
        engine.add(Request(request, PROMPTS[request], 3, PLAIN, (EOS,)))
    with pytest.raises(InputError, match="request 1: another one"):
        engine.add(Request(1, PROMPTS[1], 3, PLAIN, (EOS,)))
    finished = engine.step()
    part = engine.running(1)
    assert part
    for completion in part:
        length = len(completion.tokens)
        assert completion.finish_reason is None
        assert list(completion.tokens) == reference.tokens[1, completion.sample, :length].tolist()
    engine.cancel(1)
    engine.cancel(2)
    engine.add(Request(6, PROMPTS[6], 3, PLAIN, (EOS,)))
    while engine.busy:
        finished += engine.step()
    assert engine.running(1) == engine.step() == []
    kept = {(c.request_id, c.sample) for c in finished if c.request_id in (0, 6)}
    assert kept == {(request, number) for request in (0, 6) for number in range(3)}
    assert {c.request_id for c in finished} <= {0, 1, 6}
    for completion in finished:
        expected = reference.tokens[completion.request_id, completion.sample]
        assert list(completion.tokens) == expected[: len(completion.tokens)].tolist()
    engine.release()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": [5] * 33}, "33 tokens, more than the engine's 32"),
        ({"decoding": Decoding(1.0, 1.0, 13)}, "max_new_tokens 13"),
        ({"num_samples": 0}, "num_samples 0"),
        ({"stop_ids": (1, 2, 3)}, "3 stop ids"),
        ({"stop": ("",)}, "an empty stop string"),
        ({"id": -1}, "its id is not in"),
        ({"seed": 2**32}, "its seed is not in"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_cannot_be_served_is_refused(engine_of, changes, named):
    engine, _ = engine_of()
    with pytest.raises(InputError, match=named):
        engine.add(Request(**({"id": 0, "prompt": [5], "num_samples": 1, "decoding": PLAIN} | changes)))
    assert not engine.busy


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"rows": 0}, "rows: 0"), ({"new_buckets": (8, 4)}, "new_buckets"), ({"cache_dtype": "int4"}, "cache_dtype")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limits_that_make_no_sense_are_refused(engine_of, changes, named):
    limits = vars(engine_of()[0].limits)
    with pytest.raises(InputError, match=named):
        Limits(**(limits | changes))


def test_stop_strings_need_a_codec(engine_of, model):
    engine = Engine(model, engine_of()[0]._mesh, engine_of()[0].limits, pad_id=PAD)
    with pytest.raises(InputError, match="need an engine with a codec"):
        engine.add(Request(0, [5], 1, PLAIN, stop=("x",)))


def test_prompts_are_padded_on_the_right_to_a_multiple_of_the_bucket():
    tokens, lengths = pad_prompts([[5, 6], list(range(1, 18))], PAD)
    assert tokens.shape == (2, 32)
    assert lengths.tolist() == [2, 17]
    assert tokens[0].tolist() == [5, 6] + [PAD] * 30
    assert tokens[1, :17].tolist() == list(range(1, 18))
