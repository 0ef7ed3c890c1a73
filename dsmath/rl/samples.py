"""The samples of a run on disk: what was asked and answered, and how each token was judged. A Parquet file a step."""

import functools
import os
import pathlib
import types
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow
import pyarrow.parquet

from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.reward.answers import extract_answer
from dsmath.rollout.samples import Samples
from dsmath.rollout.texts import token_texts
from dsmath.runs.workdir import replacing

FOLDER = "samples"
_FLOATS = pyarrow.list_(pyarrow.float32())
SCHEMA = pyarrow.schema(
    [
        ("step", pyarrow.int32()),
        ("request", pyarrow.int64()),  # its number in the run
        ("sample", pyarrow.int32()),
        ("question", pyarrow.string()),
        ("gold", pyarrow.string()),
        ("prompt", pyarrow.string()),
        ("completion", pyarrow.string()),
        ("answer", pyarrow.string()),  # null where the completion names none
        ("correct", pyarrow.bool_()),  # null where no rule judged it
        ("reward", pyarrow.float32()),
        ("rewards", pyarrow.map_(pyarrow.string(), pyarrow.float32())),  # its parts by name; null where it has none
        ("finish_reason", pyarrow.string()),  # "stop" or "length"
        # Of each token; null where the run has no such numbers.
        ("pieces", pyarrow.list_(pyarrow.string())),
        ("mask", pyarrow.list_(pyarrow.int8())),
        ("advantages", _FLOATS),
        ("coefficients", _FLOATS),
        ("logprobs", _FLOATS),  # when it was sampled
        ("ref_logprobs", _FLOATS),
        # Of each step, where a process reward model judged it.
        ("step_ends", pyarrow.list_(pyarrow.int32())),
        ("step_rewards", _FLOATS),
    ]
)


