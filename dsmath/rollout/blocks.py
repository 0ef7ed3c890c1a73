"""A block of decode steps: which slots it advances, what the host says about them, what it draws."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from flax import struct
from jax import Array

from dsmath.rollout.decoding import Decoding, Settings
from dsmath.rollout.requests import Limits
from dsmath.rollout.slots import Row, Sample

_PARTS = (16, 4)  # of the slots; where so few are active, they are decoded apart from the others
_NOBODY = Decoding(temperature=0, top_p=1, max_new_tokens=1)


@struct.dataclass
class Block:
    """What the host says about the rows and slots before a block.

    Attributes:
      tokens: int32 [rows, width], what each slot reads first: its newest token, or the prompt's last one.
      lengths: int32 [rows, width], tokens of the sample so far; its next token is number `lengths` of its stream.
      limits: int32 [rows, width], most tokens of the sample.
      active: bool [rows, width].
      forced: int32 [rows, width, steps], tokens that take the place of drawn ones, the first `num_forced` of them.
      num_forced: int32 [rows, width].
      samples: uint32 [rows, width], number of the sample within its request.
      prefix_lengths: int32 [rows], tokens of the prompt but its last.
      streams: uint32 [rows], which random stream the row's request draws from.
      stop_ids: int32 [rows, max_stop_ids], filled up with -1.
      settings: how the rows' tokens are drawn.
      history: int32 [rows, width, length], tokens that the repetition penalty is laid on, -1 elsewhere; None: no row
        has a penalty.
      least_active: int32, the block ends early when fewer slots are active: others wait for their places.
    """

    tokens: Array
    lengths: Array
    limits: Array
    active: Array
    forced: Array
    num_forced: Array
    samples: Array
    prefix_lengths: Array
    streams: Array
    stop_ids: Array
    settings: Settings
    history: Array | None
    least_active: Array


class Drawn(NamedTuple):
    """What a block drew.

    Attributes:
      tokens: int32 [rows, width, steps], valid up to `counts`.
      logprobs: float32 [rows, width, steps].
      counts: int32 [rows, width], tokens that each slot went on by.
      stopped: bool [rows, width], whether the last of them is a stop id.
    """

    tokens: Array
    logprobs: Array
    counts: Array
    stopped: Array


class Picked(NamedTuple):
    """Slots that a block advances without the others, each as a row of its own.

    Attributes:
      rows: int32 [picked], the slot's row among those of its device; a number past the last one is no slot.
      slots: int32 [picked], the slot's place in the row.
    """

    rows: np.ndarray | Array
    slots: np.ndarray | Array


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the active slots stand in a block.

    Attributes:
      rows, slots: int [active], the places in the block's arrays.
      shape: rows and width of these arrays.
      picked: None where the block is all rows as they are.
      prefix_length, suffix_length: cells of the cache that the block may need.
    """

    rows: np.ndarray
    slots: np.ndarray
    shape: tuple[int, int]
    picked: Picked | None
    prefix_length: int
    suffix_length: int


