"""What a step needs of a TPU by the TPU's own compiler, which runs without the hardware."""

import os
from collections.abc import Mapping

import jax
import ml_collections
from jax.experimental import topologies

from dsmath.model.backend import made_for
from dsmath.model.config import ModelConfig
from dsmath.model.sharding import make_mesh
from dsmath.plan import stages
from dsmath.plan.compiled import count_temporaries
from dsmath.runs.errors import InputError

# Else the compiler asks the cloud which host this is, and complains.
_NO_HOST = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5p-8", "TPU_WORKER_HOSTNAMES": "localhost"}


def find_devices(name: str) -> list[jax.Device]:
    """The chips of a slice that is not here, such as v5p:4x4x4: programs can be compiled for them, and not run.

    Raises:
      InputError: there is no such slice, or no compiler for it.
    """
    os.environ.update({variable: value for variable, value in _NO_HOST.items() if variable not in os.environ})
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except RuntimeError as error:
        if "not installed" in str(error):
            raise InputError("--topology: the TPU's compiler is missing; install it: pip install libtpu") from error
        raise InputError(
            f"--topology={name}: no slice of a TPU ({str(error).splitlines()[0]}); name one such as v5p:4x4x4, v5e:4x4"
        ) from error


def find_temporaries(
    config: ml_collections.ConfigDict,
    mesh_shape: Mapping[str, int],
    topology: str,
    *,
    model: ModelConfig,
    prompt_length: int,
) -> dict[str, int]:
    """Bytes that each program of a step needs on a chip besides its arguments, by the program's name.

    Args:
      config, mesh_shape, model, prompt_length: see `plan.plan`.
      topology: of the slice; the mesh takes all of its chips.
    Raises:
      InputError: an unknown slice, another number of chips than the mesh has, or a program that its compiler refuses.
    """
    mesh = make_mesh(mesh_shape, find_devices(topology))
    found = {}
    with made_for("tpu"):
        for name, work in stages.make_stage(config, model, mesh, prompt_length).works.items():
            try:
                found[name] = count_temporaries(work.lower().compile())
            except jax.errors.JaxRuntimeError as error:  # a chip's memory, mostly
                raise InputError(f"--topology={topology}: {name} cannot be compiled: {_first_line(error)}") from error
    return found


def _first_line(error: Exception) -> str:
    return next(line for line in str(error).splitlines() if line.strip())
