"""From groups of samples to the arrays of an update, in micro-batches, and the forward pass over them.

The completions of a question are packed into rows, one after another: what is computed follows the tokens that were
sampled, not the limit of their number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dsmath.model.generation import group_hidden
from dsmath.model.heads import ScalarHead
from dsmath.model.transformer import Transformer
from dsmath.rollout.samples import Samples, pad_prompts
from dsmath.runs.errors import InputError
from dsmath.train.losses import entropy, token_logprobs

PACKED = ("rows", "segments", "offsets")  # the arrays [questions, rows, width] of a batch
MIN_WIDTH = 128  # tokens of a row: shorter ones hold few completions and waste room at their ends


def make_batch(prompts: Sequence[Sequence[int]], samples: Samples, pad_id: int) -> dict[str, np.ndarray]:
    """The arrays of an update; a question's prompt stands once for its whole group.

    Args:
      prompts: token ids of the questions.
      samples: their groups, arrays [questions, group_size, max_new_tokens].
      pad_id: fills the rest.
    Returns:
      int32 `prompts` [questions, prefix_length], `prompt_lengths` [questions], `completions` [questions, group_size,
      max_new_tokens], `lengths` [questions, group_size], and float32 `mask` of the completions' shape, 1 on the tokens
      that the policy chose. And the completions packed, int32: `rows`, `segments`, `offsets` [questions, rows, width],
      see `group_hidden`, and `places` of the completions' shape, where in its question's rows, taken as one, each token
      stands. Every question has as many rows as the one that needs most, rounded up by `size_of`; see `row_shape`.
    """
    tokens, lengths = pad_prompts(prompts, pad_id)
    return {
        "prompts": tokens,
        "prompt_lengths": lengths,
        "completions": samples.tokens,
        "mask": samples.mask,
        "lengths": samples.lengths,
        **_pack(samples.tokens, samples.lengths, pad_id),
    }


def _pack(completions: np.ndarray, lengths: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
    """Rows, segments, offsets and places of the completions."""
    questions, group, longest = completions.shape
    most, width = row_shape(group, longest)
    shelves = [_shelve(of_group, width) for of_group in lengths]
    count = min(size_of(max(int(row.max()) for row, _ in shelves) + 1), most)
    rows = np.full((questions, count, width), pad_id, np.int32)
    segments, offsets = np.zeros_like(rows), np.zeros_like(rows)
    places = np.zeros(completions.shape, np.int32)
    for question, (row_of, start_of) in enumerate(shelves):
        for sample in np.argsort(start_of, kind="stable"):
            row, start, length = row_of[sample], start_of[sample], lengths[question, sample]
            if length:
                room = (question, row, slice(start, start + length))
                rows[room] = completions[question, sample, :length]
                segments[room] = segments[question, row].max() + 1
                offsets[room] = np.arange(length)
                places[question, sample, :length] = row * width + start + np.arange(length)
    return {"rows": rows, "segments": segments, "offsets": offsets, "places": places}


def row_shape(group_size: int, max_new_tokens: int) -> tuple[int, int]:
    """The most rows that a group may need, and their width in tokens."""
    # As many of the longest completions as always fit: a row is left for a new one only when it holds so many.
    fitting = min(-(-MIN_WIDTH // max_new_tokens), group_size)
    return -(-group_size // fitting), fitting * max_new_tokens


def _shelve(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and first place of each completion in it: the longest first, each in the first row that has room."""
    row_of, start_of, filled = np.zeros_like(lengths), np.zeros_like(lengths), [0]
    for sample in np.argsort(-lengths, kind="stable"):
        row = next((row for row, used in enumerate(filled) if used + lengths[sample] <= width), len(filled))
        filled += [0] * (row == len(filled))
        row_of[sample], start_of[sample] = row, filled[row]
        filled[row] += lengths[sample]
    return row_of, start_of


