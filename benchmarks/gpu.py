"""What the benchmarks on one GPU share: contestants that have the card to themselves, one after the other.

Two frameworks do not fit on one card together, so each contestant is a process of its own, which prints its figures as
the last line of its output, in JSON. The random weights are each one's own; that both compute the same numbers is
checked by train_step.py and rollout.py, on the CPU.
"""

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from configs import pretrain

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_ENVIRONMENT = {  # of the contestants: all of the card's memory, and growing caches without holes in it
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def make_config(**changes: Any) -> ml_collections.ConfigDict:
    """The configuration of pretraining the 1.3B, with changes of its model; flags change it further."""
    config = pretrain.get_config("1b3")
    config.model.vocab_size = 102400  # of DeepSeekMath's tokenizer
    config.model.update({"attention": "cudnn", **changes})
    return config


def run(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Runs a contestant.

    Args:
      command: of its process; its Python first.
      seconds: after which it is stopped.
      environment: variables besides.
    Returns:
      its last figures, which it may print several times; `{"error": …}` where it failed or was stopped before.
    """
    variables = os.environ | _ENVIRONMENT | dict(environment or {})
    process = subprocess.Popen(command, cwd=_ROOT, env=variables, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1])
    return {"error": f"ended with status {process.returncode} and no figures; its error, if any, stands above"}
