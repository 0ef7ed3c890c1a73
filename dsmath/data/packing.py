"""From examples to batches: shuffled, packed into rows without attention across examples, resumable."""

from collections.abc import Iterable, Mapping
from typing import Any

import grain
import numpy as np

from dsmath.runs.errors import InputError

# One reading thread: the order of the batches, and so the run, must not depend on timing.
_READ = grain.ReadOptions(num_threads=1, prefetch_buffer_size=64)


def document_batches(
    sources: Mapping[str, Any], weights: Mapping[str, float], *, length: int, batch_size: int, seed: int
) -> grain.DatasetIterator:
    """An endless mixture of documents, concatenated and cut into rows.

    Args:
      sources: random-access examples with `tokens`, by the corpus's name.
      weights: share of the tokens that each corpus gives; they need not sum to 1.
      length: tokens of a row.
      batch_size: rows of a batch.
      seed: of the shuffle.
    Returns:
      an iterator of batches (see `_shift`) whose position can be saved.
    Raises:
      InputError: weights that are not positive or do not fit the sources.
    """
    check_weights(sources, weights)
    names = sorted(sources)
    parts = [
        grain.MapDataset.source(sources[name]).seed(seed + index).shuffle().repeat() for index, name in enumerate(names)
    ]
    # Grain draws documents: a corpus of long ones is drawn less often for the same share of the tokens.
    mixed = grain.MapDataset.mix(parts, weights=[weights[name] / _mean_length(sources[name]) for name in names])
    rows = grain.experimental.ConcatThenSplitIterDataset(
        mixed.to_iter_dataset(_READ), length_struct={"tokens": length + 1}
    )
    return iter(rows.map(_shift).batch(batch_size))


def check_weights(corpora: Iterable[str], weights: Mapping[str, float]) -> None:
    """Refuses weights that are not positive or do not fit the names of the corpora."""
    names = set(corpora)
    if not names:
        raise InputError("config.corpora: empty; name at least one corpus")
    if names != set(weights):
        raise InputError(f"config.weights: has {sorted(weights)}, but config.corpora has {sorted(names)}")
    if not all(weight > 0 for weight in weights.values()):
        raise InputError(f"config.weights: {dict(weights)} must be positive; leave a corpus out instead")


def _mean_length(source: Any) -> float:
    """Tokens of a document, from up to 1,000 of them, evenly spread."""
    chosen = np.linspace(0, len(source) - 1, min(len(source), 1000)).astype(int)
    return float(np.mean([len(source[int(index)]["tokens"]) for index in chosen]))


def solution_batches(
    source: Any, *, length: int, batch_size: int, seed: int, packing_bins: int
) -> grain.DatasetIterator:
    """An endless stream of whole examples, concatenated at random into rows.

    Args:
      source: random-access examples with `tokens` and `loss_mask`, none longer than `length + 1`.
      length, batch_size, seed: as in `document_batches`.
      packing_bins: rows that are filled at a time, each example into the first where it fits.
    Source: DeepSeekMath §3 (random concatenation up to the context length).
    """
    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat().to_iter_dataset(_READ)
    rows = grain.experimental.FirstFitPackIterDataset(
        examples,
        length_struct={"tokens": length + 1, "loss_mask": length + 1},
        num_packing_bins=packing_bins,
    )
    return iter(rows.map(_shift).batch(batch_size))


def _shift(row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs and targets of one packed row of length + 1 tokens.

    Returns:
      int32 `tokens`, `targets`, `positions`, `segment_ids` (0 is padding) and float32 `loss_mask`, [length] each; a
      target in the next example is not learned.
    """
    segment_ids = row["tokens_segment_ids"]
    learned = (segment_ids[1:] == segment_ids[:-1]) & (segment_ids[1:] > 0)
    if "loss_mask" in row:
        learned &= row["loss_mask"][1:] > 0
    return {
        "tokens": row["tokens"][:-1],
        "targets": row["tokens"][1:],
        "positions": row["tokens_positions"][:-1],
        "segment_ids": segment_ids[:-1],
        "loss_mask": learned.astype(np.float32),
    }
