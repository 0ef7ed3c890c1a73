"""The history of an iterative run on disk, and the reward model that goes on learning from it between iterations.

Source: DeepSeekMath §4.1.4, Algorithm 1, lines 10 and 11.
"""

import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np
import pyarrow
import pyarrow.parquet
from absl import logging
from jax.sharding import Mesh

from dsmath.data import chat
from dsmath.data.solutions import Solution
from dsmath.data.tokenizer import Tokenizer
from dsmath.reward import groups, training
from dsmath.reward.groups import Group
from dsmath.reward.models import RewardModel
from dsmath.rl.ahead import load_stage, save_stage
from dsmath.rl.exploration import Stage
from dsmath.rollout.batches import row_shape
from dsmath.runs import processes
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import CONFIG, read_json, replacing, to_path
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import start_from

HISTORY = "history"  # folder of the stages that were learned from, and of their steps' labels
_ORDER = 4  # purpose of the seed of what is replayed

# (step, a table of graded samples, its questions' prompts) -> the table with labels of steps.
Labeller = Callable[[int, pyarrow.Table, Sequence[Sequence[int]]], pyarrow.Table]


def keep(workdir: str | os.PathLike, step: int, stage: Stage) -> None:
    """Writes a step's samples; of many processes the first one does, and the others wait."""
    if processes.is_main():
        save_stage(_file(workdir, step), stage)
    processes.barrier()


def go_back(workdir: str | os.PathLike, step: int) -> None:
    """Removes the history of the steps beyond this one, which are to be made anew."""
    if processes.is_main():
        for path in (pathlib.Path(workdir) / HISTORY).glob("[0-9]*"):
            if int(path.stem) > step:
                path.unlink()
    processes.barrier()


def read_steps(
    workdir: str | os.PathLike,
    steps: Sequence[int],
    prompts: Sequence[Sequence[int]],
    golds: Sequence[str],
    label: Labeller | None,
    soft: bool,
) -> list[Group]:
    """The labelled samples of some steps; labels of steps are kept on disk once they are made.

    Args:
      workdir: of the run.
      steps: their numbers.
      prompts, golds: token ids and answers of all questions.
      label: gives the steps of solutions their labels; None where outcomes are enough.
      soft: see `groups.from_table`.
    """
    found = []
    for step in steps:
        stage = load_stage(_file(workdir, step))
        asked = [prompts[index] for index in stage.questions]
        table = groups.to_table(stage.samples, [golds[index] for index in stage.questions], stage.rewards.correct)
        if label:
            path = _file(workdir, step).with_suffix(".parquet")
            if processes.broadcast(path.exists()):
                table = pyarrow.parquet.ParquetFile(path).read()
            else:
                table = label(step, table, asked)
                if processes.is_main():
                    with replacing(path) as temporary:
                        pyarrow.parquet.write_table(table, temporary)
                processes.barrier()
        found += groups.from_table(table, asked, soft)
    return found


def read_training(reward_model: str | os.PathLike, tokenizer: Tokenizer, soft: bool) -> list[Group]:
    """What a reward model was first trained on; nothing where that was a file of others, or lies in a bucket."""
    found = []
    for path in sorted((pathlib.Path(reward_model) / "labelled").glob("*.parquet")):
        table = pyarrow.parquet.ParquetFile(path).read()
        columns = table.select(["question_index", "question", "language"]).to_pydict()
        prompts = {
            index: chat.encode_prompt(Solution(question, "", "", language=language), tokenizer)
            for index, question, language in set(zip(*columns.values(), strict=True))
        }
        found += groups.from_table(table, prompts, soft)
    return found


