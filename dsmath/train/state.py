"""The training state and its jitted step."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array
from jax.sharding import Mesh

from dsmath.model.backend import backend
from dsmath.model.sharding import replicated, tree_shardings
from dsmath.model.transformer import Transformer, init_params
from dsmath.train import lora
from dsmath.train.rows import to_global

Batch = Mapping[str, Array]
# (params, batch) -> the loss's sum, and sums of metrics; "denominator" divides them all.
LossFunction = Callable[[Any, Batch], tuple[Array, dict[str, Array]]]
# Gradients like the parameters, and the loss function's sums with the loss among them.
Totals = tuple[Any, dict[str, Array]]


@struct.dataclass
class TrainState:
    """Everything that a step changes, one pytree.

    Attributes:
      step: int32 scalar, updates done.
      params: the parameters that learn: the model's, or its adapters (`dsmath.train.lora`).
      opt_state: the optimizer's.
      rng: the run's root key; every use folds in its purpose and step, so it never changes.
    """

    step: Array
    params: Any
    opt_state: Any
    rng: Array


def _initialize(
    model: Transformer, optimizer: optax.GradientTransformation, key: Array, lora_rank: int = 0
) -> TrainState:
    params = lora.init_adapters(model, lora_rank, key) if lora_rank else init_params(model, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        rng=jax.random.key_data(key),
    )


def abstract_params(model: Transformer, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of the parameters alone, for inference."""
    return abstract_state(model, optax.identity(), mesh).params


def abstract_state(
    model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh, lora_rank: int = 0
) -> TrainState:
    """Shapes, dtypes and shardings of the state, without memory for it; of adapters alone where they have a rank."""
    boxed = jax.eval_shape(lambda key: _initialize(model, optimizer, key, lora_rank), jax.random.key(0))
    shardings = tree_shardings(boxed, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.meta.unbox(boxed),
        shardings,
    )


