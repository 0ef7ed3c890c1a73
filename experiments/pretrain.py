"""Pretrains the decoder on a mixture of corpora.

python -m experiments.pretrain --config=configs/pretrain.py:nano --workdir=runs/pretrain \\
    --config.tokenizer=runs/tokenizer --config.corpora.mined=runs/mine
"""

import pathlib
from typing import Any

from dsmath.data import documents, packing
from dsmath.data.problems import GENERATED
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import ModelConfig
from dsmath.runs import driver, processes
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.train import supervised
from dsmath.train.checkpoint import read_model
from dsmath.train.rows import local_rows


def run(config: Any, workdir: Any) -> dict[str, Any]:
    """Tokenizes the corpora once, packs them into rows, and trains.

    Source: DeepSeekMath §2.2, §2.3.
    """
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)
    supervised.check(config, mesh)
    packing.check_mixture(config.corpora, config.weights, config.on_exhausted)
    mined = {name: path for name, path in config.corpora.items() if path not in GENERATED}
    parents = {"tokenizer": config.tokenizer, **mined}
    if config.init_from:
        parents["init_from"] = config.init_from
    for role, parent in parents.items():
        require_finished(parent, f"config.corpora.{role}" if role in mined else f"config.{role}")

    # Model
    tokenizer = Tokenizer.load(config.tokenizer)
    vocab_size = tokenizer.vocab_size
    if config.init_from:
        if not tokenizer.equals(Tokenizer.load(config.init_from, "config.init_from")):
            raise InputError(
                f"config.tokenizer={config.tokenizer!r} is not the tokenizer of config.init_from; "
                f"name {config.init_from!r}"
            )
        parent = read_model(config.init_from)
        vocab_size = parent.vocab_size  # it may have rows for more ids than the tokenizer has
    model_config = ModelConfig.create({**config.model, "vocab_size": vocab_size})
    if config.init_from:
        model_config.check_child_of(parent)
    supervised.check_model(config, model_config, mesh)

    # Data
    files = [file for name, path in mined.items() for file in documents.find_data(path, f"config.corpora.{name}")]
    write_lineage(workdir, parents=parents, data=[pathlib.Path(config.tokenizer) / tokenizer.file, *files])
    with processes.main_first():
        if processes.is_main():
            tokenizer.save(workdir)  # travels with the checkpoints from stage to stage
        sources = documents.prepare(
            config.corpora, workdir / "data", tokenizer, num_embedded=config.num_embedded, seed=config.seed
        )
    if processes.is_main():
        packing.warn_of_epochs(sources, config.weights, config.num_steps * config.batch_size * config.length)
    batches = packing.document_batches(
        sources,
        config.weights,
        length=config.length,
        batch_size=config.batch_size,
        seed=config.seed,
        on_exhausted=config.on_exhausted,
        rows=local_rows(mesh, config.batch_size),
    )

    # Training
    return supervised.train(config, workdir, model_config, batches, "pretrain")


if __name__ == "__main__":
    driver.main("pretrain", run, free=("on_exhausted", *supervised.FREE), many_processes=True)
