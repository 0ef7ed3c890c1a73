"""The history of an iterative run: labelled samples on disk, and the reward model that goes on learning from them.

Source: DeepSeekMath §4.1.4, Algorithm 1, lines 10 and 11.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
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
from dsmath.runs import processes
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json, to_path
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import start_from

HISTORY = "history"  # folder of the stages that were learned from
_ORDER = 4  # purpose of the seed of what is replayed


def keep(workdir: str | os.PathLike, step: int, stage: Stage) -> None:
    """Writes a step's samples; of many processes the first one does, and the others wait."""
    if processes.is_main():
        save_stage(_file(workdir, step), stage)
    processes.barrier()


def go_back(workdir: str | os.PathLike, step: int) -> None:
    """Removes the history of the steps beyond this one, which are to be made anew."""
    if processes.is_main():
        for path in (pathlib.Path(workdir) / HISTORY).glob("*.npz"):
            if int(path.stem) > step:
                path.unlink()
    processes.barrier()


def read_steps(
    workdir: str | os.PathLike,
    steps: Sequence[int],
    prompts: Sequence[Sequence[int]],
    golds: Sequence[str],
) -> tuple[list[pyarrow.Table], list[list[Sequence[int]]]]:
    """The graded samples of some steps, a table each, and the prompts that its `question_index` counts.

    Args:
      workdir: of the run.
      steps: their numbers.
      prompts, golds: token ids and answers of all questions.
    """
    tables, asked = [], []
    for step in steps:
        stage = load_stage(_file(workdir, step))
        tables.append(
            groups.to_table(stage.samples, [golds[index] for index in stage.questions], stage.rewards.correct)
        )
        asked.append([prompts[index] for index in stage.questions])
    return tables, asked


def read_training(reward_model: str | os.PathLike, tokenizer: Tokenizer) -> list[Group]:
    """What a reward model was first trained on; nothing where that was a file of others."""
    soft = read_json(to_path(reward_model) / "config.json").get("labels") == "soft"
    found = []
    for path in sorted((pathlib.Path(reward_model) / "labelled").glob("*.parquet")):
        table = pyarrow.parquet.read_table(path)
        columns = table.select(["question_index", "question", "language"]).to_pydict()
        prompts = {
            index: chat.encode_prompt(Solution(question, "", "", language=language), tokenizer)
            for index, question, language in zip(*columns.values(), strict=True)
        }
        found += groups.from_table(table, prompts, soft)
    return found


def go_on(
    reward_model: RewardModel,
    new: Sequence[Group],
    older: Sequence[Group],
    config: ml_collections.ConfigDict,
    mesh: Mesh,
    pad_id: int,
    iteration: int,
) -> Any:
    """Trains a reward model further, on new samples with some older ones among them.

    Args:
      reward_model: as it stands.
      new: labelled samples of the last iteration.
      older: of the iterations before it, and what it was trained on at first.
      config: replay, optimizer, guards, group_size, decoding, microbatch_tokens, seed.
      mesh: of the run.
      pad_id: token id that fills arrays.
      iteration: that ended; the order depends on it and on the seed.
    Returns:
      its new parameters.
    """
    replay, rng = config.replay, np.random.default_rng((config.seed, _ORDER, iteration))
    size, length = config.group_size, config.decoding.max_new_tokens
    wanted = round(replay.num_steps * replay.num_groups * (1 - replay.share))  # of the new, the newest
    chosen = training.with_replay(
        groups.cut(new, size, length)[-wanted:], groups.cut(older, size, length), replay.share, rng
    )
    try:
        chosen = groups.keep_telling(chosen, reward_model.kind, reward_model.loss, "config.problems")
    except InputError as nothing:  # a policy that is always right, say; hours of work are no price for it
        logging.warning("iteration %d: the reward model stays as it is: %s", iteration, nothing)
        return reward_model.params
    settings = config.optimizer.to_dict() | {"peak_learning_rate": replay.learning_rate, "schedule": "constant"}
    optimizer, _ = make_optimizer(settings | {"warmup_steps": 0}, replay.num_steps)
    state = start_from(reward_model.params, reward_model.model, optimizer, mesh, config.seed)
    update = training.make_update(
        reward_model.model, reward_model.kind, reward_model.loss, optimizer, mesh, config.microbatch_tokens
    )
    batches = groups.GroupBatches(
        chosen,
        min(replay.num_groups, len(chosen)),
        config.seed + iteration,
        lambda some: groups.make_batch(some, size, length, groups.most_steps(chosen), pad_id),
    )
    for _ in range(replay.num_steps):
        state, metrics = update(state, next(batches))
    jax.block_until_ready(metrics)
    return state.params


def _file(workdir: str | os.PathLike, step: int) -> pathlib.Path:
    return pathlib.Path(workdir) / HISTORY / f"{step:06}.npz"
