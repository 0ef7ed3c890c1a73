"""The peer of the model's benchmarks: Hugging Face's LlamaForCausalLM in a process and an environment of its own."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from benchmarks.timing import count_threads
from configs import pretrain, tokenizer
from dsmath.huggingface import config as huggingface
from dsmath.huggingface import layout
from dsmath.model.sharding import use_cpu_devices
from dsmath.model.transformer import ModelConfig

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_ENVIRONMENT = ".venv-peers"
_LENGTH = 4096  # tokens of the longest sequence that it is asked for
_TOLERANCE = 1e-3  # nats, between the two forward passes


class LlamaPeer:
    """The peer's process, a context manager; it holds our weights and works when it is asked to.

    Args:
      config: our model's.
      params: our parameters, on the host or on devices.
      task: "train" or "rollout"; the peer's function of that name takes `settings` and `arrays`.
      settings: JSON values.
      arrays: what both work on.
      script: of the peer, in this folder.
      environment: folder with the peer's Python.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        *,
        task: str,
        settings: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        script: str = "llama_peer.py",
        environment: str = _ENVIRONMENT,
    ):
        if config.tied or config.attention_bias or config.dtype != "float32":
            raise ValueError("the peer compares Llamas with an output matrix of their own, in float32")
        shape = huggingface.to_huggingface(config, dtype="float32", length=_LENGTH)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "weights.npz"
            weights = {f"weights/{name}": array for name, array in layout.state_dict(config, params).items()}
            np.savez(path, **weights, **arrays)
            self._process = subprocess.Popen(
                [find_python(environment), _ROOT / "benchmarks" / script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "JAX_PLATFORMS": "cpu"},
            )
            job = {"task": task, "file": str(path), "shape": shape, "threads": count_threads(), **settings}
            ready = self.ask(job)  # it has read the file
        self.versions: dict[str, str] = ready["versions"]
        self.parameters: int = ready["parameters"]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends one JSON line and waits for the answer."""
        with contextlib.suppress(BrokenPipeError):  # a peer that has ended gives no answer
            print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}; its error stands above")
        return json.loads(answer)

    def run(self) -> float:
        """Does the work once; the seconds as the peer measured them."""
        return self.ask({"do": "run"})["seconds"]

    def check(self, ours: np.ndarray) -> float:
        """Compares log-likelihoods of the same tokens under the same weights.

        Args:
          ours: in nats; of each token, or their mean.
        Returns:
          the largest difference.
        Raises:
          RuntimeError: the two contestants do not compute the same.
        """
        difference = float(np.abs(ours - np.array(self.ask({"do": "check"})["nats"])).max())
        if not difference < _TOLERANCE:
            raise RuntimeError(f"the two models differ by {difference} nats on the same tokens under the same weights")
        return difference

    def __enter__(self) -> "LlamaPeer":
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait()


def prepare(model: ml_collections.ConfigDict | None = None) -> ModelConfig:
    """Settles what both contestants need before JAX starts: the peer is there, JAX runs on the CPU.

    Args:
      model: the shape, `config.model` of pretraining; None for the nano preset's.
    """
    if not find_python().exists():
        print(
            f"error: {_ENVIRONMENT} is absent, the environment of the peers; make it once: make peers", file=sys.stderr
        )
        sys.exit(2)
    return use_nano(model)


def use_nano(model: ml_collections.ConfigDict | None = None) -> ModelConfig:
    """As `prepare`, without a peer."""
    jax.config.update("jax_platforms", "cpu")
    use_cpu_devices(count_threads())  # a device a core
    fields = (model or pretrain.get_config("nano").model).to_dict()
    return ModelConfig.create({**fields, "vocab_size": tokenizer.get_config("nano").vocab_size})


def find_python(environment: str = _ENVIRONMENT) -> pathlib.Path:
    """The Python of a peers' environment, there or not."""
    return _ROOT / environment / "bin" / "python"
