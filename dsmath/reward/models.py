"""Reward models: a decoder with a scalar head that scores finished solutions, or each of their steps.

A reward model's workdir is like any stage's, and `reward_model.json` in it says what it scores and how it was trained.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.heads import ValueModel, headless
from dsmath.model.precision import cast_matrices
from dsmath.model.transformer import Transformer
from dsmath.reward import losses
from dsmath.rollout.batches import completion_values
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json, to_path, write_json
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.rows import to_global
from dsmath.train.state import Batch, LossFunction, abstract_params

FILE = "reward_model.json"
OUTCOME, PROCESS = "outcome", "process"
SIGMOID, PAIRWISE = "sigmoid", "pairwise"
LOSSES = {OUTCOME: (SIGMOID, PAIRWISE), PROCESS: (SIGMOID,)}  # by kind


class RewardModel(NamedTuple):
    """A reward model.

    Attributes:
      kind: "outcome", a score for a finished solution, or "process", one at the end of each step.
      loss: "sigmoid", scores are probabilities, or "pairwise", they only tell which of a question's solutions is
        better.
      model: the decoder with its head.
      params: of both.
    """

    kind: str
    loss: str
    model: ValueModel
    params: Any


def check_kind(kind: str, loss: str, source: str = "config.") -> None:
    """Refuses a kind and a loss that do not go together.

    Raises:
      InputError: names the field, behind `source`.
    """
    if kind not in LOSSES:
        raise InputError(f"{source}kind: {kind!r} is none of {', '.join(LOSSES)}")
    if loss not in LOSSES[kind]:
        raise InputError(f"{source}loss: {loss!r} is none of {', '.join(LOSSES[kind])}, the losses of kind {kind}")


def write_kind(workdir: str | os.PathLike, kind: str, loss: str) -> None:
    """Marks a workdir as that of a reward model."""
    write_json(pathlib.Path(workdir) / FILE, {"kind": kind, "loss": loss})


def read(
    workdir: str | os.PathLike,
    mesh: Mesh,
    tokenizer: Tokenizer,
    field: str = "config.reward_model",
    *,
    learns: bool,
) -> RewardModel:
    """The reward model of a workdir.

    Args:
      workdir: of a stage of reward modelling.
      mesh: its parameters are laid onto.
      tokenizer: of the model whose solutions are to be scored: they are read token by token.
      field: the config's field that names the workdir.
      learns: whether it is to learn further; else it is read in no more digits than it scores by.
    Raises:
      InputError: no reward model, or one with another tokenizer.
    """
    if not (to_path(workdir) / FILE).exists():
        raise InputError(
            f"{field}={str(workdir)!r}: no {FILE} there; give the workdir of a finished run of experiments.reward"
        )
    check_tokenizer(workdir, tokenizer, field)
    found = read_json(to_path(workdir) / FILE)
    check_kind(found.get("kind"), found.get("loss"), f"{to_path(workdir) / FILE}: ")
    model = ValueModel(read_model(workdir, field))
    abstract = abstract_params(model, mesh)
    abstract = abstract if learns else cast_matrices(abstract, model.config)
    return RewardModel(found["kind"], found["loss"], model, read_params(workdir, abstract, field))


def check_tokenizer(workdir: str | os.PathLike, tokenizer: Tokenizer, field: str) -> None:
    """Refuses a model that does not read the tokens that another wrote.

    Raises:
      InputError: names the field.
    """
    if not Tokenizer.load(workdir, field).equals(tokenizer):
        raise InputError(
            f"{field}={str(workdir)!r}: its tokenizer is not that of the model that samples; take a reward model and "
            "a policy that descend from one base"
        )


def base_model(init_from: str | os.PathLike) -> ValueModel:
    """The reward model that starts from a checkpoint: without its output matrix, with a head."""
    return ValueModel(headless(read_model(init_from)))


def base_params(init_from: str | os.PathLike, mesh: Mesh) -> Any:
    """The parameters with which `base_model` starts: the checkpoint's, and a head at zero.

    Source: DeepSeekMath §4.2 (the base model).
    """
    parent = Transformer(read_model(init_from))
    params = read_params(init_from, abstract_params(parent, mesh))["params"]
    params.pop("output", None)
    head = abstract_params(ValueModel(headless(parent.config)), mesh)["params"]["head"]
    return zero_head({"params": params | {"head": head}})


def zero_head(params: Any) -> Any:
    """The parameters with a head at zero, whose own may be shapes with shardings."""
    params = params["params"]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding), params["head"])
    return {"params": params | {"head": zeros}}


def make_loss(model: ValueModel, kind: str, loss: str) -> LossFunction:
    """The loss of a batch of `dsmath.rollout.batches.make_batch` with labels.

    Outcome: `labels` and `label_mask`, float32 [questions, group_size]; the mask is 0 where there is no label.
    Process: `step_ends`, int32 [questions, group_size, steps], -1 where there is no step, and `step_labels`, float32 of
    the same shape.

    Source: DeepSeekMath §4.2, after Math-Shepherd (Wang et al. 2023).
    """
    of_outcomes = {SIGMOID: losses.cross_entropy, PAIRWISE: losses.pairwise}[loss]

    def loss_function(params: Any, batch: Batch) -> tuple[Array, dict[str, Array]]:
        values = completion_values(model, params, batch, "token")
        if kind == PROCESS:
            # A group that only fills a micro-batch has no tokens and its ends are no ends.
            known = (batch["step_ends"] >= 0) & (batch["step_ends"] < batch["lengths"][..., None])
            known = known.astype(jnp.float32)
            return losses.cross_entropy(process_scores(values, batch["step_ends"]), batch["step_labels"], known)
        return of_outcomes(outcome_scores(values, batch), batch["labels"], batch["label_mask"])

    return loss_function


def make_values(model: ValueModel, mesh: Mesh, loss: str) -> Callable[[Any, Batch], Array]:
    """Jits the scores at every token of a batch's completions, float32 [questions, group_size, max_new_tokens].

    They are probabilities of being right where the loss is "sigmoid". `outcome_scores` and `process_scores` pick those
    that mean something.
    """

    def compute(params: Any, batch: Mapping[str, Array]) -> Array:
        values = completion_values(model, params, batch, "token")
        return jax.nn.sigmoid(values) if loss == SIGMOID else values

    jitted = jax.jit(compute)

    def run(params: Any, batch: Batch) -> Array:
        with jax.set_mesh(mesh):
            return jitted(params, to_global(batch, mesh))

    return run


def outcome_scores(values: Array, batch: Batch) -> Array:
    """The values at the last token of each completion, float32 [questions, group_size]."""
    last = jnp.maximum(batch["lengths"] - 1, 0)[..., None]
    return jnp.take_along_axis(values, last, axis=2)[..., 0]


def process_scores(values: Array, step_ends: Array) -> Array:
    """The values at the last token of each step, float32 [questions, group_size, steps]; 0 where there is no step.

    Args:
      values: float32 [questions, group_size, max_new_tokens].
      step_ends: int32 [questions, group_size, steps], -1 where there is no step.
    """
    found = jnp.take_along_axis(values, jnp.maximum(step_ends, 0), axis=2)
    return jnp.where(step_ends >= 0, found, 0.0)
