"""A batch of two processes is whole on the mesh, whatever the order of their devices there."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROCESS = """
import json, sys
import jax, numpy as np
from dsmath.model.sharding import make_mesh
from dsmath.runs import processes
from dsmath.train.rows import local_rows, to_global, to_host

address, index, shape, order = sys.argv[1:]
processes.start(address, 2, int(index), False)
mesh = make_mesh(json.loads(shape), [jax.devices()[place] for place in json.loads(order)])
rows = local_rows(mesh, 8)
batch = {"number": np.array(rows), "pair": np.stack([rows, np.square(rows)], axis=1)}
found = {name: to_host(array).tolist() for name, array in to_global(batch, mesh).items()}
assert found == {"number": list(range(8)), "pair": [[row, row**2] for row in range(8)]}, found
print(rows)
"""


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ('{"data": 4}', "[0, 2, 1, 3]", ([0, 1, 4, 5], [2, 3, 6, 7])),  # as on a torus
        ('{"fsdp": 2, "tensor": 2}', "[0, 2, 1, 3]", (list(range(8)), list(range(8)))),  # both make every row
        ('{"data": 2, "tensor": 2}', "[2, 3, 0, 1]", ([4, 5, 6, 7], [0, 1, 2, 3])),
    ],
)
def test_each_process_makes_its_rows(shape, order, expected):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, address, str(index), shape, order],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in started]
    for (out, err, code), rows in zip(ended, expected, strict=True):
        assert code == 0, err
        assert out.splitlines()[-1] == str(rows)