def leave_out_long(older: Sequence[Group], group_size: int, max_tokens: int, microbatch_tokens: int) -> list[Group]:
    """Older groups without those whose prompts leave a micro-batch no room, which are counted in a warning.

    The run's own prompts were looked at when it began (`dsmath.rl.paradigm.check_prompts`); those of the reward model's
    training may be longer.

    Args:
      older: groups that may be replayed.
      group_size, max_tokens: of a batch's groups and solutions.
      microbatch_tokens: of the config; 0 for no limit.
    """
    rows, width = row_shape(group_size, max_tokens)
    room = microbatch_tokens - rows * width if microbatch_tokens else math.inf
    kept = [group for group in older if groups.prefix_length(len(group.prompt)) <= room]
    if len(kept) < len(older):
        logging.warning(
            "%d older questions are too long for config.microbatch_tokens=%d and are not replayed",
            len(older) - len(kept),
            microbatch_tokens,
        )
    return kept


def go_on(
    reward_model: RewardModel,
    workdir: str | os.PathLike,
    ended: range,
    prompts: Sequence[Sequence[int]],
    golds: Sequence[str],
    label: Labeller | None,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    tokenizer: Tokenizer,
) -> tuple[Any, dict[str, float]]:
    """Trains a reward model further, on the newest samples of an iteration with some older ones among them.

    Args:
      reward_model: as it stands.
      workdir: of the run.
      ended: the steps of the iteration that has ended.
      prompts, golds, label: see `read_steps`.
      config: replay, reward_model, optimizer, guards, num_groups, group_size, decoding, microbatch_tokens, seed.
      mesh: of the run.
      tokenizer: of the policy.
    Returns:
      its new parameters, and metrics of its last update.
    """
    replay, rng = config.replay, np.random.default_rng((config.seed, _ORDER, ended.stop))
    made_with = read_json(to_path(config.reward_model) / CONFIG)
    soft = made_with.get("labels") == "soft"
    wanted = round(replay.num_steps * replay.num_groups * (1 - replay.share))
    newest = ended[-math.ceil(wanted / config.num_groups) :]
    new = read_steps(workdir, newest, prompts, golds, label, soft)[-wanted:]
    # No more steps than may be drawn from are labelled.
    most = math.ceil(len(new) * replay.share / (1 - replay.share) / config.num_groups)
    earlier = sorted((1 + rng.permutation(ended.start - 1)[:most]).tolist())
    older = read_steps(workdir, earlier, prompts, golds, label, soft)
    older += read_training(config.reward_model, tokenizer, soft)
    size, length = config.group_size, config.decoding.max_new_tokens
    older = leave_out_long(older, size, length, config.microbatch_tokens)
    try:
        chosen = groups.cut(training.with_replay(new, older, replay.share, rng), size, length)
        chosen = groups.keep_telling(chosen, reward_model.kind, reward_model.loss, "config.problems")
    except InputError as nothing:  # a policy that is always right, say; hours of work are no price for it
        logging.warning("step %d: the reward model stays as it is: %s", ended.stop - 1, nothing)
        return reward_model.params, {}
    settings = {"peak_learning_rate": replay.learning_rate, "schedule": "constant", "warmup_steps": 0}
    optimizer, _ = make_optimizer(config.optimizer.to_dict() | settings, replay.num_steps)
    guard = Guard(config.guards, rollback=False)
    optimizer = guard.wrap(optimizer)
    state = start_from(reward_model.params, reward_model.model, optimizer, mesh, config.seed)
    guard.begin(state)
    update = training.make_update(
        reward_model.model, reward_model.kind, reward_model.loss, optimizer, mesh, config.microbatch_tokens
    )
    steps = groups.most_steps(chosen)
    batches = groups.GroupBatches(
        chosen,
        min(replay.num_groups, len(chosen)),
        config.seed + ended.stop,
        lambda some: groups.make_batch(some, size, length, steps, tokenizer.pad_id),
    )
    for _ in range(replay.num_steps):
        state, metrics = update(state, next(batches))
    guard.must_go_back(ended.stop - 1, state, float(metrics["loss"]))  # it does not: it raises, or it has skipped
    return state.params, {f"reward_model/{name}": float(metrics[name]) for name in ("loss", "accuracy")}


def _file(workdir: str | os.PathLike, step: int) -> pathlib.Path:
    return pathlib.Path(workdir) / HISTORY / f"{step:06}.npz"
