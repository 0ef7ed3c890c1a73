"""Tool-integrated solutions from training to rollout: one sequence of tokens, one mask, in both."""

import jax
import numpy as np
import optax
import pytest

from dsmath.data import chat
from dsmath.data.solutions import Solution, chat_prompt
from dsmath.data.tokenizer import Tokenizer
from dsmath.data.turns import write_block, write_output
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.ends import find_call
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Request
from dsmath.sandbox.tool import PythonTool
from dsmath.train.state import create_state, make_train_step
from dsmath.train.supervised import next_token_loss

NEW = 160  # tokens of a sample
RECORDS = [
    Solution("How many?", "42", f"```python\nprint(6*7)\n```\n\n{write_output('42')}So \\boxed{{42}}.", "tir"),
    Solution(
        "有多少个？",
        "43",
        f"用程序计算。\n{write_block('x = 6*7')}{write_output('')}好。\n{write_block('print(x + 1)')}{write_output('43')}"
        "答案是\\boxed{43}。",
        "tir",
        "zh",
    ),
]


@pytest.fixture(scope="module")
def tokenizer():
    texts = [chat_prompt(record.question, record.language, "tir") + record.solution for record in RECORDS]
    return Tokenizer.train(texts * 20, vocab_size=400)


@pytest.fixture(scope="module")
def tool(pool):
    return PythonTool(pool, seconds=20.0, memory=256 << 20, ends=50, max_calls=2, max_output_tokens=50)


@pytest.fixture(scope="module")
def learned(make_model_config, tokenizer):
    """A model that knows the solutions by heart, having learned from the examples of SFT."""
    examples = chat.encode_examples(RECORDS, tokenizer, 1000)
    shape = (len(examples), max(len(example["tokens"]) for example in examples))
    tokens, mask, held = (np.zeros(shape, np.int32) for _ in range(3))
    for row, example in enumerate(examples):
        length = len(example["tokens"])
        tokens[row, :length], mask[row, :length], held[row, :length] = example["tokens"], example["loss_mask"], 1
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "positions": np.broadcast_to(np.arange(shape[1] - 1, dtype=np.int32), (shape[0], shape[1] - 1)),
        "segment_ids": held[:, :-1],
        "loss_mask": mask[:, 1:].astype(np.float32),
    }
    mesh, optimizer = make_mesh({"data": 1}, jax.devices()[:1]), optax.adam(1e-2)
    model = Transformer(make_model_config(vocab_size=tokenizer.vocab_size, tied=False))
    state = create_state(model, optimizer, mesh, seed=0)
    step = make_train_step(next_token_loss(model, 512), optimizer, mesh)
    for _ in range(100):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.05
    return model, mesh, state.params


def test_a_rollout_makes_the_tokens_and_the_mask_of_training(learned, tokenizer, tool):
    model, mesh, params = learned
    limits = fit(
        model.config,
        mesh,
        slots=4,
        memory_gib=1.0,
        cache_dtype="float32",
        block_steps=8,
        prefill_tokens=512,
        group_size=1,
        longest_prompt=200,
        max_new_tokens=NEW,
    )
    engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)
    requests = [
        Request(
            place,
            chat.encode_prompt(record, tokenizer),
            1,
            Decoding(0.0, 1.0, NEW),
            (tokenizer.eos_id,),
            tool=tool,
        )
        for place, record in enumerate(RECORDS)
    ]
    completions = {one.request_id: one for one in engine.generate(params, requests, jax.random.key(0))}
    examples = chat.encode_examples(RECORDS, tokenizer, 1000)
    for place, (request, example) in enumerate(zip(requests, examples, strict=True)):
        assert completions[place].finish_reason == "stop"
        assert [*request.prompt, *completions[place].tokens] == example["tokens"].tolist()
        assert [0] * len(request.prompt) + [*completions[place].loss_mask] == example["loss_mask"].tolist()
        assert 0 in completions[place].loss_mask


def test_a_call_ends_with_a_turn_of_the_training_example(tokenizer, tool):
    for record in RECORDS:
        tokens, mask = chat.encode_solution(record, tokenizer)
        starts = [0, *(place for place in range(1, len(mask)) if mask[place] > mask[place - 1])]
        for start in starts[:-1]:
            end = start + mask[start:].index(0)
            assert find_call(tokenizer, tool, tokens, start, start)[0] == end
