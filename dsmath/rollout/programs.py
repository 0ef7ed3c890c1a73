"""The compiled side of the engine: resharding, filling of rows, blocks of decode steps, scores of given tokens."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsmath.model import generation
from dsmath.model.attention import Stored
from dsmath.model.backend import backend
from dsmath.model.generation import Cache
from dsmath.model.sharding import replicated
from dsmath.model.transformer import Transformer
from dsmath.rollout.blocks import Block, Drawn, Picked
from dsmath.rollout.decoding import draw
from dsmath.rollout.requests import Limits

ROW_AXES = ("data", "fsdp", "sequence")  # rows need no exchange with each other: every axis but tensor shares them
_ROWS = PartitionSpec(ROW_AXES)
_PREFIX, _SUFFIX = PartitionSpec(ROW_AXES, "tensor"), PartitionSpec(ROW_AXES, None, "tensor")  # heads over tensor


class Programs:
    """The jitted functions of an engine; their shapes follow from its limits, so they compile once each.

    Args:
      model: the decoder.
      mesh: the training mesh.
      limits: of the engine.
    """

    def __init__(self, model: Transformer, mesh: Mesh, limits: Limits):
        self._model, self._mesh, self._limits = model, mesh, limits
        self.rows = NamedSharding(mesh, _ROWS)
        self._cache = _cache_shardings(model, mesh, limits)
        create = functools.partial(
            generation.empty_cache,
            model.config,
            limits.rows,
            limits.width,
            limits.prompt_buckets[-1],
            limits.new_buckets[-1],
            jnp.dtype(limits.cache_dtype),
        )
        self.create = jax.jit(create, out_shardings=self._cache)
        self.fill = jax.jit(functools.partial(generation.fill, model), donate_argnums=1, out_shardings=self._cache)
        self.decode = jax.jit(
            functools.partial(_decode_block, model),
            static_argnames=("prefix_length", "suffix_length", "steps"),
            donate_argnums=1,
            out_shardings=(self._cache, replicated(mesh)),
            # Else XLA makes a CUDA graph of a step and updates it at every one, for a millisecond.
            compiler_options={"xla_gpu_enable_command_buffer": ""} if backend() == "gpu" else None,
        )
        self.score = jax.jit(functools.partial(_score, model), out_shardings=replicated(mesh))
        self.score_next = jax.jit(functools.partial(_score_next, model), out_shardings=replicated(mesh))
        self._reshard = None

    def reshard(self, params: Any) -> Any:
        """From the training shardings to those of generation: whole along fsdp, layers apart, in the compute dtype."""
        return self.resharding(params)(params)

    def resharding(self, params: Any) -> Callable[[Any], Any]:
        """The jitted function of `reshard`, for parameters that are sharded as these, arrays or shapes."""
        if self._reshard is None:
            config = self._model.config
            joined = config.is_cudnn and self._mesh.shape["tensor"] == 1  # parts of heads would not fit
            unstack = functools.partial(generation.unstack, config=config, joined=joined)
            shapes = jax.eval_shape(unstack, params)
            if joined:
                shardings = jax.tree.map(lambda _: replicated(self._mesh), shapes)
            else:
                shardings = _gathered(params, shapes, self._mesh)
            self._reshard = jax.jit(unstack, out_shardings=shardings)
        return self._reshard

    def count_compiled(self) -> int:
        """Programs compiled so far."""
        jitted = (self.create, self.fill, self.decode, self.score, self.score_next, self._reshard)
        return sum(function._cache_size() for function in jitted if function is not None)


def _gathered(params: Any, shapes: Any, mesh: Mesh) -> Any:
    """The shardings of `generation.unstack`'s result: those of training without fsdp."""

    def sharding(spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*("tensor" if axis == "tensor" else None for axis in spec)))

    def of(leaf: Array, drop: int) -> NamedSharding:
        placed = getattr(leaf, "sharding", None)
        return sharding(placed.spec[drop:] if isinstance(placed, NamedSharding) else PartitionSpec())

    tree = params["params"]
    whole = {name: jax.tree.map(lambda leaf: of(leaf, 0), leaf) for name, leaf in tree.items() if name != "blocks"}
    layer = jax.tree.map(lambda leaf: of(leaf, 1), tree["blocks"])
    return {"params": whole, "blocks": (layer,) * len(shapes["blocks"])}


