"""Solutions as tokens: the prompt in the chat frame, then the solution, which alone is learned."""

from collections.abc import Sequence

import numpy as np
from absl import logging

from dsmath.data import arrays
from dsmath.data.solutions import Solution, chat_prompt
from dsmath.data.tokenizer import Tokenizer
from dsmath.data.turns import Turn, split_turns
from dsmath.runs.errors import InputError


def encode_prompt(record: Solution, tokenizer: Tokenizer) -> list[int]:
    """<bos> and the chat prompt, up to the place where the solution starts."""
    return [tokenizer.bos_id, *tokenizer.encode(chat_prompt(record.question, record.language, record.kind))]


def encode_chat(turns: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[int]:
    """<bos> and a conversation in the chat frame, up to the place where the next answer starts.

    Args:
      turns: roles (system, developer, user, assistant) and texts; a question is framed as it is, without the request to
        reason step by step that `encode_prompt` adds.
      tokenizer: of the model.
    Source: the released models' chat template.
    """
    tokens, text = [tokenizer.bos_id], ""
    for role, content in turns:
        if role == "assistant":
            tokens += [*tokenizer.encode(f"{text}Assistant: {content}"), tokenizer.eos_id]
            text = ""
        else:
            text += f"User: {content}\n\n" if role == "user" else f"{content}\n\n"
    return tokens + tokenizer.encode(f"{text}Assistant:")


def encode_solution(record: Solution, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The solution and <eos>, and for each token whether it is learned: 1, but 0 where an interpreter spoke.

    The turns of a tool-integrated solution are tokenized one by one, as the sampler does, which never tokenizes again
    what a model wrote or an interpreter answered.
    """
    text = f" {record.solution}"
    tokens, mask = [], []
    for turn in split_turns(text) if record.kind == "tir" else [Turn(text, False)]:
        ids = tokenizer.encode(turn.text)
        tokens += ids
        mask += [int(not turn.is_output)] * len(ids)
    return [*tokens, tokenizer.eos_id], [*mask, 1]


def encode_examples(records: Sequence[Solution], tokenizer: Tokenizer, max_length: int) -> list[arrays.Example]:
    """Each record as `tokens` and `loss_mask`, int32 [length]; the mask is 1 on the solution and its <eos>.

    It is 0 on the prompt and on an interpreter's outputs. Records longer than `max_length` tokens are left out, with a
    warning: cut they would teach wrong ends.

    Raises:
      InputError: more than half are longer.
    Source: DeepSeekMath §3; an output bears no loss, as in ToRA (arXiv 2309.17452).
    """
    encoded = [(encode_prompt(record, tokenizer), *encode_solution(record, tokenizer)) for record in records]
    fitting = [example for example in encoded if len(example[0]) + len(example[1]) <= max_length]
    if 2 * len(fitting) < len(encoded):
        longest = max(len(prompt) + len(solution) for prompt, solution, _ in encoded)
        raise InputError(
            f"config.length: {len(encoded) - len(fitting)} of {len(encoded)} solutions are longer than {max_length} "
            f"tokens (the longest has {longest}); raise it"
        )
    if len(fitting) < len(encoded):
        logging.warning(
            "%d of %d solutions are longer than config.length=%d tokens and are left out",
            len(encoded) - len(fitting),
            len(encoded),
            max_length - 1,
        )
    return [
        {
            "tokens": np.array(prompt + solution, np.int32),
            "loss_mask": np.array([0] * len(prompt) + mask, np.int32),
        }
        for prompt, solution, mask in fitting
    ]
