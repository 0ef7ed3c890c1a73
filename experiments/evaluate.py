"""Evaluates a checkpoint on benchmarks: greedy accuracy, pass@k, maj@k, beside the paper's figures.

python -m experiments.evaluate --config=configs/evaluate.py:nano --workdir=runs/evaluate --config.init_from=runs/rl
python -m experiments.evaluate --config=configs/evaluate.py:7b --workdir=runs/tables --config.init_from=hf:DIR \
    --config.folder=data/benchmarks --config.published='DeepSeekMath-RL 7B'

The workdir keeps the problems (items/), what the model wrote (generations/, never overwritten) and the verdicts on it
(verdicts/); `experiments.rescore` grades anew without the model. With --config.reward_model=DIR also what the reward
model makes of the samples: best_of and weighted_maj.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import pyarrow
from absl import logging
from jax.sharding import Mesh

from dsmath.data.benchmarks.catalog import BENCHMARKS
from dsmath.data.problems import EMBEDDED
from dsmath.data.tokenizer import Tokenizer
from dsmath.evaluation import completions, page, protocols, published, scores, selection, tasks, verdicts
from dsmath.evaluation.completions import CHOICE, GREEDY, SAMPLES
from dsmath.evaluation.protocols import PROTOCOL
from dsmath.evaluation.results import table_file
from dsmath.evaluation.runners import open_runners
from dsmath.evaluation.table import draw_table
from dsmath.evaluation.tasks import Task
from dsmath.huggingface import convert
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.reward import generations, groups, models, training
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import CONFIG, LINEAGE, read_json, require_finished, write_json, write_lineage
from dsmath.sandbox import Pool
from dsmath.sandbox.tool import PythonTool, check_limits
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params

_HUGGING_FACE = "hf:"


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """One greedy solution of every problem, or its likeliest option, and `num_samples` sampled ones, graded.

    Source: DeepSeekMath §5.2.2, Figure 7 (maj@k and pass@k).
    """
    check(config)
    protocol = protocols.read_protocol(config)
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)

    # What is asked
    sources = tasks.read_sources(config)
    checkpoint = bring_in(config.init_from, workdir)
    tokenizer = Tokenizer.load(checkpoint, "config.init_from")
    length = config.length or find_length(checkpoint)
    asked = tasks.make_tasks(sources, config.modes, tokenizer, length)
    warn_of_length(asked, config.max_new_tokens, length)
    model = Transformer(read_model(checkpoint, step=config.step))
    parents = {"init_from": checkpoint}
    if config.reward_model:
        parents["reward_model"] = config.reward_model
        models.check_tokenizer(config.reward_model, tokenizer, "config.reward_model")

    names = [(task.source.benchmark, task.mode) for task in asked]
    options = {"workers": config.tool.workers, "isolation": config.tool.isolation, "isabelle": config.isabelle}
    has_tool = any(prompt.tool for task in asked for prompt in task.prompts)
    with open_runners(names, protocol, tool=has_tool, proofs=config.proofs, **options) as runners:
        data = [file for source in sources for file in source.files]
        write_lineage(workdir, parents=parents, data=data, steps={"init_from": config.step})
        write_json(workdir / PROTOCOL, protocol.record())
        for source in sources:
            tasks.write_items(workdir, source)

        # What is answered
        params = read_params(checkpoint, abstract_params(model, mesh), step=config.step)
        answer(config, workdir, asked, model, mesh, params, tokenizer, runners.pool)
        del params  # room for the reward model

        # How that is judged
        tables = {}
        for task, name in zip(asked, names, strict=True):
            runner = runners.of(*name)
            for kind in (GREEDY, SAMPLES) if is_sampled(task, config) else (GREEDY,):
                target = table_file(workdir, *name, kind)
                tables[task.name, kind] = verdicts.judge(
                    workdir, *name, kind, config.grader, runner=runner, target=target
                )

    # Figures
    results = []
    reward_model = models.read(config.reward_model, mesh, tokenizer, learns=False) if config.reward_model else None
    for task in asked:
        samples = tables.get((task.name, SAMPLES))
        figures = task.describe() | {"grader": config.grader} | scores.summarize(tables[task.name, GREEDY], samples)
        if reward_model and samples is not None:
            samples = score(config, workdir, task, samples, reward_model, mesh, tokenizer)
            ks = list(map(int, figures["pass_at"]))
            chosen = selection.summarize(samples, config.num_samples, ks, reward_model.loss)
            if "maj_at" not in figures:  # programs have no votes
                del chosen["weighted_maj"]
            figures |= chosen
        results.append(scores.add_published(figures, config.published))
    warn_of_cut(results, config.max_new_tokens)
    print(draw_table(results))
    result = scores.to_result(results) | {"protocol": config.protocol, "grader": config.grader}
    print(f"report: {page.write(workdir, result)}")
    return result


def check(config: Any) -> None:
    """Refuses a config that no evaluation can have, before any work."""
    check_positive(config, "num_samples", "batch_size", "max_new_tokens")
    read_decodings(config)
    check_limits(config.tool)
    if config.num_problems < 0:
        raise InputError(f"config.num_problems: {config.num_problems} is negative; 0 is all of them")
    for name in tasks.split_names(config.sampled):
        if name != EMBEDDED and name not in BENCHMARKS:
            raise InputError(f"config.sampled: {name!r} is none of {', '.join((EMBEDDED, *BENCHMARKS))}")
    selection.check(config.aggregate)
    if config.grader not in verdicts.GRADERS:
        raise InputError(f"config.grader: {config.grader!r} is none of {', '.join(verdicts.GRADERS)}")
    if not config.init_from.startswith(_HUGGING_FACE):
        require_finished(config.init_from, "config.init_from")
    if config.reward_model:
        require_finished(config.reward_model, "config.reward_model")
    if config.published and config.published not in published.MODELS:
        raise InputError(f"config.published: {config.published!r} is none of {', '.join(published.MODELS)}")


def read_decodings(config: Any) -> dict[str, Decoding]:
    """How the greedy solutions and the samples are drawn.

    Raises:
      InputError: names the field.
    """
    temperatures = {GREEDY: 0.0, SAMPLES: config.temperature}
    try:
        return {kind: Decoding(value, config.top_p, config.max_new_tokens) for kind, value in temperatures.items()}
    except InputError as error:
        raise InputError(f"config.{error}") from error


def bring_in(init_from: str, workdir: pathlib.Path) -> str | os.PathLike:
    """The workdir of the checkpoint; one of Hugging Face is converted first, into a folder of this run."""
    if not init_from.startswith(_HUGGING_FACE):
        return init_from
    source = pathlib.Path(init_from.removeprefix(_HUGGING_FACE))
    found = convert.open_checkpoint(source, convert.KEEP, {"remat": "none", "attention": "xla"})
    folder = workdir / "checkpoint"
    write_lineage(folder, parents={"from": source}, data=found.sources())
    found.tokenizer.save(folder)
    convert.to_orbax(found, folder)
    write_json(folder / CONFIG, {"stage": "convert", "from": str(source), "length": found.length})
    return folder


def find_length(checkpoint: str | os.PathLike) -> int:
    """The context with which a checkpoint or the nearest of its parents was trained; 0 where none tells it."""
    folder = pathlib.Path(checkpoint)
    while True:
        length = read_json(folder / CONFIG).get("length") if (folder / CONFIG).exists() else 0
        parents = read_json(folder / LINEAGE)["parents"] if (folder / LINEAGE).exists() else {}
        if length or "init_from" not in parents:
            return length or 0
        folder = pathlib.Path(parents["init_from"]["workdir"])


def answer(
    config: Any,
    workdir: pathlib.Path,
    asked: Sequence[Task],
    model: Transformer,
    mesh: Mesh,
    params: Any,
    tokenizer: Tokenizer,
    pool: Pool | None,
) -> None:
    """Writes the generations of all tasks: one engine for the greedy pass with the choices, one for the samples."""
    limits = {name: config.tool[name] for name in ("seconds", "ends", "max_calls", "max_output_tokens")}
    # The released evaluation lets a model write so many times, and a program run behind each.
    limits |= {"memory": int(config.tool.memory_gib * 2**30), "ends_with_output": True}
    tool = PythonTool(pool, **limits) if pool else None
    key = jax.random.key(config.seed)
    decodings = read_decodings(config)
    passes = {
        GREEDY: (list(asked), 1),
        SAMPLES: ([task for task in asked if is_sampled(task, config)], config.num_samples),
    }
    total = sum(len(task.items) for found, _ in passes.values() for task in found)
    with Progress(total, "evaluate", "problem") as progress:
        for kind, (found, num_samples) in passes.items():
            if not found:
                continue
            limits = fit(
                model.config,
                mesh,
                **config.rollout,
                group_size=num_samples,
                longest_prompt=max(len(tokens) for task in found for tokens in task.tokens),
                max_new_tokens=config.max_new_tokens,
            )
            engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)
            choices = [task for task in found if task.mode == CHOICE]
            if choices:
                engine.load(params, key)
            for task in choices:
                size = config.batch_size
                completions.choose(task, engine, workdir=workdir, chunk_size=size, on_items=progress.advance)
            completions.complete(
                [task for task in found if task.mode != CHOICE],
                engine,
                params,
                kind=kind,
                workdir=workdir,
                num_samples=num_samples,
                decoding=decodings[kind],
                eos_id=tokenizer.eos_id,
                tool=tool,
                key=key,
                chunk_size=max(1, config.batch_size // num_samples),
                on_request=progress.advance,
            )
            engine.release()


def is_sampled(task: Task, config: Any) -> bool:
    """Whether pass@k and maj@k are told of a task."""
    named = tasks.split_names(config.sampled)
    return task.mode != CHOICE and (not named or task.source.benchmark in named)


def warn_of_length(asked: Sequence[Task], max_new_tokens: int, length: int) -> None:
    """Says where solutions may go on behind the model's context, of `length` tokens; 0: nobody knows it."""
    for task in asked:
        longest = max(map(len, task.tokens)) + max_new_tokens
        if length and longest > length:
            logging.warning(
                "%s, %s: a prompt and its solution may have %d tokens, and config.length, the model's context, is %d; "
                "what stands behind it was never trained",
                *(task.source.title, task.mode, longest, length),
            )


