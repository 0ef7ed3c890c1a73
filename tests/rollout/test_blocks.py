"""The layout of a block: few active slots are picked out of the cache, each device its own."""

import jax
import numpy as np
import pytest

from dsmath.rollout.blocks import lay_out, make_block
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.requests import Limits, Request
from dsmath.rollout.slots import Sample

LIMITS = Limits(
    rows=16,
    width=4,
    prompt_buckets=(16, 32),
    new_buckets=(32, 64, 128),
    block_steps=8,
    prefill_tokens=64,
    max_stop_ids=2,
    cache_dtype="float32",
)
PLAIN = Decoding(1.0, 1.0, 128)


def _active(places, prompt: int = 5, tokens: int = 3) -> list:
    request = Request(7, list(range(prompt)), 4, PLAIN)
    return [(row, slot, Sample(request, slot, tokens=[1] * tokens)) for row, slot in places]


@pytest.mark.parametrize(
    "shards, places, entries",
    [
        (1, [(3, 1), (3, 2), (9, 0), (15, 3)], 4),  # a sixteenth of 64
        (1, [(row, 0) for row in range(16)], 16),  # a quarter
        (2, [(1, 0), (9, 0), (9, 1)], 4),  # 2 a device
        (2, [(0, 0), (0, 1), (0, 2), (15, 3)], 16),  # 3 on the first device: 8 a device
    ],
)
def test_few_active_slots_are_picked_each_on_its_device(shards, places, entries):
    layout = lay_out(_active(places, tokens=100), LIMITS, shards, exact=False)
    assert layout.shape == (entries, 1)
    assert (layout.prefix_length, layout.suffix_length) == (16, 128)  # one program for all lengths of samples
    of_device = LIMITS.rows // shards
    for (row, slot), place, within in zip(places, layout.rows, layout.slots, strict=True):
        assert place // (entries // shards) == row // of_device
        assert (layout.picked.rows[place], layout.picked.slots[place], within) == (row % of_device, slot, 0)
    assert len(set(layout.rows.tolist())) == len(places)
    others = np.delete(layout.picked.rows, layout.rows)
    assert (others == of_device).all()  # past the last row: nobody


def test_many_active_slots_stay_where_they_are():
    places = [(row, slot) for row in range(16) for slot in range(2)]
    layout = lay_out(_active(places, prompt=20, tokens=30), LIMITS, 1, exact=False)
    assert layout.picked is None
    assert list(zip(layout.rows, layout.slots, strict=True)) == places
    assert (layout.shape, layout.prefix_length, layout.suffix_length) == ((16, 4), 32, 64)


def test_a_crowd_on_one_device_keeps_all_in_place():
    places = [(row, slot) for row in range(3) for slot in range(3)]  # 9 of the first device's 32
    assert lay_out(_active(places, tokens=100), LIMITS, 2, exact=False).picked is None


def test_nothing_is_picked_where_that_costs_as_much_or_attention_reads_no_more_than_there_is():
    places = [(row, 0) for row in range(16)]
    # 16 whole questions and 128 tokens each: more than half of 16 questions and 64 samples of 32 tokens.
    long_prompts = Limits(**{**vars(LIMITS), "prompt_buckets": (1024,)})
    assert lay_out(_active(places, prompt=900), long_prompts, 1, exact=False).picked is None
    layout = lay_out(_active(places[:1]), LIMITS, 1, exact=True)
    assert layout.picked is None
    assert (layout.prefix_length, layout.suffix_length) == (32, 128)


def test_a_block_says_of_a_picked_slot_what_it_says_of_one_in_place():
    active = _active([(3, 1)], tokens=6)
    layout = lay_out(active, LIMITS, 1, exact=False)
    block = make_block(active, layout, LIMITS, [], least_active=1)
    place = layout.rows[0], layout.slots[0]
    said = {name: int(getattr(block, name)[place]) for name in ("tokens", "lengths", "limits", "active", "samples")}
    assert said == {"tokens": 1, "lengths": 6, "limits": 128, "active": 1, "samples": 1}
    assert block.active.sum() == 1
    assert block.prefix_lengths[place[0]] == 4
    assert block.streams[place[0]] == 7
    assert block.history is None


@pytest.mark.parametrize(
    "mesh, cache_dtype", [((("data", 1),), "float32"), ((("data", 2), ("tensor", 2)), "int8")], ids=str
)
def test_a_picked_sample_is_the_sample(engine_of, mesh, cache_dtype):
    prompts = [[5, 9, 33], [8] * 20]
    decodings = [Decoding(1.0, 1.0, 12), Decoding(1.0, 0.9, 12, repetition_penalty=1.5)]

    def sample(**changes):
        engine, params = engine_of(mesh, cache_dtype=cache_dtype, **changes)
        requests = [
            Request(n, prompt, 2, how, (2,)) for n, (prompt, how) in enumerate(zip(prompts, decodings, strict=True))
        ]
        found = engine.generate(params, requests, jax.random.key(3))
        return {(one.request_id, one.sample): one for one in found}

    apart, in_place = sample(rows=64, width=2), sample(rows=1, width=1)
    assert apart.keys() == in_place.keys()
    for key, completion in apart.items():
        assert completion.tokens == in_place[key].tokens
        np.testing.assert_allclose(completion.logprobs, in_place[key].logprobs, atol=1e-4)
