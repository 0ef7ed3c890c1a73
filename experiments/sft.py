"""Fine-tunes a checkpoint on solutions.

python -m experiments.sft --config=configs/sft.py:nano --workdir=runs/sft --config.init_from=runs/pretrain
"""

from typing import Any

from dsmath.data import arrays, chat, mixture, packing, problems
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.runs import driver, processes
from dsmath.runs.checks import check_positive
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.train import supervised
from dsmath.train.checkpoint import read_model
from dsmath.train.rows import local_rows


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Tokenizes the solutions once, packs them into rows, and trains on the solutions' tokens, but for what an
    interpreter said.

    Source: DeepSeekMath §3.
    """
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)
    supervised.check(config, mesh)
    check_positive(config, "packing_bins")
    require_finished(config.init_from, "config.init_from")

    # Model, as the parent has it
    model_config = read_model(config.init_from)
    supervised.check_model(config, model_config, mesh)
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")

    # Data
    if config.solutions:
        records = mixture.load(config.solutions, config.repeats, config.seed)
        files = mixture.files(config.solutions)
    else:
        records = problems.load(
            config.problems, "train", count=config.num_problems, seed=config.seed, kinds=config.kinds
        )
        files = problems.files(config.problems, "train")
    if processes.is_main():
        examples = chat.encode_examples(records, tokenizer, config.length + 1)
        write_lineage(workdir, parents={"init_from": config.init_from}, data=files)
        tokenizer.save(workdir)
        part = arrays.Part(len(examples), lambda: examples)
        arrays.store(workdir / "data", "solutions", [part], ("tokens", "loss_mask"), progress=("write", "solution"))
    processes.barrier()
    source = arrays.open_source(workdir / "data", "solutions")
    batches = packing.solution_batches(
        source,
        length=config.length,
        batch_size=config.batch_size,
        seed=config.seed,
        packing_bins=config.packing_bins,
        rows=local_rows(mesh, config.batch_size),
    )

    # Training
    result = supervised.train(config, workdir, model_config, batches, "sft")
    return result | {"examples": len(source), "left_out": len(records) - len(source)}


if __name__ == "__main__":
    driver.main("sft", run, free=supervised.FREE, many_processes=True)
