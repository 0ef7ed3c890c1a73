"""The cross-entropy of the next token without the logits of all tokens: a vocabulary of 102,400 never stands whole."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from dsmath.model.sharding import constrain, partition_spec

_BATCH_AXES = ("data", "fsdp", "sequence")  # mesh axes over which tokens are spread


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def chunked_cross_entropy(hidden: Array, output: Array, targets: Array, mask: Array, chunk: int) -> Array:
    """Negative log-likelihood, summed over the learned tokens.

    Each device goes through its tokens a chunk at a time and makes the chunk's gradient at once, so that no logits
    stay for a backward pass and none are computed twice; over the vocabulary's parts it exchanges sums, not logits.

    Args:
      hidden: [batch, length, width], in the dtype of the computation.
      output: [width, vocab], the output matrix.
      targets: int32 [batch, length].
      mask: float32 [batch, length], 1 where the target is learned.
      chunk: tokens of a row whose logits stand in a device's memory at a time.
    Returns:
      float32 scalar.
    """
    return _run(hidden, output, targets, mask, chunk, with_gradients=False)[0]


def _forward(hidden, output, targets, mask, chunk):
    loss, to_hidden, to_output = _run(hidden, output, targets, mask, chunk, with_gradients=True)
    return loss, (to_hidden, to_output.astype(output.dtype))


def _backward(chunk, gradients, cotangent):
    del chunk
    to_hidden, to_output = ((cotangent * x).astype(x.dtype) for x in gradients)
    return to_hidden, to_output, None, None


chunked_cross_entropy.defvjp(_forward, _backward)


def _run(hidden: Array, output: Array, targets: Array, mask: Array, chunk: int, with_gradients: bool) -> tuple:
    """The loss, and the gradients of hidden and (float32) of output, on every device of the ambient mesh."""
    run = functools.partial(_on_device, chunk=chunk, with_gradients=with_gradients)
    if jax.sharding.get_abstract_mesh().empty:
        return run(hidden, output, targets, mask, is_spread=False)
    # A loop that adds up a gradient must not reduce it over the mesh in every turn: here each device adds its own.
    tokens, matrix = partition_spec(("batch", "length")), partition_spec(("embed", "vocab"))
    spread = jax.shard_map(
        functools.partial(run, is_spread=True),
        in_specs=(tokens, partition_spec((None, "vocab")), tokens, tokens),
        out_specs=(partition_spec(()), tokens, matrix) if with_gradients else (partition_spec(()),),
        check_vma=False,
    )
    # Cast where it lies: what is gathered over fsdp is half as much.
    return spread(hidden, constrain(output.astype(hidden.dtype), "embed", "vocab"), targets, mask)


def _on_device(
    hidden: Array, output: Array, targets: Array, mask: Array, *, chunk: int, with_gradients: bool, is_spread: bool
) -> tuple:
    """The device's tokens and its part of the vocabulary."""
    shape, weight = hidden.shape, output.astype(hidden.dtype)
    first = jax.lax.axis_index("tensor") * weight.shape[1] if is_spread else 0
    over_vocab = functools.partial(jax.lax.psum, axis_name="tensor") if is_spread else lambda x: x
    highest = functools.partial(jax.lax.pmax, axis_name="tensor") if is_spread else lambda x: x

    def step(carry, part):
        loss, to_output = carry
        hidden, targets, mask = part  # [tokens, width], [tokens], [tokens]
        logits = jnp.matmul(hidden, weight, preferred_element_type=jnp.float32)  # [tokens, vocab]
        top = highest(logits.max(axis=-1))
        exponentials = jnp.exp(logits - top[:, None])
        total = over_vocab(exponentials.sum(axis=-1))
        is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == (targets - first)[:, None]
        chosen = over_vocab(jnp.where(is_target, logits, 0.0).sum(axis=-1))
        loss += ((top + jnp.log(total) - chosen) * mask).sum()
        if not with_gradients:
            return (loss, to_output), None
        to_logits = ((exponentials / total[:, None] - is_target) * mask[:, None]).astype(hidden.dtype)
        to_hidden = over_vocab(jnp.matmul(to_logits, weight.T, preferred_element_type=jnp.float32))
        to_output += jnp.matmul(hidden.T, to_logits, preferred_element_type=jnp.float32)
        return (loss, to_output), to_hidden.astype(hidden.dtype)

    parts, restore = _split((hidden, targets, mask), chunk)
    start = (jnp.zeros(()), jnp.zeros(weight.shape if with_gradients else (), jnp.float32))
    (loss, to_output), to_hidden = jax.lax.scan(step, start, parts)
    if is_spread:
        loss = jax.lax.psum(loss, _BATCH_AXES)
    if not with_gradients:
        return (loss,)
    if is_spread:
        to_output = jax.lax.psum(to_output, ("data", "sequence"))
        to_output = jax.lax.psum_scatter(to_output, "fsdp", scatter_dimension=0, tiled=True)
    return loss, restore(to_hidden).reshape(shape), to_output


def _split(arrays: tuple[Array, ...], chunk: int) -> tuple:
    """[batch, length, …] each -> [chunks, tokens, …], padded with zeros; and the way back for one of them."""
    batch, length = arrays[0].shape[:2]
    count = math.ceil(length / chunk)
    size = math.ceil(length / count)

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, count * size - length)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(batch, count, size, *x.shape[2:]).swapaxes(0, 1).reshape(count, batch * size, *x.shape[2:])

    def restore(x: Array) -> Array:
        return x.reshape(count, batch, size, -1).swapaxes(0, 1).reshape(batch, count * size, -1)[:, :length]

    return tuple(map(split, arrays)), restore
