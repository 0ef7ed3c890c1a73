"""A run beside PyTorch: the same weights and data give the same losses, step for step."""

import jax
import numpy as np
import pytest

from benchmarks.llama import LlamaPeer, find_python
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.train.optimizer import make_optimizer
from dsmath.train.state import create_state, make_train_step
from dsmath.train.supervised import next_token_loss

STEPS, ROWS, LENGTH = 50, 8, 16
OPTIMIZER = {
    "schedule": "constant",
    "peak_learning_rate": 3e-3,
    "warmup_steps": 0,
    "b1": 0.9,
    "b2": 0.95,
    "moments": "float32",
    "weight_decay": 0.0,  # PyTorch would pull on norms too
    "clip_norm": 1.0,
}


def test_fifty_steps_have_the_losses_of_pytorch(make_model_config):
    if not find_python().exists():
        pytest.skip("PyTorch is absent: make peers")
    config = make_model_config(tied=False)
    model, mesh = Transformer(config), make_mesh({"fsdp": 4, "tensor": 2})
    optimizer, _ = make_optimizer(OPTIMIZER, STEPS)
    state = create_state(model, optimizer, mesh, seed=0)
    # The same few rows again and again: they are learned by heart, so that the curve falls far.
    rows = np.random.default_rng(0).integers(0, 64, (ROWS, LENGTH + 1)).astype(np.int32)
    tokens, targets = (np.broadcast_to(x, (STEPS, ROWS, LENGTH)) for x in (rows[:, :-1], rows[:, 1:]))
    settings = {name: OPTIMIZER[name] for name in ("b1", "b2", "weight_decay", "clip_norm")}
    settings["learning_rate"] = OPTIMIZER["peak_learning_rate"]
    with LlamaPeer(
        config,
        jax.device_get(state.params),
        task="train",
        settings={"optimizer": settings},
        arrays={"tokens": tokens, "targets": targets},
    ) as peer:
        expected = peer.ask({"do": "run"})["losses"]
    step = make_train_step(next_token_loss(model, logits_chunk=8), optimizer, mesh)
    batch = {
        "tokens": tokens[0],
        "targets": targets[0],
        "positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH)),
        "segment_ids": np.ones((ROWS, LENGTH), np.int32),
        "loss_mask": np.ones((ROWS, LENGTH), np.float32),
    }
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] / 2
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
