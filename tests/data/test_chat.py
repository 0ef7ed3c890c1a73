"""Solutions as tokens: the chat frame, and which tokens are learned."""

import numpy as np
import pytest

from dsmath.data import problems
from dsmath.data.chat import encode_examples, encode_prompt, encode_solution
from dsmath.data.solutions import Solution, chat_prompt
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs.errors import InputError

RECORDS = problems.generate("train", 60, seed=0)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [chat_prompt(record.question, record.language) + " " + record.solution for record in RECORDS]
    return Tokenizer.train(texts, vocab_size=600)


def test_the_prompts_are_the_papers():
    assert chat_prompt("Q?") == (
        "User: Q?\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:"
    )
    assert (
        chat_prompt("Q?", "zh") == "User: Q?\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。\n\nAssistant:"
    )
    tool = chat_prompt("Q?", "en", "tir")
    assert "integrate natural language reasoning with programs" in tool
    assert chat_prompt("Q?", "en", "pot") == tool
    assert "结合自然语言和Python程序语言" in chat_prompt("Q?", "zh", "tir")


def test_prompt_and_solution_together_are_the_chat(tokenizer):
    for record in RECORDS[:10]:
        prompt, (solution, _) = encode_prompt(record, tokenizer), encode_solution(record, tokenizer)
        assert prompt[0] == tokenizer.bos_id
        assert solution[-1] == tokenizer.eos_id
        chat = chat_prompt(record.question, record.language, record.kind) + " " + record.solution
        assert tokenizer.decode(prompt + solution) == chat
        assert tokenizer.decode(solution) == " " + record.solution


def test_the_loss_lies_on_the_solution_and_its_end_alone(tokenizer):
    for record, example in zip(RECORDS, encode_examples(RECORDS, tokenizer, 10_000), strict=True):
        tokens, mask = example["tokens"], example["loss_mask"]
        assert tokens.dtype == mask.dtype == np.int32
        assert tokens.shape == mask.shape
        assert tokenizer.decode(tokens[mask == 1]) == " " + record.solution
        assert tokens[mask == 1][-1] == tokenizer.eos_id
        assert (np.diff(mask) >= 0).all()


def test_too_long_solutions_are_left_out_whole(tokenizer):
    lengths = sorted(len(example["tokens"]) for example in encode_examples(RECORDS, tokenizer, 10_000))
    limit = lengths[len(lengths) * 3 // 4]
    kept = list(encode_examples(RECORDS, tokenizer, limit))
    assert len(kept) == sum(length <= limit for length in lengths) < len(RECORDS)
    assert max(len(example["tokens"]) for example in kept) == limit


def test_a_limit_that_leaves_out_most_is_an_error(tokenizer):
    long = Solution("How many?", "1", "one " * 500)
    with pytest.raises(InputError, match=r"config\.length: 3 of 4 solutions are longer than 200 tokens .*raise it"):
        list(encode_examples([RECORDS[0], long, long, long], tokenizer, 200))


def test_an_interpreters_outputs_bear_no_loss():
    records = problems.load("embedded_large", "train", count=40, seed=0, kinds=("cot", "pot", "tir"))
    tokenizer = Tokenizer.train([record.question + record.solution for record in records], vocab_size=600)
    for record, example in zip(records, encode_examples(records, tokenizer, 10_000), strict=True):
        tokens, mask = example["tokens"], example["loss_mask"]
        solution = tokens[mask.argmax() :]
        assert tokenizer.decode(solution) == " " + record.solution
        unlearned = tokenizer.decode(solution[mask[mask.argmax() :] == 0])
        assert unlearned == (f"```output\n{record.answer}\n```\n" if record.kind == "tir" else "")
        assert solution[-1] == tokenizer.eos_id
