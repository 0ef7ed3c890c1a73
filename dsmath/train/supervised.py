"""Next-token training: pretraining and SFT differ in their batches alone."""

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import optax
from absl import logging
from jax import Array
from jax.sharding import Mesh

from dsmath.model import attention
from dsmath.model.sharding import check_batch, make_mesh
from dsmath.model.transformer import ModelConfig, Transformer
from dsmath.runs import processes
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.metrics import MetricsWriter, read_metrics
from dsmath.runs.progress import Progress
from dsmath.train.checkpoint import Checkpointer, read_params
from dsmath.train.cross_entropy import chunked_cross_entropy
from dsmath.train.guards import Guard
from dsmath.train.loop import BatchIterator, fit
from dsmath.train.optimizer import make_optimizer
from dsmath.train.rows import local_rows
from dsmath.train.state import (
    Batch,
    LossFunction,
    TrainState,
    abstract_params,
    abstract_state,
    create_state,
    make_train_step,
    start_from,
)
from dsmath.train.watch import Watch

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
FREE = ("guards", "keep_last", "keep_best", "profile")  # fields of the config that a resumed run may change


def next_token_loss(model: Transformer, logits_chunk: int) -> LossFunction:
    """The cross-entropy of packed rows `tokens, targets, positions, segment_ids, loss_mask`, [batch, length] each.

    Args:
      model: the decoder.
      logits_chunk: tokens of a row whose logits stand in a device's memory at a time.
    """

    def loss_function(params: Any, batch: Batch) -> tuple[Array, dict[str, Array]]:
        hidden, _ = model.apply(params, batch["tokens"], batch["positions"], batch["segment_ids"])
        output = model.apply(params, method="output_matrix")
        loss = chunked_cross_entropy(hidden, output, batch["targets"], batch["loss_mask"], logits_chunk)
        return loss, {"denominator": batch["loss_mask"].sum()}

    return loss_function


