"""Labels of steps by completions: they are what a direct recount gives, and no prefix is completed twice."""

import collections
import dataclasses

import jax
import pyarrow
import pytest

from dsmath.data import chat
from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.reward import shepherd
from dsmath.reward.answers import extract_answer, is_equivalent
from dsmath.reward.groups import from_table
from dsmath.reward.steps import split_steps
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Request
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params

DECODING = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=32)
COMPLETIONS = 4
KEY = jax.random.key(5)


class _Recorder:
    """An engine that keeps the requests that it serves."""

    def __init__(self, engine: Engine):
        self.engine, self.requests = engine, []

    def generate(self, params, requests, key):
        self.requests += requests
        return self.engine.generate(params, requests, key)


@pytest.fixture(scope="module")
def setting(solver):
    tokenizer = Tokenizer.load(solver)
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    model = Transformer(read_model(solver))
    params = read_params(solver, abstract_params(model, mesh))
    prompt = chat.encode_prompt(Solution("How many?", "2", ""), tokenizer)
    limits = fit(
        model.config,
        mesh,
        slots=32,
        memory_gib=1.0,
        cache_dtype="float32",
        block_steps=8,
        prefill_tokens=256,
        group_size=8,
        longest_prompt=len(prompt) + DECODING.max_new_tokens,
        max_new_tokens=DECODING.max_new_tokens,
    )
    return tokenizer, prompt, params, Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)


@pytest.fixture(scope="module")
def labelled(setting):
    """A table of two questions' samples, labelled; and the requests that it took."""
    tokenizer, prompt, params, engine = setting
    golds = {7: "2", 8: "3"}
    requests = [Request(index, prompt, 8, DECODING, (tokenizer.eos_id,)) for index in golds]
    found = sorted(engine.generate(params, requests, KEY), key=lambda sample: (sample.request_id, sample.sample))
    columns = {
        "question_index": [sample.request_id for sample in found],
        "gold": [golds[sample.request_id] for sample in found],
        "token_ids": [list(sample.tokens) for sample in found],
        "correct": [extract_answer(sample.text) == golds[sample.request_id] for sample in found],
    }
    recorder = _Recorder(engine)
    table = shepherd.label(
        pyarrow.table(columns),
        dict.fromkeys(golds, prompt),
        recorder,
        params,
        tokenizer,
        num_completions=COMPLETIONS,
        decoding=DECODING,
        key=KEY,
    )
    return table, recorder.requests


def test_a_steps_label_is_a_recount_of_completions_of_its_prefix(setting, labelled):
    tokenizer, prompt, params, engine = setting
    table, requests = labelled
    hits = {}  # by question and prefix, in the order in which they are met
    golds = {}
    for row in table.to_pylist():
        ends = row["step_ends"]
        assert len(ends) == len(split_steps(tokenizer.decode(row["token_ids"])))
        assert row["step_hits"][-1] == COMPLETIONS * row["correct"]
        golds[row["question_index"]] = row["gold"]
        for end, found in zip(ends[:-1], row["step_hits"], strict=False):
            prefix = (row["question_index"], tuple(row["token_ids"][: end + 1]))
            assert hits.setdefault(prefix, found) == found
    key = jax.random.fold_in(KEY, 7)  # of the table's first question
    for request, (index, begun) in zip(requests, hits, strict=True):
        assert request.prompt == [*prompt, *begun]
        assert request.decoding == dataclasses.replace(DECODING, max_new_tokens=32 - len(begun))
        samples = engine.generate(params, [request], key)  # alone
        answers = [extract_answer(tokenizer.decode([*begun, *sample.tokens])) for sample in samples]
        right = [answer is not None and is_equivalent(answer, golds[index]) for answer in answers]
        assert hits[index, begun] == sum(right)
    assert len(set(hits.values())) > 1  # better steps and worse ones


def test_a_prefix_that_samples_share_is_completed_once(setting, labelled):
    tokenizer, prompt, _, _ = setting
    table, requests = labelled
    prefixes = sum(len(row["step_ends"]) - 1 for row in table.to_pylist())
    assert len(requests) < prefixes
    texts = collections.Counter(tokenizer.decode(request.prompt[len(prompt) :]) for request in requests)
    assert max(texts.values()) <= 2  # of two questions


def test_hard_and_soft_labels_come_from_one_table(setting, labelled):
    _, prompt, _, _ = setting
    table, _ = labelled
    prompts = {7: prompt, 8: prompt}
    hard, soft = (from_table(table, prompts, soft=soft) for soft in (False, True))
    rows = iter(table.to_pylist())
    for group, of_hard in zip(soft, hard, strict=True):
        for solution, other in zip(group.solutions, of_hard.solutions, strict=True):
            row = next(rows)
            assert solution.step_labels.tolist() == [hits / COMPLETIONS for hits in row["step_hits"]]
            assert other.step_labels.tolist() == [float(hits > 0) for hits in row["step_hits"]]
            assert solution.label == other.label == row["correct"]
