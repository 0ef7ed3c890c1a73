"""An endpoint over the tiny checkpoint that listens at a port."""

import contextlib
import dataclasses
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import uvicorn

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh
from dsmath.model.transformer import Transformer
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Limits
from dsmath.serve.app import make_app
from dsmath.serve.service import Checkpoint, Service
from dsmath.serve.worker import Worker
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.losses import token_logprobs
from dsmath.train.state import abstract_params

CONTEXT, MAX_NEW_TOKENS = 64, 32


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A running server, and what it serves."""

    url: str
    client: httpx.Client
    engine: Engine
    tokenizer: Tokenizer
    model: Transformer
    params: Any

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def score(self, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """By the training forward pass: the log-probability of each token but the first, and the likeliest there."""
        padded = np.zeros((1, CONTEXT), np.int32)  # to one length: each other one would be compiled
        padded[0, : len(tokens)] = tokens
        places, segments = jnp.arange(CONTEXT)[None], jnp.arange(CONTEXT)[None] < len(tokens)
        logits = self.model.apply(self.params, padded, places, segments.astype(int), method="init_all")[:, :-1]
        logprobs = np.array(token_logprobs(logits, padded[:, 1:])[0])
        return logprobs[: len(tokens) - 1], np.array(logits[0].argmax(-1))[: len(tokens) - 1]

    def wait_until_idle(self) -> None:
        deadline = time.monotonic() + 30
        while self.client.get("/health").json()["open_requests"]:
            assert time.monotonic() < deadline, "requests stay open"
            time.sleep(0.01)


def _load(workdir: pathlib.Path) -> tuple[Engine, Tokenizer, Transformer, Any]:
    """An engine with the checkpoint loaded, its tokenizer, model and parameters."""
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    tokenizer, model = Tokenizer.load(workdir), Transformer(read_model(workdir))
    params = read_params(workdir, abstract_params(model, mesh))
    limits = fit(
        model.config,
        mesh,
        slots=4,
        memory_gib=1.0,
        cache_dtype="float32",
        block_steps=4,
        prefill_tokens=256,
        group_size=1,
        longest_prompt=CONTEXT,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    # One bucket each: tests spend their time compiling.
    limits = Limits(
        **{**vars(limits), "prompt_buckets": limits.prompt_buckets[-1:], "new_buckets": limits.new_buckets[-1:]}
    )
    engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)
    engine.load(params, jax.random.key(0))
    return engine, tokenizer, model, params


@contextlib.contextmanager
def _run(app: Any) -> Iterator[str]:
    """Serves an application from a thread; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def endpoint(checkpoint) -> Iterator[Endpoint]:
    engine, tokenizer, model, params = _load(checkpoint)
    worker = Worker(engine)
    described = Checkpoint("tiny", tokenizer, model.config.vocab_size, CONTEXT, MAX_NEW_TOKENS)
    service = Service(worker, described)
    with _run(make_app(service)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield Endpoint(url, client, engine, tokenizer, model, params)


@pytest.fixture(scope="session")
def serve_app():
    """(application) -> a context in which it is served at the address that it gives."""
    return _run
