"""Says what a training step needs of the hardware, without the hardware.

python -m experiments.plan --config=configs/pretrain.py:7b --mesh=data=1,fsdp=16,tensor=4 \\
    --config.model.attention=splash
python -m experiments.plan --config=configs/rl.py:7b --mesh=fsdp=16,tensor=4 --device=h100 \\
    --model=configs/pretrain.py:7b --model.model.attention=cudnn

The step is compiled for as many CPU devices as the mesh has, from shapes alone; with --topology=v5p:4x4x4 also by the
TPU's own compiler, which says how much memory a chip needs. Ends with 1 where it does not fit the device that is named,
and with 2 on bad input.
"""

import json
import math
import pathlib
import sys

import jax
import ml_collections
from absl import flags
from ml_collections import config_flags

from dsmath.model.config import ModelConfig
from dsmath.model.sharding import use_cpu_devices
from dsmath.plan.devices import DEVICES, find_device
from dsmath.plan.plan import plan
from dsmath.plan.table import render, verdict
from dsmath.runs import driver
from dsmath.runs.errors import InputError
from dsmath.train.checkpoint import read_model

_CONFIG = config_flags.DEFINE_config_file("config", None, "config of pretrain, sft or rl, as the stage takes it")
_MODEL = config_flags.DEFINE_config_file(
    "model", None, "config of pretraining whose model is meant; by default --config's, or that of config.init_from"
)
_MESH = flags.DEFINE_string("mesh", None, "devices along each axis, such as data=1,fsdp=16,tensor=4")
_DEVICE = flags.DEFINE_string("device", None, f"one of {', '.join(DEVICES)}; by default all are listed")
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 102400, "where no checkpoint says it; the paper's", 1)
_PROMPT_LENGTH = flags.DEFINE_integer("prompt_length", 256, "rl: tokens of the longest question")
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "a TPU slice, such as v5p:4x4x4: its own compiler says what a chip holds (pip install libtpu)"
)
_JSON = flags.DEFINE_string("json", None, "file for all figures")
flags.mark_flags_as_required(["config", "mesh"])


def start() -> None:
    """Plans, prints, and tells by the status whether it fits."""
    device = _DEVICE.value or (_TOPOLOGY.value or "").partition(":")[0] or None
    if device:
        find_device(device)
    mesh_shape = parse_mesh(_MESH.value)
    jax.config.update("jax_platforms", "cpu")
    use_cpu_devices(math.prod(mesh_shape.values()))
    found = plan(
        _CONFIG.value,
        mesh_shape,
        device,
        model=_find_model(_CONFIG.value),
        prompt_length=_PROMPT_LENGTH.value,
        topology=_TOPOLOGY.value,
    )
    print(render(found))
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    if device:
        print(f"\n{verdict(found)}")
        sys.exit(0 if found.fits(find_device(device)) else 1)


def parse_mesh(text: str) -> dict[str, int]:
    """Devices along each axis, of `data=1,fsdp=16`."""
    shape = {}
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if not size.strip().isdecimal() or int(size) < 1:
            raise InputError(f"--mesh={text}: {part!r} is not AXIS=DEVICES, such as fsdp=16")
        shape[axis.strip()] = int(size)
    return shape


def _find_model(config: ml_collections.ConfigDict) -> ModelConfig:
    source = _MODEL.value or config
    if "model" in source:
        return ModelConfig.create({**source.model, "vocab_size": _VOCAB_SIZE.value})
    try:
        return read_model(config.init_from)
    except (InputError, AttributeError) as error:
        raise InputError(
            f"--model: not given, and {error}; name one, such as --model=configs/pretrain.py:7b"
        ) from error


if __name__ == "__main__":
    driver.run_program("plan", start, configs=[_CONFIG, _MODEL])
