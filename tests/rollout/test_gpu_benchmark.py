"""The benchmark on one GPU, tiny and on the CPU.

Each test runs a process of its own: the benchmark's flags are global, and it takes all devices that it finds.
"""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = {"num_layers": 1, "width": 16, "num_heads": 1, "num_kv_heads": 1, "head_dim": 16, "mlp_width": 16}
MODEL |= {"vocab_size": 64, "attention": "xla"}
COUNT = """
from types import SimpleNamespace
import numpy as np
from benchmarks.rollout_gpu import _Count

def block(lengths, prefix_lengths, streams):
    return SimpleNamespace(**{name: np.array(value) for name, value in locals().items()})

counts = [[4, 1], [0, 0]], [[2], [3], [1]]
drawn = iter([SimpleNamespace(counts=np.array(found)) for found in counts])
engine = SimpleNamespace(programs=SimpleNamespace(decode=lambda *_, **__: (None, next(drawn))))
count = _Count(engine)
engine.programs.decode(None, None, block([[10, 20], [0, 0]], [100, 0], [0, 0]), None, None)
engine.programs.decode(None, None, block([[14], [5], [6]], [100, 100, 50], [7, 7, 8]), "picked", None)
print(count.read(1000, 1))
"""


def _run(*command: str) -> str:
    variables = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_our_contestant_counts_what_the_engine_reads():
    flags = {"num_groups": 3, "group_size": 4, "prompt_tokens": 16, "max_new_tokens": 32, "num_stop_ids": 2, "slots": 8}
    flags |= {"memory_gib": 0.5, "block_steps": 4, "cache_dtype": "float32"}
    flags |= {f"config.model.{name}": value for name, value in MODEL.items()}
    flags = [f"--{name}={value}" for name, value in flags.items()]
    output = _run("-m", "benchmarks.rollout_gpu", "--contestant", *flags)
    figures = json.loads(output.splitlines()[-1])
    (turn,) = figures["turns"]
    mean = figures["mean_length"]
    assert turn["tokens"] == round(12 * mean)
    # A sample's token n reads n keys: sums of such rows, which are longer the more the lengths differ.
    assert turn["tokens"] * (mean + 1) / 2 < turn["own"] < turn["tokens"] * 33 / 2
    assert 32 * 15 < turn["shared"] <= turn["tokens"] * 15
    assert figures["differences"]["largest"] < 0.05


def test_picked_slots_of_one_question_read_its_prompt_once():
    own = (4 * 10 + 10) + (20 + 1) + (2 * 14 + 3) + (3 * 5 + 6) + (6 + 1)
    shared = 4 * 100 + 3 * 100 + 50
    expected = {"bytes": 7 * 1000 + own + shared, "steps": 7, "own": own, "shared": shared}
    assert _run("-c", COUNT).strip() == str(expected)
