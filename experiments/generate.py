"""Completions of the prompts of a file, for evaluation or as new training data (RFT).

python -m experiments.generate --config=configs/generate.py:nano --workdir=runs/generate \\
    --config.input=data/prompts.jsonl

They go to WORKDIR/completions/*.parquet, a row a sample: id, prompt or question, gold, completion, …; rows with a gold
answer are what `dsmath.evaluation.scores.grade` takes.
"""

import contextlib
import dataclasses
from typing import Any

import jax
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from dsmath.data.prompts import read_prompts
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.reward import generations
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Request, Tool
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.sandbox.tool import open_tool
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params

_COLUMNS = pyarrow.schema([("id", pyarrow.string()), ("prompt", pyarrow.string()), *generations.PROBLEM])


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Completes; with a tool, jails for the programs stand by meanwhile."""
    with open_tool(config.tool) if config.tool.enabled else contextlib.nullcontext() as tool:
        return complete(config, workdir, tool)


def complete(config: Any, workdir: Any, tool: Tool | None) -> dict[str, Any]:
    """`num_samples` completions of every prompt; a sample depends on the seed, the prompt's line and its own number."""
    check_positive(config, "num_samples", "shard_size")
    require_finished(config.init_from, "config.init_from")
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)
    decoding = Decoding.read(config.decoding)

    # Prompts
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")
    records = read_prompts(config.input)
    requests = [
        Request(
            index,
            record.encode(tokenizer),
            config.num_samples,
            decoding,
            (tokenizer.eos_id,),
            tuple(config.stop),
            tool,
        )
        for index, record in enumerate(records)
    ]
    write_lineage(workdir, parents={"init_from": config.init_from}, data=[config.input])

    # Model
    model = Transformer(read_model(config.init_from))
    params = read_params(config.init_from, abstract_params(model, mesh))
    limits = fit(
        model.config,
        mesh,
        **config.rollout,
        group_size=config.num_samples,
        longest_prompt=max(len(request.prompt) for request in requests),
        max_new_tokens=decoding.max_new_tokens,
    )
    engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)

    # Generation
    files = generations.divide(workdir / "completions", len(requests), config.shard_size)
    with Progress(len(requests), "generate", "prompt") as progress:
        generations.generate(
            engine,
            params,
            requests,
            [dataclasses.asdict(record) | {"gold": record.answer} for record in records],
            _COLUMNS,
            key=jax.random.key(config.seed),
            files=files,
            on_request=progress.advance,
        )
    table = pyarrow.concat_tables(pyarrow.parquet.read_table(file, columns=["tokens", "truncated"]) for file in files)
    return {
        "prompts": len(requests),
        "samples": table.num_rows,
        "tokens": pyarrow.compute.sum(table["tokens"]).as_py(),
        "truncated": pyarrow.compute.mean(table["truncated"].cast(pyarrow.float64())).as_py(),
    }


if __name__ == "__main__":
    driver.main("generate", run)
