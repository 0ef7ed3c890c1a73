"""Evaluates a checkpoint on held-out problems: greedy accuracy, pass@k, maj@k.

python -m experiments.evaluate --config=configs/evaluate.py:nano --workdir=runs/evaluate --config.init_from=runs/rl

With --config.reward_model=DIR also what the reward model makes of the samples: best_of and weighted_maj.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import pyarrow
import pyarrow.parquet
from absl import logging
from jax.sharding import Mesh

from dsmath.data import chat, problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.evaluation import scores, selection
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.reward import generations, groups, models, training
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Request
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """One greedy solution and `num_samples` sampled ones for every problem, graded.

    Source: DeepSeekMath §5.2.2, Figure 7 (maj@k and pass@k).
    """
    check_positive(config, "num_samples", "batch_size")
    selection.check(config.aggregate)
    require_finished(config.init_from, "config.init_from")
    if config.reward_model:
        require_finished(config.reward_model, "config.reward_model")
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)

    model = Transformer(read_model(config.init_from, step=config.step))

    # Problems
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")
    records = problems.load(config.problems, "test", count=config.num_problems, seed=config.seed)
    prompts = [chat.encode_prompt(record, tokenizer) for record in records]
    parents = {"init_from": config.init_from}
    if config.reward_model:
        parents["reward_model"] = config.reward_model
        models.check_tokenizer(config.reward_model, tokenizer, "config.reward_model")
    data = problems.files(config.problems, "test")
    write_lineage(workdir, parents=parents, data=data, steps={"init_from": config.step})

    # Model
    params = read_params(config.init_from, abstract_params(model, mesh), step=config.step)
    key = jax.random.key(config.seed)

    # Generation
    tables = {}
    passes = {"greedy": (0.0, 1), "samples": (config.temperature, config.num_samples)}
    with Progress(len(passes) * len(records), "evaluate", "problem") as progress:
        for name, (temperature, group_size) in passes.items():
            decoding = Decoding(temperature, config.top_p, config.max_new_tokens)
            limits = fit(
                model.config,
                mesh,
                **config.rollout,
                group_size=group_size,
                longest_prompt=max(map(len, prompts)),
                max_new_tokens=config.max_new_tokens,
            )
            engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)
            files = generations.generate(
                engine,
                params,
                [
                    Request(index, prompt, group_size, decoding, (tokenizer.eos_id,))
                    for index, prompt in enumerate(prompts)
                ],
                [dataclasses.asdict(record) | {"gold": record.answer} for record in records],
                generations.PROBLEM,
                key=key,
                folder=workdir / "generations" / name,
                chunk_size=max(1, config.batch_size // group_size),
                on_request=progress.advance,
            )
            tables[name] = pyarrow.concat_tables(map(pyarrow.parquet.read_table, files))

    # Grades and figures
    graded = {name: scores.grade(table) for name, table in tables.items()}
    result = scores.summarize(graded["greedy"], graded["samples"])
    if config.reward_model:
        del engine, params  # room for the reward model
        reward_model = models.read(config.reward_model, mesh, tokenizer)
        graded["samples"] = score(config, graded["samples"], prompts, reward_model, mesh, tokenizer)
        ks = [int(k) for k in result["maj_at"]]
        result |= selection.summarize(graded["samples"], config.num_samples, ks, reward_model.loss)
    for name, table in graded.items():
        generations.write_table(workdir / f"{name}.parquet", table)
    if result["truncated"] > 0.5:
        logging.warning(
            "%.0f %% of the greedy solutions are cut at config.max_new_tokens=%d",
            100 * result["truncated"],
            config.max_new_tokens,
        )
    return result


def score(
    config: Any,
    samples: pyarrow.Table,
    prompts: Sequence[Sequence[int]],
    reward_model: models.RewardModel,
    mesh: Mesh,
    tokenizer: Tokenizer,
) -> pyarrow.Table:
    """Adds `score` to the samples, and `step_scores` where the reward model scores steps."""
    found = selection.to_groups(samples, prompts, reward_model.kind, tokenizer.decode)
    compute = training.make_scores(
        reward_model,
        mesh,
        batch_size=max(1, config.batch_size // config.num_samples),
        group_size=config.num_samples,
        max_tokens=config.max_new_tokens,
        steps=groups.most_steps(found),
        pad_id=tokenizer.pad_id,
    )
    with Progress(len(found), "score", "problem") as progress:
        values = []
        for of_group in compute(reward_model.params, found):
            values += of_group
            progress.advance()
    if reward_model.kind == models.PROCESS:
        steps = pyarrow.array([of_steps.tolist() for of_steps in values], pyarrow.list_(pyarrow.float32()))
        samples = samples.append_column("step_scores", steps)
    whole = [selection.aggregate(of_steps, config.aggregate) for of_steps in values]
    return samples.append_column("score", pyarrow.array(whole, pyarrow.float32()))


if __name__ == "__main__":
    driver.main("evaluate", run)