def make_table(
    step: int,
    requests: Sequence[int],
    records: Sequence[Solution],
    prompts: Sequence[Sequence[int]],
    samples: Samples,
    tokenizer: Tokenizer,
    *,
    rewards: np.ndarray,
    advantages: np.ndarray,
    correct: np.ndarray | None = None,
    parts: Mapping[str, np.ndarray] | None = None,
    coefficients: np.ndarray | None = None,
    ref_logprobs: np.ndarray | None = None,
    step_ends: np.ndarray | None = None,
    step_rewards: np.ndarray | None = None,
) -> pyarrow.Table:
    """A row for each sample of a step, the groups one after another.

    Args:
      step: its number.
      requests, records, prompts: of the Q questions, their numbers in the run, problems and token ids.
      samples: their groups, arrays [Q, G, L].
      tokenizer: of the policy.
      rewards: float32 [Q, G].
      advantages: float32 [Q, G], or [Q, G, L] where tokens differ.
      correct: bool [Q, G].
      parts: of a mixed reward, float32 [Q, G] by name.
      coefficients, ref_logprobs: float32 [Q, G, L].
      step_ends, step_rewards: int32 and float32 [Q, G, S]; an end of -1 is no step.
    """
    questions, group, length = samples.tokens.shape
    is_token = np.arange(length) < samples.lengths[..., None]  # [Q, G, L]
    is_step = None if step_ends is None else np.asarray(step_ends) >= 0
    sequences = [samples.tokens[place][here].tolist() for place, here in _outputs(is_token)]
    completions = [tokenizer.decode(tokens) for tokens in sequences]
    if advantages.ndim == 2:
        advantages = np.broadcast_to(advantages[..., None], samples.tokens.shape)
    repeated = {
        "request": requests,
        "question": [record.question for record in records],
        "gold": [record.answer for record in records],
        "prompt": [tokenizer.decode(prompt) for prompt in prompts],
    }
    columns = {name: [value for value in values for _ in range(group)] for name, values in repeated.items()} | {
        "step": [step] * (questions * group),
        "sample": list(range(group)) * questions,
        "completion": completions,
        "answer": [extract_answer(completion) for completion in completions],
        "correct": None if correct is None else np.asarray(correct, bool).ravel(),
        "reward": np.asarray(rewards, np.float32).ravel(),
        "rewards": _rows_of_parts(parts),
        "finish_reason": np.where(samples.truncated.ravel(), "length", "stop"),
        "pieces": token_pieces(tokenizer, sequences),
        "mask": _lists(samples.mask, is_token, np.int8),
        "advantages": _lists(advantages, is_token, np.float32),
        "coefficients": _lists(coefficients, is_token, np.float32),
        "logprobs": _lists(samples.logprobs, is_token, np.float32),
        "ref_logprobs": _lists(ref_logprobs, is_token, np.float32),
        "step_ends": _lists(step_ends, is_step, np.int32),
        "step_rewards": _lists(step_rewards, is_step, np.float32),
    }
    nothing = [None] * (questions * group)
    return pyarrow.table(
        [
            pyarrow.array(nothing if columns[field.name] is None else columns[field.name], field.type)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )


def token_pieces(tokenizer: Tokenizer, sequences: Sequence[Sequence[int]]) -> list[list[str]]:
    """What each token adds to its text: joined they are the text, but that special tokens stand there by name.

    A character of several tokens is added by the last of them; the others add "".
    """
    # A group's samples repeat each other.
    codec = types.SimpleNamespace(decode=functools.lru_cache(maxsize=65_536)(tokenizer.decode))

    def name(token: int, piece: str) -> str:
        return piece or ("" if codec.decode((token,)) else tokenizer.piece(token) or f"<{token}>")

    return [
        [name(token, piece) for token, piece in zip(tokens, token_texts(codec, tuple(tokens)), strict=True)]
        for tokens in sequences
    ]


def _outputs(is_token: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The place of each output in its arrays, and which of its places hold a token."""
    for place in np.ndindex(is_token.shape[:2]):
        yield place, is_token[place]


def _lists(values: np.ndarray | None, here: np.ndarray | None, dtype: type) -> pyarrow.Array | None:
    """[Q, G, n] as a list for each output, of the places that are `here`."""
    if values is None:
        return None
    offsets = np.concatenate([[0], np.cumsum(here.sum(axis=-1).ravel())]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(np.asarray(values)[here].astype(dtype)))


def _rows_of_parts(parts: Mapping[str, np.ndarray] | None) -> list[list[tuple[str, float]]] | None:
    if not parts:
        return None
    values = zip(*(np.asarray(array, np.float32).ravel().tolist() for array in parts.values()), strict=True)
    return [list(zip(parts, row, strict=True)) for row in values]


def write(workdir: str | os.PathLike, step: int, table: pyarrow.Table, *, keep: int) -> None:
    """Writes a step's samples into `samples/`, atomically, and removes old ones.

    Args:
      workdir: of the run.
      step: its number, from 1.
      table: see `make_table`.
      keep: so many of the newest files stay.
    """
    with replacing(_file(workdir, step)) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd")
    for old in steps(workdir)[:-keep]:
        _file(workdir, old).unlink()


def steps(workdir: str | os.PathLike) -> list[int]:
    """The steps whose samples are there, ascending."""
    return sorted(int(path.stem) for path in (pathlib.Path(workdir) / FOLDER).glob("[0-9]*.parquet"))


def read(workdir: str | os.PathLike, wanted: Sequence[int]) -> pyarrow.Table:
    """The samples of these steps, one table."""
    tables = [pyarrow.parquet.ParquetFile(_file(workdir, step)).read() for step in wanted]
    return pyarrow.concat_tables(tables) if tables else SCHEMA.empty_table()


def go_back(workdir: str | os.PathLike, step: int) -> None:
    """Removes the samples of the steps beyond this one, which are to be made anew."""
    for later in steps(workdir):
        if later > step:
            _file(workdir, later).unlink()


def _file(workdir: str | os.PathLike, step: int) -> pathlib.Path:
    return pathlib.Path(workdir) / FOLDER / f"{step:06}.parquet"