def abstract_like(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def create_state(
    model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, lora_rank: int = 0
) -> TrainState:
    """A new state with random parameters (or adapters, of `lora_rank`), made in place on the mesh."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh, lora_rank))

    def initialize(key: Array) -> TrainState:
        return nn.meta.unbox(_initialize(model, optimizer, key, lora_rank))

    return jax.jit(initialize, out_shardings=shardings)(jax.random.key(seed))


def start_from(
    params: Any, model: Transformer, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int
) -> TrainState:
    """A new state with a parent's parameters, which are sharded as `abstract_state` says, and a fresh optimizer."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    step, rng = jax.device_put((jnp.zeros((), jnp.int32), jax.random.key_data(jax.random.key(seed))), replicated(mesh))
    # The step donates its state: without a copy the parent's parameters would be lost to the caller.
    return TrainState(step=step, params=jax.tree.map(jnp.copy, params), opt_state=opt_state, rng=rng)


def make_train_step(
    loss_function: LossFunction,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    num_microbatches: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Jits `(state, batch) -> (state, metrics)`; the state is donated.

    The loss is the sum over the whole batch divided by the denominator of the whole batch, whatever the number
    of micro-batches and shards.

    Args:
      loss_function: see `LossFunction`.
      optimizer: its update.
      mesh: batches are spread over its data and fsdp axes.
      num_microbatches: the batch's rows are worked through in this many parts, gradients summed.
    Returns:
      the step; metrics hold `loss`, `grad_norm`, `param_norm`, `update_norm`, `update_ratio` (of the update to the
      parameters) and the loss function's, divided. Of a batch's arrays NumPy's hold the rows of this process alone
      (see `rows.local_rows`), JAX's are global. As with a jitted function, `lower` takes shapes with shardings.
    """
    gradients, update = _gradients(loss_function), _update(optimizer)

    def accumulate(params: Any, batch: Batch) -> Totals:
        # Every micro-batch takes a row of each run of num_microbatches: its rows stay spread over the devices.
        parts = jax.tree.map(lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
        first = jax.eval_shape(gradients, params, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
        add = lambda total, part: (jax.tree.map(jnp.add, total, gradients(params, part)), None)  # noqa: E731
        return jax.lax.scan(add, zeros, parts)[0]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        return update(state, (gradients if num_microbatches == 1 else accumulate)(state.params, batch))

    jitted = jax.jit(step, donate_argnums=0, compiler_options=_compiler_options())

    def run(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        with jax.set_mesh(mesh):
            return jitted(state, to_global(batch, mesh))

    def lower(state: TrainState, batch: Batch) -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            return jitted.lower(state, batch)

    run.lower = lower
    return run


def make_accumulate(
    loss_function: LossFunction, mesh: Mesh, frozen: Any = None
) -> Callable[[Any, Sequence[Batch]], Totals]:
    """Jits `(params, micro-batches) -> totals`, for micro-batches of different shapes.

    Each shape compiles once, and once more if a step has no other micro-batch.

    Args:
      loss_function: see `LossFunction`.
      mesh: see `make_train_step`.
      frozen: the model's parameters where the state holds adapters; the loss function gets both as one tree.
    Returns:
      the function. It adds up the gradients and the sums of all micro-batches, whose arrays are like
      `make_train_step`'s, for `make_apply`'s function. `lower` takes shapes with shardings: of the parameters, of one
      micro-batch, and of the gradients of those before it, which are donated.
    """
    gradients, shardings = _gradients(loss_function), ()

    def shardings_of(params: Any) -> tuple[Any, ...]:
        nonlocal shardings  # of the first ones: after an update the same may be spelled otherwise, and compile again
        shardings = shardings or tuple(leaf.sharding for leaf in jax.tree.leaves(params))
        return shardings

    def add(params: Any, batch: Batch, total: Any, frozen: Any, shardings: tuple[Any, ...]) -> Totals:
        grads, sums = gradients(params, batch, frozen)
        # Left alone, the compiler may give each device the whole gradient.
        grads = _constrain(grads, shardings)
        return grads if total is None else jax.tree.map(jnp.add, total, grads), sums

    jitted = jax.jit(add, donate_argnums=2, static_argnums=4)

    def run(params: Any, batches: Sequence[Batch]) -> Totals:
        all_sums = None
        with jax.set_mesh(mesh):
            total = None if len(batches) == 1 else _zeros(params, shardings_of(params))
            for batch in batches:
                batch = to_global(batch, mesh)
                total, sums = jitted(params, batch, total, frozen, shardings_of(params))
                all_sums = sums if all_sums is None else _add(all_sums, sums)
        return total, all_sums

    def lower(params: Any, batch: Batch, total: Any = None) -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            return jitted.lower(params, batch, total, frozen, shardings_of(params))

    run.lower = lower
    return run


def make_apply(
    optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[TrainState, Totals], tuple[TrainState, dict[str, Array]]]:
    """Jits `(state, totals) -> (state, metrics)`, the update after `make_accumulate`'s micro-batches.

    The same as one step of `make_train_step` on all of them: sums are divided by the denominator of all. The state is
    donated, and `lower` takes shapes with shardings.
    """
    jitted = jax.jit(_update(optimizer), donate_argnums=0)

    def run(state: TrainState, totals: Totals) -> tuple[TrainState, dict[str, Array]]:
        with jax.set_mesh(mesh):
            return jitted(state, totals)

    def lower(state: TrainState, totals: Totals) -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            return jitted.lower(state, totals)

    run.lower = lower
    return run


def _gradients(loss_function: LossFunction) -> Callable[..., Totals]:
    """(params, batch, frozen) -> gradients and sums of one micro-batch."""

    def gradients(params: Any, batch: Batch, frozen: Any = None) -> Totals:
        def loss_of(params: Any) -> tuple[Array, dict[str, Array]]:
            return loss_function(params if frozen is None else lora.join(frozen, params), batch)

        (loss, sums), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        return grads, {"loss": loss, **sums}

    return gradients


def _update(optimizer: optax.GradientTransformation) -> Callable[[TrainState, Totals], tuple[TrainState, dict]]:
    """(state, totals) -> the state after one update, and metrics."""
    optimizer = optax.with_extra_args_support(optimizer)

    def update(state: TrainState, totals: Totals) -> tuple[TrainState, dict[str, Array]]:
        grads, sums = totals
        denominator = jnp.maximum(sums["denominator"], 1.0)
        sums = {name: value for name, value in sums.items() if name != "denominator"}
        grads, metrics = jax.tree.map(lambda x: x / denominator, (grads, sums))
        metrics["grad_norm"] = optax.global_norm(grads)
        seen = {"loss": metrics["loss"], "grad_norm": metrics["grad_norm"]}  # by which a guard judges the step
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **seen)
        metrics["param_norm"] = optax.global_norm(state.params)
        metrics["update_norm"] = optax.global_norm(updates)
        metrics["update_ratio"] = metrics["update_norm"] / metrics["param_norm"]
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return update


def _compiler_options() -> dict[str, Any] | None:
    """What XLA does otherwise than by itself on NVIDIA."""
    if backend() != "gpu":
        return None
    return {
        "xla_gpu_enable_dynamic_slice_fusion": False,  # it computes twice what a loop keeps
        "xla_gpu_enable_triton_gemm": False,  # products as large as these cuBLAS makes as fast, and compiles at once
    }


def _constrain(tree: Any, shardings: tuple[Any, ...]) -> Any:
    return jax.lax.with_sharding_constraint(tree, jax.tree.unflatten(jax.tree.structure(tree), shardings))


@functools.partial(jax.jit, static_argnums=1)
def _zeros(params: Any, shardings: tuple[Any, ...]) -> Any:
    return _constrain(jax.tree.map(jnp.zeros_like, params), shardings)


@jax.jit
def _add(sums: dict[str, Array], others: dict[str, Array]) -> dict[str, Array]:
    return jax.tree.map(jnp.add, sums, others)
