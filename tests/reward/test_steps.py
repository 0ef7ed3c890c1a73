"""Where the steps of a solution end, in text and in tokens."""

import io
import json
import random

import numpy as np
import pytest
import sentencepiece
import tokenizers

from dsmath.data import problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.reward.steps import find_ends, group_step_ends, split_steps, step_ends


@pytest.mark.parametrize(
    "steps",
    [
        ["First 3+4=7. ", "Then 7-2=5. ", "The answer is \\boxed{5}."],
        ["先算3+4=7。", "再算7-2=5。", "答案是\\boxed{5}。"],
        ["Pi is 3.14 or so. ", "Is it? ", "Yes! ", "It costs 1.5 dollars."],
        ["One line. With two sentences.\n\n", "Another line. With more."],
        ["By $f(x) = 1. \\quad x$ we see it. ", "So \\[a. \n b\\] holds. ", "It is \\boxed{\\text{A. b}}."],
        ["$$a \\\\\n b$$ is first.\n", "\\begin{align}x\n&=1\\end{align} is second."],
        ["It costs $5. ", "Then $3 more are paid. ", "That is $8."],
        ["So we have\n\\[x = 1.\\]\n", "And then\n\n$$y$$"],
        ["```python\nprint(1. )\nx = 2\n```\n", "It prints 1. 0."],
        ["```python\nprint(1)\nx = 2"],
        ["1. Add, e.g. 3+4, to get 7. ", "Then stop."],
        ["他说“是。”", "她说不！ ", "好。"],
        [" A space before. ", "A space behind. \n"],
        ["Bare"],
        [" \n "],
        [],
    ],
)
def test_steps_are_lines_or_the_sentences_of_one_paragraph(steps):
    assert split_steps("".join(steps)) == steps


def test_steps_of_any_text_join_to_the_text_and_none_is_blank():
    rng = random.Random(0)
    signs = ["a", "7", ".", " ", "\n", "$", "\\[", "\\]", "\\boxed{", "}", "{", "。", "!", "```", "\\", "e.g."]
    for _ in range(3000):
        text = "".join(rng.choices(signs, k=rng.randint(0, 20)))
        steps = split_steps(text)
        assert "".join(steps) == text
        assert all(step.strip() for step in steps) or not text.strip()


def test_the_embedded_worked_solutions_have_a_step_for_each_equation_and_the_answer():
    records = problems.load("embedded", "train", count=400, seed=0)
    worked = [record.solution for record in records if record.source.endswith("worked")]
    assert len(worked) > 50
    assert {len(split_steps(solution)) for solution in worked} == {3}


def test_math_shepherds_responses_have_a_step_for_each_label(shared_data):
    path = shared_data / "benchmarks/process_labels/example_responses_n15_llama3_8b_math_process.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    outputs = [output for record in records for output in record["outputs"]]
    assert all(output["response"].count("ки") == len(output["step_labels"]) for output in outputs)
    # Of those whose marks end lines; others have lost their line breaks, or are marked within formulas.
    lines = [o for o in outputs if o["response"].count("ки\n") == len(o["step_labels"]) - 1]
    assert len(lines) > 100
    same = [len(split_steps(o["response"].replace("ки", ""))) == len(o["step_labels"]) for o in lines]
    assert sum(same) >= 0.95 * len(same)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [record.solution for record in problems.load("embedded", "train", count=300, seed=0)]
    return Tokenizer.train(texts, vocab_size=360)


@pytest.mark.parametrize(
    "text",
    [
        " First 3+4=7. Then 7-2=5. The answer is \\boxed{5}.",
        " 先算3+4=7。再算7-2=5。答案是\\boxed{5}。",
        " é. ☃. 😀.",
    ],
)
def test_a_step_ends_with_the_token_that_completes_it(tokenizer, text):
    tokens = [*tokenizer.encode(text), tokenizer.eos_id]
    ends = step_ends(tokens, tokenizer.decode)
    steps = split_steps(text)
    assert len(ends) == len(steps)
    assert ends[-1] == len(tokens) - 1
    start = 0
    for end, step in zip(ends[:-1], steps, strict=False):
        done = text[: start + len(step.rstrip())]
        assert tokenizer.decode(tokens[: end + 1]).startswith(done)
        assert not tokenizer.decode(tokens[:end]).startswith(done)
        start += len(step)