def check(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
    """Refuses, before any data is read, what `train` could not work with on a mesh.

    Raises:
      InputError: names the field.
    """
    check_positive(config, "length", "batch_size", "logits_chunk", "num_steps", "save_every", "keep_last", "log_every")
    check_batch(config.batch_size, config.num_microbatches, mesh, "config.batch_size")
    if config.length % mesh.shape["sequence"]:
        raise InputError(
            f"config.length: {config.length} is no multiple of the {mesh.shape['sequence']} devices along sequence; "
            "change it or config.mesh"
        )
    make_optimizer(config.optimizer, config.num_steps)
    Guard(config.guards)


def check_model(config: ml_collections.ConfigDict, model_config: ModelConfig, mesh: Mesh) -> None:
    """Refuses, before any data is read, a model that does not fit the mesh or whose attention does not fit the rows.

    Raises:
      InputError: names the field.
    """
    abstract_params(Transformer(model_config), mesh)
    attention.check(model_config.attention, config.length // mesh.shape["sequence"], model_config.head_dim)


def train(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    model_config: ModelConfig,
    batches: BatchIterator,
    label: str,
) -> dict[str, float]:
    """Trains to `config.num_steps`, from the workdir's newest checkpoint, from `config.init_from`, or from scratch.

    Args:
      config: mesh, init_from, num_steps, num_microbatches, save_every, keep_last, keep_best, log_every, seed,
        optimizer, guards, profile.
      workdir: of the stage.
      model_config: the model; a parent's parameters must have its shapes.
      batches: see `next_token_loss`.
      label: the stage's name, shown beside the progress.
    Returns:
      the mean loss of the last tenth of the logged steps, the number of steps and of parameters; in process 0.
    """
    mesh = make_mesh(config.mesh)
    model = Transformer(model_config)

    def make_step(optimizer: optax.GradientTransformation) -> Step:
        loss_function = next_token_loss(model, config.logits_chunk)
        return make_train_step(loss_function, optimizer, mesh, config.num_microbatches)

    _, result = run(
        config,
        workdir,
        model,
        mesh,
        (lambda abstract: read_params(config.init_from, abstract)) if config.init_from else None,
        make_step,
        batches,
        label,
        tokens_per_step=config.batch_size * config.length,
        copies=processes.count() * len(local_rows(mesh, config.batch_size)) // config.batch_size,
    )
    return result


def run(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    model: Transformer,
    mesh: Mesh,
    read_parent: Callable[[Any], Any] | None,
    make_step: Callable[[optax.GradientTransformation], Step],
    batches: BatchIterator,
    label: str,
    *,
    tokens_per_step: int | None,
    copies: int,
) -> tuple[TrainState, dict[str, float]]:
    """The run of `train` for any model and step.

    Args:
      config: num_steps, save_every, keep_last, keep_best, log_every, seed, optimizer, guards, profile.
      workdir, batches, label: see `train`.
      model: the decoder, or what stands on one.
      mesh: what it is spread over.
      read_parent: gives a new run's first parameters, like their shapes, dtypes and shardings; None: random ones.
      make_step: the guarded optimizer to a step; see `dsmath.train.loop.fit`.
      tokens_per_step: by which the speed is told, where every step has as many.
      copies: how many processes hold each row that `batches` counts.
    Returns:
      the last state, and what `train` returns.
    """
    optimizer, schedule = make_optimizer(config.optimizer, config.num_steps)
    guard, rollbacks = Guard(config.guards), 0
    optimizer = guard.wrap(optimizer)
    with Checkpointer(
        workdir, model.config, save_every=config.save_every, keep_last=config.keep_last, keep_best=config.keep_best
    ) as checkpointer:
        abstract = abstract_state(model, optimizer, mesh)
        if checkpointer.latest_step is not None:
            state, data = checkpointer.restore(abstract)
            batches.set_state(data["batches"])
            rollbacks = data["rollbacks"]
        elif read_parent:
            # No name keeps the parent's parameters: they would stay on the devices for the whole run.
            state = start_from(read_parent(abstract.params), model, optimizer, mesh, config.seed)
        else:
            state = create_state(model, optimizer, mesh, config.seed)

        start = int(state.step)
        clock = _Clock(tokens_per_step)
        with (
            MetricsWriter(workdir, start) as writer,
            Progress(config.num_steps, label, "step", done=start) as progress,
            Watch(workdir, config.guards.hang_seconds, config.profile) as watch,
        ):

            def log(step: int, metrics: dict[str, float]) -> None:
                learning_rate = float(schedule(step - 1 - metrics["skipped"]))  # a skipped step moves no schedule
                counts = _sum_counts(processes.gather(batches.counts()), copies)
                writer.write(step, metrics | counts | {"learning_rate": learning_rate} | clock.rate(step))
                progress.advance(0, loss=metrics["loss"])

            def go_back(step: int, earlier: int) -> None:
                if processes.is_main():
                    logging.warning("step %d: config.guards sends the run back to step %d", step, earlier)
                writer.go_back(earlier)
                progress.advance(earlier - (step - 1))
                clock.restart()

            state = fit(
                state,
                make_step(optimizer),
                batches,
                checkpointer,
                guard,
                watch,
                num_steps=config.num_steps,
                save_every=config.save_every,
                log_every=config.log_every,
                rollbacks=rollbacks,
                on_log=log,
                on_step=lambda step: progress.advance(),
                on_rollback=go_back,
            )
    if not processes.is_main():
        return state, {}
    losses = [record["loss"] for record in read_metrics(workdir)]
    tail = losses[-max(1, len(losses) // 10) :]  # one step's loss is noise, that of a skipped one no number
    tail = [loss for loss in tail if math.isfinite(loss)] or [math.nan]
    return state, {"loss": sum(tail) / len(tail), "steps": config.num_steps, "parameters": _count(abstract.params)}


def _sum_counts(counts: list[Mapping[str, int]], copies: int) -> dict[str, int]:
    """Tokens of all processes by corpus, as metrics; so many processes hold each row."""
    return {f"tokens/{name}": sum(count[name] for count in counts) // copies for name in counts[0]}


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


class _Clock:
    """Tokens per second between two looks; the first window, which compiles, has none."""

    def __init__(self, tokens_per_step: int | None):
        self._tokens_per_step = tokens_per_step
        self.restart()

    def restart(self) -> None:
        self._step, self._time = None, 0.0

    def rate(self, step: int) -> dict[str, float]:
        before, since = self._step, self._time
        self._step, self._time = step, time.perf_counter()
        if before is None or self._tokens_per_step is None:
            return {}
        return {"tokens_per_second": (step - before) * self._tokens_per_step / (self._time - since)}
