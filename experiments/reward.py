"""Trains a reward model, of outcomes or of steps, on samples that it has labelled first or on a file with labels.

python -m experiments.reward --config=configs/reward.py:nano --workdir=runs/reward --config.init_from=runs/pretrain
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import pyarrow
import pyarrow.parquet
from jax.sharding import Mesh

from dsmath.data import chat, problems, process_labels
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.reward import accuracy, generations, groups, models, shepherd, training
from dsmath.reward.rules import answer_rewards
from dsmath.rollout.batches import check_microbatch, row_shape
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Request
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.train import supervised
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.guards import Guard
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import abstract_params

SAMPLE, LABEL = 1, 2  # purposes of the random key


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Samples and labels solutions, or reads them; trains on most questions; judges the solutions of the others.

    Source: DeepSeekMath §4.2, after Math-Shepherd (Wang et al. 2023).
    """
    check(config)
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")

    # Labelled solutions by question
    found = read_labels(config, workdir, tokenizer) if config.labelled else sample(config, workdir, mesh, tokenizer)
    shape = {
        "group_size": config.num_samples,
        "max_tokens": config.decoding.max_new_tokens,
        "steps": groups.most_steps(found),
        "pad_id": tokenizer.pad_id,
    }
    found = groups.cut(found, shape["group_size"], shape["max_tokens"])
    train, held_out = groups.hold_out(found, config.held_out, config.seed)
    source = "config.labelled" if config.labelled else "config.sampler"
    train = groups.keep_telling(train, config.kind, config.loss, source)

    # Training
    tokenizer.save(workdir)
    models.write_kind(workdir, config.kind, config.loss)
    model = models.base_model(config.init_from)
    state, result = supervised.run(
        config,
        workdir,
        model,
        mesh,
        lambda _: models.base_params(config.init_from, mesh),
        lambda optimizer: training.make_update(
            model, config.kind, config.loss, optimizer, mesh, config.microbatch_tokens
        ),
        groups.GroupBatches(train, config.batch_size, config.seed, lambda chosen: groups.make_batch(chosen, **shape)),
        "reward",
        tokens_per_step=None,  # packed: no two steps have as many
        copies=1,
    )

    # Held-out questions
    reward_model = models.RewardModel(config.kind, config.loss, model, state.params)
    score = training.make_scores(
        reward_model, mesh, batch_size=config.batch_size, **shape, microbatch_tokens=config.microbatch_tokens
    )
    scores = list(score(state.params, held_out))
    return {
        **result,
        "train_groups": len(train),
        "heldout_groups": len(held_out),
        **accuracy.summarize(reward_model, held_out, scores, config.threshold),
    }


def check(config: Any) -> None:
    """Refuses, before any work, a config that the stage could not work with."""
    check_positive(config, "num_samples", "num_completions", "shard_size", "batch_size", "num_steps")
    check_positive(config, "save_every", "keep_last", "log_every")
    models.check_kind(config.kind, config.loss)
    Decoding.read(config.decoding)
    if config.labels not in ("hard", "soft"):
        raise InputError(f"config.labels: {config.labels!r} is none of hard, soft")
    for field in ("held_out", "threshold"):
        if not 0 < config[field] < 1:
            raise InputError(f"config.{field}: {config[field]} is not between 0 and 1")
    if config.loss == models.PAIRWISE and config.num_samples < 2:
        raise InputError("config.num_samples: 1 makes no pair for config.loss=pairwise; raise it")
    make_optimizer(config.optimizer, config.num_steps)
    Guard(config.guards)
    require_finished(config.init_from, "config.init_from")
    if not config.labelled:
        require_finished(config.sampler, "config.sampler")


def check_prompts(config: Any, prompts: Sequence[Sequence[int]]) -> None:
    """Refuses micro-batches that cannot hold the longest prompt and its samples."""
    rows, width = row_shape(config.num_samples, config.decoding.max_new_tokens)
    prefix_length = groups.prefix_length(max(map(len, prompts)))
    check_microbatch(config.microbatch_tokens, rows, width, prefix_length)