def test_characters_of_several_tokens_are_not_cut(tokenizer):
    assert len(tokenizer.encode("😀")) > 1
    tokens = tokenizer.encode("😀。😀。")
    (first, last) = step_ends(tokens, tokenizer.decode)
    assert tokenizer.decode(tokens[: first + 1]) == "😀。"
    assert last == len(tokens) - 1


SIGNS = [
    "a",
    "7",
    ". ",
    " ",
    "\n",
    "\\boxed{",
    "}",
    "。",
    "!",
    "é. ",
    "☃",
    "😀。",
    "魑魅. ",
    "word ",
    " 3+4=7. ",
    "   ",
]


def _byte_level(texts):
    """A byte-level BPE, as of DeepSeek's checkpoints."""
    found = tokenizers.Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    found.train_from_iterator(texts, trainer)
    return lambda text: found.encode(text).ids, found.decode


def _leading_space(texts):
    """A SentencePiece model that adds a space in front of a text and takes it away, as Llama's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        minloglevel=2,
    )
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return found.encode, found.decode


def _first_ends(tokens, decode):
    """The ends by their definition: the first token with which the text begins with the steps so far."""
    text, ends, start = decode(tokens), [], 0
    for step in split_steps(text)[:-1]:
        done = text[: start + len(step.rstrip())]
        start += len(step)
        ends.append(next(end for end in range(len(tokens)) if decode(tokens[: end + 1]).startswith(done)))
    return [*ends, len(tokens) - 1] if tokens else []


@pytest.mark.parametrize("kind", ["ours", "byte_level", "leading_space"])
def test_the_ends_of_any_text_are_those_by_definition(tokenizer, kind):
    texts = [record.solution for record in problems.load("embedded", "train", count=300, seed=0)]
    makers = {"byte_level": _byte_level, "leading_space": _leading_space}
    encode, decode = makers[kind](texts) if kind in makers else (tokenizer.encode, tokenizer.decode)
    rng, steps = random.Random(0), 0
    for _ in range(60):
        tokens = encode("".join(rng.choices(SIGNS, k=rng.randint(0, 60))))
        ends = step_ends(tokens, decode)
        assert ends == _first_ends(tokens, decode)
        steps += len(ends)
    assert steps > 200


def test_groups_of_samples_have_their_ends_in_one_array(tokenizer):
    texts = [["Aa. Bb. Cc.", "Aa."], ["", "Aa. Bb."]]
    tokens, lengths = np.zeros((2, 2, 20), np.int32), np.zeros((2, 2), np.int32)
    for place in np.ndindex(2, 2):
        ids = tokenizer.encode(texts[place[0]][place[1]])
        tokens[place][: len(ids)], lengths[place] = ids, len(ids)
    ends = group_step_ends(tokens, lengths, tokenizer.decode)
    assert ends.shape == (2, 2, 3)
    assert (ends >= 0).sum(axis=2).tolist() == [[3, 1], [0, 2]]
    for place in np.ndindex(2, 2):
        assert ends[place].max() == lengths[place] - 1


def test_a_solution_without_tokens_has_no_step(tokenizer):
    assert step_ends([], tokenizer.decode) == []


def test_steps_that_are_known_end_where_they_are_said_to(tokenizer):
    tokens = tokenizer.encode("ab cd ef")
    ends = find_ends(tokens, tokenizer.decode, ["ab ", "cd ef"])
    assert tokenizer.decode(tokens[: ends[0] + 1]) == "ab"
