"""Where text ends a sample or pauses it: stop strings, tools, and what goes wrong with them."""

import functools
import threading
import time

import jax
import numpy as np
import pytest

from dsmath.rollout.batches import completion_logprobs, make_batch
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.ends import find_stop
from dsmath.rollout.requests import Request
from dsmath.rollout.samples import empty_samples, put

LIMIT = 12
PROMPTS = [np.random.default_rng(seed).integers(4, 64, 5 + seed).tolist() for seed in range(4)]
PLAIN = Decoding(1.0, 1.0, LIMIT)


class Calculator:
    """Takes any letter of `signs` for a call and answers `=` and the letter twice."""

    timeout, max_calls, max_output_tokens = 20.0, 1, 100
    ends_with_output = False

    def __init__(self, signs: str = "0123456789", **changes):
        self._signs = signs
        self.calls = []
        vars(self).update(changes)

    def find(self, text: str) -> str | None:
        return next((letter for letter in text if letter in self._signs), None)

    def begin(self) -> "Calculator":
        return self

    def run(self, call: str) -> str:
        self.calls.append(call)
        return f"={call}{call}"

    def end(self) -> None:
        pass

    def explain(self, error: Exception) -> str:
        return f"?{type(error).__name__[0]}"


@pytest.fixture(scope="module")
def serve(engine_of):
    """(request fields) -> the completions by (request, sample)."""

    def serve(decoding=PLAIN, num_samples=3, limits=(), **fields):
        engine, params = engine_of(**dict(limits))
        requests = [Request(place, prompt, num_samples, decoding, **fields) for place, prompt in enumerate(PROMPTS)]
        found = engine.generate(params, requests, jax.random.key(1))
        return {(completion.request_id, completion.sample): completion for completion in found}

    return serve


@pytest.fixture(scope="module")
def plain(serve):
    return serve()


def test_a_stop_string_across_tokens_ends_the_sample_with_the_token_that_completes_it(serve, plain, letters):
    text = plain[1, 2].text
    stop = text[4:7]  # a letter is a token, and blocks are of four
    completions = serve(stop=(stop, "never"))
    assert completions[1, 2].tokens == plain[1, 2].tokens[:7]
    assert completions[1, 2].logprobs == pytest.approx(plain[1, 2].logprobs[:7], abs=1e-5)
    assert completions[1, 2].finish_reason == "stop"
    assert completions[1, 2].text == text[:4]
    for place, completion in completions.items():
        if stop not in plain[place].text:
            assert completion.tokens == plain[place].tokens


def test_a_stop_string_that_never_comes_ends_at_the_limit(serve, plain):
    for place, completion in serve(stop=("never",)).items():
        assert completion.tokens == plain[place].tokens
        assert completion.finish_reason == "length"


def test_a_stop_string_is_found_in_a_long_text_that_was_looked_at_before(letters):
    tokens = letters.encode("x" * 200 + "stop" + "y" * 5)
    assert find_stop(letters, tokens, 202, 0, ("stop",)) == 204
    assert find_stop(letters, tokens, 204, 0, ("stop",)) in (None, 205)  # was found before
    assert find_stop(letters, tokens[:203], 0, 0, ("stop",)) is None
    assert find_stop(letters, tokens, 0, 201, ("stop",)) is None  # begins before what counts


def test_a_call_pauses_a_sample_and_its_output_goes_on_masked(serve, plain, letters):
    tool = Calculator()
    completions = serve(tool=tool)
    called = {place: next((c for c in one.text if c in "0123456789"), None) for place, one in plain.items()}
    assert sum(sign is not None for sign in called.values()) >= 4
    for place, completion in completions.items():
        sign, text = called[place], plain[place].text
        assert len(completion.tokens) == len(completion.logprobs) == len(completion.loss_mask)
        if sign is None:
            assert completion.tokens == plain[place].tokens
            continue
        cut = text.index(sign) + 1
        if cut == LIMIT:
            assert completion.tokens == plain[place].tokens
            continue
        output = f"={sign}{sign}"[: LIMIT - cut]
        assert completion.text.startswith(text[:cut] + output)
        assert completion.loss_mask[:cut] == (1,) * cut
        assert completion.loss_mask[cut : cut + len(output)] == (0,) * len(output)
        assert completion.logprobs[cut : cut + len(output)] == (0.0,) * len(output)
        assert all(completion.loss_mask[cut + len(output) :])
        again = completion.text[cut + len(output) :]
        assert completion.finish_reason == ("tool_limit" if set(again) & set("0123456789") else "length")