def lay_out(active: Sequence[tuple[int, int, Sample]], limits: Limits, shards: int, exact: bool) -> Layout:
    """Lays out a block so that little is computed for nobody.

    At the end of a rollout a few long samples are left; they are picked out of the cache, worked on and put back.

    Args:
      active: rows, slots and samples, by row.
      limits: of the engine.
      shards: devices over which the rows are spread.
      exact: whether attention reads what samples hold and no more; then nothing is picked or cut.
    """
    rows, slots, samples = zip(*active, strict=True)
    rows, slots = np.array(rows), np.array(slots)
    prefix_length, suffix_length = limits.prompt_buckets[-1], limits.new_buckets[-1]
    if exact:
        return Layout(rows, slots, (limits.rows, limits.width), None, prefix_length, suffix_length)
    prefix_length = fitting(limits.prompt_buckets, max(len(sample.request.prompt) - 1 for sample in samples))
    of_device = limits.rows // shards
    devices, local = np.divmod(rows, of_device)
    counts = np.bincount(devices, minlength=shards)
    needed = max(min(len(s.tokens) + limits.block_steps, s.request.decoding.max_new_tokens) for s in samples)
    cut = fitting(limits.new_buckets, needed)
    # Picked ones have room for the longest sample: one program more, not one a length.
    most = of_device * (prefix_length + limits.width * cut) // (2 * (prefix_length + suffix_length))
    for room in (of_device * limits.width // part for part in _PARTS):
        if counts.max() <= room <= most:
            places = devices * room + np.arange(len(rows)) - (np.cumsum(counts) - counts)[devices]
            picked = Picked(np.full(shards * room, of_device, np.int32), np.zeros(shards * room, np.int32))
            picked.rows[places], picked.slots[places] = local, slots
            shape = (shards * room, 1)
            return Layout(places, np.zeros_like(places), shape, picked, prefix_length, suffix_length)
    return Layout(rows, slots, (limits.rows, limits.width), None, prefix_length, cut)


def make_block(
    active: Sequence[tuple[int, int, Sample]], layout: Layout, limits: Limits, books: Sequence[Row], least_active: int
) -> Block:
    """What the host says about a block, in arrays of the host.

    Args:
      active: rows, slots and samples.
      layout: of `lay_out`.
      limits: of the engine.
      books: all rows.
      least_active: see `Block`.
    """
    shape, steps = layout.shape, limits.block_steps
    decodings = [_NOBODY] * shape[0]
    block = Block(
        tokens=np.zeros(shape, np.int32),
        lengths=np.zeros(shape, np.int32),
        limits=np.zeros(shape, np.int32),
        active=np.zeros(shape, bool),
        forced=np.zeros((*shape, steps), np.int32),
        num_forced=np.zeros(shape, np.int32),
        samples=np.zeros(shape, np.uint32),
        prefix_lengths=np.zeros(shape[0], np.int32),
        streams=np.zeros(shape[0], np.uint32),
        stop_ids=np.full((shape[0], limits.max_stop_ids), -1, np.int32),
        settings=None,
        history=None,
        least_active=np.int32(least_active),
    )
    for row, slot, (_, _, sample) in zip(layout.rows, layout.slots, active, strict=True):
        request, forced = sample.request, list(sample.forced)[:steps]
        block.tokens[row, slot] = sample.tokens[-1] if sample.tokens else request.prompt[-1]
        block.lengths[row, slot] = len(sample.tokens)
        block.limits[row, slot] = request.decoding.max_new_tokens
        block.active[row, slot] = True
        block.forced[row, slot, : len(forced)] = forced
        block.num_forced[row, slot] = len(forced)
        block.samples[row, slot] = sample.number
        block.prefix_lengths[row] = len(request.prompt) - 1
        block.streams[row] = request.id if request.seed is None else request.seed
        block.stop_ids[row, : len(request.stop_ids)] = request.stop_ids
        decodings[row] = request.decoding
    if layout.picked is None:
        # A slot that waits for a tool keeps its place: what is written past its length is never read.
        for row, slots in enumerate(row.slots for row in books):
            for slot, sample in enumerate(slots):
                if sample and sample.call:
                    block.lengths[row, slot] = len(sample.tokens)
    settings = Settings.stack(decodings)
    penalized = (settings.repetition_penalty != 1).any()
    return block.replace(settings=settings, history=_history(active, layout, limits) if penalized else None)


def _history(active: Sequence[tuple[int, int, Sample]], layout: Layout, limits: Limits) -> np.ndarray:
    room = limits.prompt_buckets[-1] + limits.new_buckets[-1]
    history = np.full((*layout.shape, room), -1, np.int32)
    for row, slot, (_, _, sample) in zip(layout.rows, layout.slots, active, strict=True):
        if sample.request.decoding.repetition_penalty != 1:
            held = [*sample.request.prompt, *sample.tokens]
            history[row, slot, : len(held)] = held
    return history


def fitting(buckets: Sequence[int], length: int) -> int:
    """The smallest bucket that holds so many."""
    return next(bucket for bucket in buckets if bucket >= length)