def warn_of_cut(results: Sequence[Mapping[str, Any]], max_new_tokens: int) -> None:
    """Says where most of the greedy solutions have no end."""
    for figures in results:
        if figures["truncated"] > 0.5:
            logging.warning(
                "%s, %s: %.0f %% of the greedy solutions are cut at config.max_new_tokens=%d",
                *(figures["title"], figures["mode"], 100 * figures["truncated"], max_new_tokens),
            )


def score(
    config: Any,
    workdir: pathlib.Path,
    task: Task,
    table: pyarrow.Table,
    reward_model: models.RewardModel,
    mesh: Mesh,
    tokenizer: Tokenizer,
) -> pyarrow.Table:
    """Adds `score` to the verdicts of samples, in their file too, and `step_scores` where steps are scored."""
    if "score" in table.column_names:
        return table
    files = verdicts.list_files(task.folder(workdir, SAMPLES))
    columns = ["question_index", "token_ids"]
    samples = pyarrow.concat_tables(generations.read_table(file, columns) for file in files)
    found = selection.to_groups(samples, task.tokens, reward_model.kind, tokenizer.decode)
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
        table = table.append_column("step_scores", steps)
    whole = [selection.aggregate(of_steps, config.aggregate) for of_steps in values]
    table = table.append_column("score", pyarrow.array(whole, pyarrow.float32()))
    generations.write_table(table_file(workdir, task.source.benchmark, task.mode, SAMPLES), table)
    return table


if __name__ == "__main__":
    driver.main("evaluate", run)