@pytest.mark.parametrize("block_steps", [3, 4])
def test_the_output_of_the_last_call_may_end_a_sample(serve, letters, block_steps):
    limits = (("block_steps", block_steps),)
    longer, ended = (serve(tool=Calculator(ends_with_output=ends), limits=limits) for ends in (False, True))
    reasons = set()
    for place, completion in ended.items():
        outputs = [where for where, own in enumerate(completion.loss_mask) if not own]
        if outputs:
            assert completion.tokens == longer[place].tokens[: outputs[-1] + 1]
            assert completion.finish_reason == ("length" if len(completion.tokens) == LIMIT else "tool_limit")
            assert len(completion.logprobs) == len(completion.loss_mask) == len(completion.tokens)
            reasons.add(completion.finish_reason)
        else:
            assert completion.tokens == longer[place].tokens
    assert "tool_limit" in reasons


def test_what_follows_a_call_has_the_logprobs_of_the_training_forward_pass(serve, model, params):
    completions = serve(tool=Calculator(max_calls=9))
    samples = empty_samples(4, 3, LIMIT, 0)
    for (place, _), completion in completions.items():
        put(samples, place, completion)
    batch = make_batch(PROMPTS, samples, 0)
    logprobs, _ = jax.jit(functools.partial(completion_logprobs, model, logits_chunk=64))(params, batch)
    assert 0 < batch["mask"].mean() < 1
    np.testing.assert_allclose(samples.logprobs, logprobs * batch["mask"], atol=1e-4)


def test_samples_with_calls_do_not_depend_on_the_slots(serve):
    many, few = (
        serve(tool=Calculator(max_calls=9)),
        serve(tool=Calculator(max_calls=9), limits=(("rows", 2), ("width", 2), ("block_steps", 3))),
    )
    assert {place: one.tokens for place, one in many.items()} == {place: one.tokens for place, one in few.items()}


class Counter(Calculator):
    """Answers with the number of the sample's call."""

    max_calls = 9

    def begin(self) -> "_Count":
        self.calls.append(_Count())
        return self.calls[-1]


class _Count:
    def __init__(self):
        self.count, self.ended = 0, 0

    def run(self, call: str) -> str:
        self.count += 1
        return "abcdefghi"[self.count - 1]

    def end(self) -> None:
        self.ended += 1


def test_the_calls_of_a_sample_share_a_state_that_ends_with_it(serve):
    tool = Counter()
    completions = serve(tool=tool)
    said = [
        "".join(letter for letter, kept in zip(one.text, one.loss_mask, strict=True) if not kept)
        for one in completions.values()
    ]
    assert all(text == "abcdefghi"[: len(text)] for text in said)
    assert max(map(len, said)) > 1
    assert len(tool.calls) >= sum(map(bool, said))
    assert all(count.ended == 1 for count in tool.calls)


def test_a_state_ends_with_a_request_that_is_cancelled_or_an_engine_that_is_released(engine_of):
    for leave in ("cancel", "release"):
        engine, params = engine_of()
        tool = Counter(signs="".join(map(chr, range(44, 104))))
        engine.load(params, jax.random.key(1))
        engine.add(Request(0, PROMPTS[0], 3, PLAIN, tool=tool))
        engine.step()
        assert tool.calls
        assert not any(count.ended for count in tool.calls)
        engine.cancel(0) if leave == "cancel" else engine.release()
        assert all(count.ended == 1 for count in tool.calls)
        engine.release()


def test_long_output_is_cut(serve):
    completions = serve(tool=Calculator(max_output_tokens=1))
    assert any("=" in one.text for one in completions.values())
    assert all(one.loss_mask.count(0) <= 1 for one in completions.values())


@pytest.mark.parametrize("kind", ["raises", "hangs"])
def test_a_tool_that_raises_or_hangs_is_explained_to_the_sample(serve, kind):
    ended = threading.Event()

    def run(call: str) -> str:
        if kind == "raises":
            raise ValueError(call)
        ended.wait(60)
        return "late"

    began = time.monotonic()
    completions = serve(tool=Calculator(run=run, timeout=0.3))
    ended.set()
    assert time.monotonic() - began < 60
    texts = [one.text for one in completions.values() if 0 in one.loss_mask]
    assert texts
    assert all(("?V" if kind == "raises" else "?T").startswith(text[text.index("?") :][:2]) for text in texts)


def test_others_decode_while_a_tool_runs(engine_of, plain):
    release = threading.Event()

    def run(call: str) -> str:
        release.wait(60)
        return "ok"

    engine, params = engine_of()
    engine.load(params, jax.random.key(1))
    engine.add(Request(0, PROMPTS[0], 3, PLAIN, tool=Calculator(signs="".join(map(chr, range(44, 104))), run=run)))
    engine.add(Request(1, PROMPTS[1], 3, PLAIN))
    finished = [completion for _ in range(3) for completion in engine.step()]
    assert {one.request_id for one in finished} == {1}
    assert {one.tokens for one in finished} == {plain[1, number].tokens for number in range(3)}
    release.set()
    while engine.busy:
        finished += engine.step()
    assert len(finished) == 6
    engine.release()
