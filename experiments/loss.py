"""Tells a base model's loss on texts that it was not trained on, by corpus.

python -m experiments.loss --config=configs/loss.py:nano --workdir=runs/loss --config.init_from=runs/pretrain \\
    --config.corpora="{'code': 'runs/code_held_out'}"
"""

import pathlib
from typing import Any

import jax

from dsmath.data import documents, packing
from dsmath.data.problems import EMBEDDED
from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import require_finished, write_lineage
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params
from dsmath.train.supervised import next_token_loss


def run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Mean negative log-likelihood of a token in nats, `loss`, by corpus."""
    use_cpu_devices(config.num_cpu_devices)
    check_positive(config, "num_batches", "batch_size", "length", "logits_chunk")
    if not config.corpora:
        raise InputError("config.corpora: empty; name one at least, such as {'code': 'runs/code'}")
    texts = {name: path for name, path in config.corpora.items() if path != EMBEDDED}
    for name, path in texts.items():
        require_finished(path, f"config.corpora.{name}")
    require_finished(config.init_from, "config.init_from")
    mesh = make_mesh(config.mesh)
    tokenizer = Tokenizer.load(config.init_from, "config.init_from")
    model = Transformer(read_model(config.init_from, step=config.step))
    files = [file for name, path in texts.items() for file in documents.find_data(path, f"config.corpora.{name}")]
    parents = {"init_from": config.init_from, **texts}
    write_lineage(workdir, parents=parents, data=files, steps={"init_from": config.step})

    sources = documents.prepare(
        config.corpora, workdir / "data", tokenizer, num_embedded=config.num_embedded, seed=config.seed
    )
    params = read_params(config.init_from, abstract_params(model, mesh), step=config.step)
    measure = jax.jit(next_token_loss(model, config.logits_chunk))
    losses = {}
    with jax.set_mesh(mesh), Progress(config.num_batches * len(sources), "loss", "batch") as progress:
        for name, source in sources.items():
            batches = packing.document_batches(
                {name: source},
                {name: 1.0},
                length=config.length,
                batch_size=config.batch_size,
                seed=config.seed,
                on_exhausted="repeat",
                rows=range(config.batch_size),
            )
            total = count = 0.0
            for _ in range(config.num_batches):
                loss, counted = measure(params, next(batches))
                total, count = total + float(loss), count + float(counted["denominator"])
                progress.advance()
            losses[name] = total / count
    return {"loss": losses}


if __name__ == "__main__":
    driver.main("loss", run)
