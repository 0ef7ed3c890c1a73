"""An OpenAI-compatible endpoint over a checkpoint: completions and chats, whole or streamed, of many clients at once.

python -m experiments.serve --config=configs/serve.py:nano --workdir=runs/rl

    curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d '{"prompt": "1 + 1 ="}'
"""

import contextlib
import errno
import pathlib
import signal
import socket
from typing import Any

import jax
import uvicorn
from absl import flags

from dsmath.data.tokenizer import Tokenizer
from dsmath.model.sharding import make_mesh, use_cpu_devices
from dsmath.model.transformer import Transformer
from dsmath.rollout.decoding import Decoding
from dsmath.rollout.engine import Engine
from dsmath.rollout.memory import fit
from dsmath.rollout.requests import Request
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import require_finished
from dsmath.serve.app import make_app
from dsmath.serve.service import Checkpoint, Service
from dsmath.serve.worker import Worker
from dsmath.train.checkpoint import read_model, read_params
from dsmath.train.state import abstract_params

_PATIENCE = 5  # seconds that open requests get at the end

_HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; the default is this machine alone")
_PORT = flags.DEFINE_integer("port", 8000, "0 takes a free one", 0, 65535)


def serve(config: Any, workdir: str) -> None:
    """Serves the newest checkpoint of a workdir until it is interrupted; the workdir is only read."""
    check_positive(config, "length", "max_new_tokens")
    if config.max_new_tokens >= config.length:
        raise InputError(
            f"config.max_new_tokens: {config.max_new_tokens} leaves no room for a prompt in config.length="
            f"{config.length}; lower it"
        )
    require_finished(workdir, "--workdir")
    use_cpu_devices(config.num_cpu_devices)
    mesh = make_mesh(config.mesh)

    # Model
    tokenizer = Tokenizer.load(workdir, "--workdir")
    model = Transformer(read_model(workdir, "--workdir"))
    sizes = {"group_size": 1, "longest_prompt": config.length, "max_new_tokens": config.max_new_tokens}
    limits = fit(model.config, mesh, **config.rollout, **sizes)
    engine = Engine(model, mesh, limits, pad_id=tokenizer.pad_id, codec=tokenizer)

    # Server
    checkpoint = Checkpoint(
        name=config.name or pathlib.Path(workdir).resolve().name,
        tokenizer=tokenizer,
        vocab_size=model.config.vocab_size,
        context=config.length,
        max_new_tokens=config.max_new_tokens,
    )
    with listen(_HOST.value, _PORT.value) as listener:
        engine.load(read_params(workdir, abstract_params(model, mesh), "--workdir"), jax.random.key(config.seed))
        _warm_up(engine, tokenizer)

        def stop() -> None:
            server.should_exit = True

        worker = Worker(engine, on_failure=stop)
        settings = uvicorn.Config(
            make_app(Service(worker, checkpoint), _HOST.value),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
        server = uvicorn.Server(settings)
        address = f"http://{_HOST.value}:{listener.getsockname()[1]}/v1"
        print(f"serve: {checkpoint.name} at {address}  (Ctrl-C ends)", flush=True)
        # uvicorn ends in good order at both signals, and raises them again when it has ended.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    if worker.failure:
        raise worker.failure


def _warm_up(engine: Engine, tokenizer: Tokenizer) -> None:
    """Compiles, so that what does not fit fails now and not at the first client."""
    engine.add(Request(0, [tokenizer.bos_id] * 2, 1, Decoding(temperature=1.0, top_p=1.0, max_new_tokens=1)))
    while engine.busy:
        engine.step()


def listen(host: str, port: int) -> socket.socket:
    """Takes the address, before the minutes that a large model takes to load.

    Raises:
      InputError: it cannot be had.
    """
    try:
        return socket.create_server((host, port))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, socket.EAI_NONAME):
            raise
        raise InputError(
            f"--port={port}, --host={host}: {error.strerror}; name another port, or 0 for a free one, or another host"
        ) from error


if __name__ == "__main__":
    driver.command_line("serve", serve, workdir_help="workdir of the checkpoint; it is only read")