def size_of(count: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, … that is not below: few sizes mean few compiled programs."""
    power = 1 << max(count - 1, 0).bit_length()
    return 3 * power // 4 if power >= 4 and count <= 3 * power // 4 else power


def check_microbatch(max_tokens: int, rows: int, width: int, prefix_length: int) -> None:
    """Refuses micro-batches that cannot hold a group; a run checks its `row_shape` at the start.

    Args:
      max_tokens: `config.microbatch_tokens`, of each device that takes groups; 0 for no limit.
      rows, width: of a packed group.
      prefix_length: of a padded prompt.
    """
    least = rows * width + prefix_length
    if max_tokens < 0 or 0 < max_tokens < least:
        raise InputError(
            f"config.microbatch_tokens: {max_tokens} cannot hold a group of {rows} rows of {width} tokens and its "
            f"prompt of {prefix_length}; at least {least}, or 0 for no limit"
        )


def split(batch: Mapping[str, np.ndarray], max_tokens: int, shards: int) -> list[dict[str, np.ndarray]]:
    """Cuts a batch into micro-batches of whole groups, those that need many rows first.

    Their shapes are few: rows and groups come in the sizes of `size_of`, or as many groups as go in; some hold nothing.

    Args:
      batch: `make_batch`'s arrays and any others [questions, …], on the host.
      max_tokens: of a micro-batch on each device that takes groups, padding and prompts included; 0: all in one.
      shards: devices along the mesh's data and fsdp axes; the number of groups is a multiple of it.
    Returns:
      the micro-batches; each has `groups`, int32 [questions]: where its groups stand in the batch, -1 for those that
      fill it up. `merge` puts results in order by it.
    Raises:
      InputError: a group is too large; see `check_microbatch`.
    """
    arrays = {name: np.asarray(array) for name, array in batch.items()}
    width, prefix_length = arrays["rows"].shape[2], arrays["prompts"].shape[1]
    needed = np.maximum((arrays["segments"] > 0).any(axis=2).sum(axis=1), 1)
    order, parts = np.argsort(-needed, kind="stable"), []
    while len(order):
        rows = min(size_of(int(needed[order[0]])), arrays["rows"].shape[1])
        check_microbatch(max_tokens, rows, width, prefix_length)
        whole = size_of(-(-len(order) // shards))  # groups on each shard, were it one micro-batch
        fitting = max_tokens // (rows * width + prefix_length) if max_tokens else whole
        fewest = -(-len(order) // (fitting * shards))  # micro-batches that the rest takes, of about the same size
        count = shards * min(fitting, size_of(-(-len(order) // (fewest * shards))))
        parts.append(_take(arrays, order[:count], rows, count))
        order = order[count:]
    return parts


def _take(arrays: Mapping[str, np.ndarray], groups: np.ndarray, rows: int, count: int) -> dict[str, np.ndarray]:
    """These groups with their first rows, and as many that hold nothing as make `count`."""
    filling = count - len(groups)
    part = {}
    for name, array in arrays.items():
        taken = array[groups][:, :rows] if name in PACKED else array[groups]
        part[name] = np.concatenate([taken, np.zeros((filling, *taken.shape[1:]), taken.dtype)])
    part["prompt_lengths"][len(groups) :] = 1
    part["groups"] = np.concatenate([groups, np.full(filling, -1)]).astype(np.int32)
    return part


def merge(parts: Sequence[Mapping[str, np.ndarray]], results: Sequence[Any]) -> np.ndarray:
    """Results of micro-batches, one array [questions, …] each, in the order of the batch that `split` cut."""
    groups = np.concatenate([part["groups"] for part in parts])
    values = np.concatenate([np.asarray(result) for result in results])
    merged = np.empty_like(values[groups >= 0])
    merged[groups[groups >= 0]] = values[groups >= 0]
    return merged


def completion_logprobs(
    model: Transformer, params: Any, batch: Mapping[str, Array], logits_chunk: int
) -> tuple[Array, Array]:
    """The log-probability and the entropy at every token of the completions.

    Args:
      model, params: the policy.
      batch: `make_batch`'s arrays.
      logits_chunk: tokens of each row whose logits stand in memory at a time: those of 64 rows of 1,024 tokens over
        102,400 words would be 27 GB a question.
    Returns:
      two float32 arrays [questions, group_size, max_new_tokens], 0 behind a completion's end.
    """
    rows = batch["rows"]
    hidden, _ = _hidden(model, params, batch)

    def look_up(part: tuple[Array, Array]) -> tuple[Array, Array]:
        logits = model.apply(params, part[0], method="logits")  # [questions, rows, chunk, vocab]
        return token_logprobs(logits, part[1]), entropy(logits)

    length = rows.shape[2]
    if logits_chunk >= length:
        found = look_up((hidden, rows))
    else:
        chunks = -(-length // logits_chunk)
        parts = tuple(_chunk(x, chunks, logits_chunk) for x in (hidden, rows))
        found = jax.lax.map(jax.checkpoint(look_up), parts)  # [chunks, questions, rows, chunk] each
        found = tuple(jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1)[..., :length] for x in found)
    return tuple(_unpack(x, batch) for x in found)


def completion_values(model: Transformer, params: Any, batch: Mapping[str, Array], at: str) -> Array:
    """The number that a scalar head gives at every token of the completions.

    Args:
      model: what the head stands on.
      params: of both, the head's under `params["params"]["head"]`.
      batch: `make_batch`'s arrays.
      at: "token", after the token was read (a reward model); "before", when it has yet to be chosen (a critic).
    Returns:
      float32 [questions, group_size, max_new_tokens], 0 behind a completion's end.
    """
    before, after = _hidden(model, params, batch)
    hidden = {"before": before, "token": after}[at]
    return _unpack(ScalarHead().apply({"params": params["params"]["head"]}, hidden), batch)


def _hidden(model: Transformer, params: Any, batch: Mapping[str, Array]) -> tuple[Array, Array]:
    names = ("prompts", "prompt_lengths", *PACKED)
    return group_hidden(model, params, *(batch[name] for name in names))


def _unpack(x: Array, batch: Mapping[str, Array]) -> Array:
    """Values of tokens in rows [questions, rows, length] -> [questions, group_size, max_new_tokens]."""
    places, questions = batch["places"], x.shape[0]
    found = jnp.take_along_axis(x.reshape(questions, -1), places.reshape(questions, -1), axis=1).reshape(places.shape)
    return jnp.where(jnp.arange(places.shape[2]) < batch["lengths"][..., None], found, 0.0)


def _chunk(x: Array, chunks: int, size: int) -> Array:
    """[questions, rows, length, …] -> [chunks, questions, rows, size, …], padded at the end."""
    padding = [(0, 0)] * x.ndim
    padding[2] = (0, chunks * size - x.shape[2])
    x = jnp.pad(x, padding)
    return jnp.moveaxis(x.reshape(*x.shape[:2], chunks, size, *x.shape[3:]), 2, 0)