def read_labels(config: Any, workdir: pathlib.Path, tokenizer: Tokenizer) -> list[groups.Group]:
    """The labelled solutions of `config.labelled`."""
    records = process_labels.read(config.labelled, config.labels == "soft")
    found = groups.from_solutions(records, tokenizer)
    check_prompts(config, [group.prompt for group in found])
    write_lineage(workdir, parents={"init_from": config.init_from}, data=[config.labelled])
    return found


def sample(config: Any, workdir: pathlib.Path, mesh: Mesh, tokenizer: Tokenizer) -> list[groups.Group]:
    """Samples solutions of all problems and labels them; files that exist are kept.

    Returns:
      the problems' labelled solutions.
    """
    models.check_tokenizer(config.sampler, tokenizer, "config.sampler")
    records = problems.load(config.problems, "train", count=config.num_problems, seed=config.seed)
    prompts = [chat.encode_prompt(record, tokenizer) for record in records]
    check_prompts(config, prompts)
    decoding = Decoding.read(config.decoding)
    model = Transformer(read_model(config.sampler, "config.sampler"))
    params = read_params(config.sampler, abstract_params(model, mesh), "config.sampler")
    parents = {"init_from": config.init_from, "sampler": config.sampler}
    write_lineage(workdir, parents=parents, data=problems.files(config.problems, "train"))
    key = jax.random.key(config.seed)
    longest = max(map(len, prompts))

    def make_engine(group_size: int, longest_prompt: int) -> Engine:
        limits = fit(
            model.config,
            mesh,
            **config.rollout,
            group_size=group_size,
            longest_prompt=longest_prompt,
            max_new_tokens=decoding.max_new_tokens,
        )
        return Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)

    files = generations.divide(workdir / "samples", len(records), config.shard_size)
    with Progress(len(records), "sample", "problem") as progress:
        generations.generate(
            make_engine(config.num_samples, longest),
            params,
            [
                Request(index, prompt, config.num_samples, decoding, (tokenizer.eos_id,))
                for index, prompt in enumerate(prompts)
            ],
            [dataclasses.asdict(record) | {"gold": record.answer} for record in records],
            generations.PROBLEM,
            key=jax.random.fold_in(key, SAMPLE),
            files=files,
            on_request=progress.advance,
        )
    if config.kind == models.OUTCOME:
        labelled = label_files(list(files), workdir, grade)
    else:
        engine = make_engine(config.num_completions, longest + decoding.max_new_tokens)

        def label(table: pyarrow.Table) -> pyarrow.Table:
            return shepherd.label(
                grade(table),
                prompts,
                engine,
                params,
                tokenizer,
                num_completions=config.num_completions,
                decoding=decoding,
                key=jax.random.fold_in(key, LABEL),
            )

        labelled = label_files(list(files), workdir, label)
    tables = map(pyarrow.parquet.read_table, labelled)
    return [group for table in tables for group in groups.from_table(table, prompts, config.labels == "soft")]


def grade(table: pyarrow.Table) -> pyarrow.Table:
    """Adds `correct` to a table of samples."""
    correct = answer_rewards(table["completion"].to_pylist(), table["gold"].to_pylist()) > 0
    return table.append_column("correct", pyarrow.array(correct, pyarrow.bool_()))


def label_files(
    files: Sequence[pathlib.Path], workdir: pathlib.Path, label: Callable[[pyarrow.Table], pyarrow.Table]
) -> list[pathlib.Path]:
    """Labels files of samples one by one; the labelled files, by the same names, that exist are kept."""
    labelled = [workdir / "labelled" / file.name for file in files]
    missing = [(file, target) for file, target in zip(files, labelled, strict=True) if not target.exists()]
    with Progress(len(files), "label", "file", done=len(files) - len(missing)) as progress:
        for file, target in missing:
            generations.write_table(target, label(pyarrow.parquet.read_table(file)))
            progress.advance()
    return labelled


if __name__ == "__main__":
    driver.main("reward", run, free=supervised.FREE)