def _cache_shardings(model: Transformer, mesh: Mesh, limits: Limits) -> Cache:
    """Rows over the row axes, heads over tensor."""
    scaled = limits.cache_dtype == "int8"

    def stored(spec: PartitionSpec) -> Stored:
        whole = NamedSharding(mesh, spec)
        return Stored(whole, whole, whole if scaled else None, whole if scaled else None)

    layers = model.config.num_layers
    return Cache(prefix=(stored(_PREFIX),) * layers, suffix=(stored(_SUFFIX),) * layers)


def _decode_block(
    model: Transformer,
    params: Any,
    cache: Cache,
    block: Block,
    picked: Picked | None,
    key: Array,
    *,
    prefix_length: int,
    suffix_length: int,
    steps: int,
) -> tuple[Cache, Drawn]:
    """Up to `steps` tokens for every active slot; attention reads the first cells of the cache alone.

    Args:
      params: as `generation.unstack` gives them.
      cache: donated; slots that are not active keep what they hold.
      block: see `Block`.
      picked: the slots that the block is about; None: all rows, as the cache holds them.
      key: root random key.
      prefix_length, suffix_length: cells that the block may need.
    """
    rows, width = block.tokens.shape
    vocab = model.config.vocab_size
    by_request = jax.vmap(jax.random.fold_in, (None, 0))(key, block.streams)
    keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(by_request, block.samples)
    settings = jax.tree.map(lambda leaf: jnp.repeat(leaf, width, axis=0), block.settings)
    if picked is None:
        part = Cache(_cut(cache.prefix, prefix_length), _cut(cache.suffix, suffix_length))
    else:
        part = _pick(cache, picked, prefix_length)
    seen = None
    if block.history is not None:
        places = jnp.arange(rows)[:, None, None], jnp.arange(width)[None, :, None], block.history
        seen = jnp.zeros((rows, width, vocab + 1), bool).at[places].set(True)[..., :vocab]  # -1 is the last

    def step(carry):
        index, tokens, active, stopped, seen, part, drawn = carry
        number = block.lengths + index
        logits, part = generation.decode(model, params, tokens, block.prefix_lengths, number, part)
        step_keys = jax.vmap(jax.vmap(jax.random.fold_in))(keys, number)
        flat_seen = None if seen is None else seen.reshape(rows * width, vocab)
        chosen, logprobs = draw(logits.reshape(rows * width, vocab), step_keys.reshape(-1), settings, flat_seen)
        is_forced = index < block.num_forced
        chosen = jnp.where(is_forced, block.forced[:, :, index], chosen.reshape(rows, width))
        logprobs = jnp.where(is_forced, 0.0, logprobs.reshape(rows, width))
        tokens = jnp.where(active, chosen, tokens)
        drawn = drawn._replace(
            tokens=drawn.tokens.at[:, :, index].set(tokens),
            logprobs=drawn.logprobs.at[:, :, index].set(logprobs),
            counts=drawn.counts + active,
        )
        stopping = active & ~is_forced & (chosen[..., None] == block.stop_ids[:, None]).any(axis=-1)
        active &= ~stopping & (number + 1 < block.limits)
        if seen is not None:
            seen = seen.at[jnp.arange(rows)[:, None], jnp.arange(width)[None], tokens].set(True)
        return index + 1, tokens, active, stopped | stopping, seen, part, drawn

    def goes_on(carry) -> Array:
        index, _, active, *_ = carry
        return (index < steps) & (active.sum() >= block.least_active)

    nothing = jnp.zeros((rows, width), bool)
    drawn = Drawn(
        jnp.zeros((rows, width, steps), jnp.int32),
        jnp.zeros((rows, width, steps)),
        jnp.zeros_like(block.lengths),
        nothing,
    )
    start = (jnp.zeros((), jnp.int32), block.tokens, block.active, nothing, seen, part, drawn)
    *_, stopped, _, part, drawn = jax.lax.while_loop(goes_on, step, start)
    if picked is None:
        suffix = tuple(_paste(whole, cut) for whole, cut in zip(cache.suffix, part.suffix, strict=True))
    else:
        suffix = _put_back(cache.suffix, part.suffix, picked)
    return cache.replace(suffix=suffix), drawn._replace(stopped=stopped)


def _cut(layers: tuple[Stored, ...], length: int) -> tuple[Stored, ...]:
    """The first cells of each layer; where that is all, no copy is made."""

    def cut(stored: Stored) -> Stored:
        scales = (scale if scale is None else scale[..., :length] for scale in (stored.key_scale, stored.value_scale))
        return Stored(stored.key[..., :length], stored.value[..., :length, :], *scales)

    return tuple(map(cut, layers))


def _paste(whole: Stored, cut: Stored) -> Stored:
    """Writes back what `_cut` took."""
    if whole.value.shape == cut.value.shape:
        return cut
    put = lambda old, new: jax.lax.dynamic_update_slice(old, new, (0,) * old.ndim)  # noqa: E731
    return jax.tree.map(put, whole, cut)


def _pick(cache: Cache, picked: Picked, prefix_length: int) -> Cache:
    """The picked slots as rows of width 1, their questions' first cells and all of their own."""

    def on_device(prefix: Any, suffix: Any, picked: Picked) -> Cache:
        rows, slots = picked
        return Cache(
            _cut(jax.tree.map(lambda leaf: leaf.at[rows].get(mode="clip"), prefix), prefix_length),
            jax.tree.map(lambda leaf: leaf.at[rows, slots].get(mode="clip")[:, None], suffix),
        )

    specs = Cache(_PREFIX, _SUFFIX)
    spread = jax.shard_map(on_device, in_specs=(_PREFIX, _SUFFIX, _ROWS), out_specs=specs, check_vma=False)
    return spread(cache.prefix, cache.suffix, picked)


def _put_back(whole: tuple[Stored, ...], part: tuple[Stored, ...], picked: Picked) -> tuple[Stored, ...]:
    """Writes back what `_pick` took of the samples."""

    def on_device(whole: Any, part: Any, picked: Picked) -> Any:
        rows, slots = picked
        put = lambda old, new: old.at[rows, slots].set(new[:, 0], mode="drop")  # noqa: E731
        return jax.tree.map(put, whole, part)

    spread = jax.shard_map(on_device, in_specs=(_SUFFIX, _SUFFIX, _ROWS), out_specs=_SUFFIX, check_vma=False)
    return spread(whole, part, picked)


class Scored(NamedTuple):
    """How likely given tokens are; the first, which follows nothing, has none.

    Attributes:
      logprobs: float32 [texts, length - 1], of each token but the first.
      best: int32 of the same shape, the likeliest token at each place.
      best_logprobs: float32 of the same shape.
    """

    logprobs: Array
    best: Array
    best_logprobs: Array


def _score(model: Transformer, params: Any, tokens: Array, lengths: Array) -> Scored:
    """tokens int32 [texts, length], padded on the right; the logits of one text stand in memory at a time."""
    hidden, _ = generation.run_prompts(model, params, tokens, lengths)

    def of_text(text: tuple[Array, Array]) -> Scored:
        logprobs = jax.nn.log_softmax(generation.logits(model, params, text[0][:-1]))
        chosen = jnp.take_along_axis(logprobs, text[1][1:, None], axis=-1)[:, 0]
        return Scored(chosen, jnp.argmax(logprobs, axis=-1).astype(jnp.int32), logprobs.max(axis=-1))

    return jax.lax.map(of_text, (hidden, tokens))


def _score_next(model: Transformer, params: Any, tokens: Array, lengths: Array, options: Array) -> Array:
    """tokens int32 [texts, length], padded on the right; options int32 [texts, options] -> float32 of their shape."""
    hidden, _ = generation.run_prompts(model, params, tokens, lengths)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return jnp.take_along_axis(jax.nn.log_softmax(generation.logits(model, params, last)), options, axis=-1)
