"""The safetensors files of a checkpoint, one or many with an index."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
import safetensors

from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json, write_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PART = "model-{number:05d}-of-{count:05d}.safetensors"
# The names of the number formats in the files.
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8  # of the first tensor in a file, by the format


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What a file's header says of a tensor.

    Attributes:
      file: where it lies.
      shape: its shape.
      dtype: name of its number format, such as "BF16".
    """

    file: pathlib.Path
    shape: tuple[int, ...]
    dtype: str


def read_headers(folder: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, file after file.

    Raises:
      InputError: no safetensors there, or a file that is absent or damaged.
    """
    paths = [folder / SINGLE]
    if not paths[0].is_file():
        if not (folder / INDEX).is_file():
            raise InputError(
                f"--from=hf:{folder}: no {SINGLE} and no {INDEX}; weights in other files, such as pytorch_model.bin, "
                "are written as safetensors by transformers' save_pretrained"
            )
        index = read_json(folder / INDEX)
        paths = [folder / name for name in sorted(set(index.get("weight_map", {}).values()))]
    found = {}
    for path in paths:
        with open_file(path) as file:
            for name in file.offset_keys():
                part = file.get_slice(name)
                found[name] = Tensor(path, tuple(part.get_shape()), part.get_dtype())
    return found


@contextlib.contextmanager
def open_file(path: pathlib.Path) -> Iterator[safetensors.safe_open]:
    """Opens a file, whose `get_tensor(name)` reads one tensor.

    Raises:
      InputError: it is absent or damaged.
    """
    try:
        # Reading, not mapping: the pages of a mapped file would count as this process's memory.
        opened = safetensors.safe_open(path, framework="numpy", backend="pread")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; download the checkpoint again") from error
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: no whole safetensors file ({error}); download it again") from error
    with opened as file:
        yield file


def equal(one: Tensor, name: str, other: Tensor, other_name: str) -> bool:
    """Whether two tensors are the same, bit for bit."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    with open_file(one.file) as file, open_file(other.file) as other_file:
        return file.get_tensor(name).tobytes() == other_file.get_tensor(other_name).tobytes()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor stands in a file that is being written."""

    file: pathlib.Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def open(self) -> np.memmap:
        """The tensor to write to; it counts as memory for as long as it is held."""
        return np.memmap(self.file, self.dtype, "r+", self.offset, self.shape)


def reserve(
    folder: pathlib.Path, tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]], max_shard_size: int
) -> dict[str, Place]:
    """Makes the files of a checkpoint with room for its tensors, which can then be written in any order.

    The library writes a file only from tensors that are all in memory; the format is a header and then one tensor
    after the other, so it is written here.

    Args:
      folder: that is there.
      tensors: shape and number format by name, in the order of the files.
      max_shard_size: bytes of a file's tensors at most; a single larger tensor has a file of its own.
    """
    parts: list[dict[str, tuple[tuple[int, ...], np.dtype]]] = [{}]
    total = filled = 0
    for name, (shape, dtype) in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        if parts[-1] and filled + size > max_shard_size:
            parts.append({})
            filled = 0
        parts[-1][name] = (shape, dtype)
        filled += size
        total += size
    if len(parts) == 1:
        return _reserve_file(folder / SINGLE, parts[0])
    places = {}
    for number, part in enumerate(parts, 1):
        places |= _reserve_file(folder / _PART.format(number=number, count=len(parts)), part)
    weight_map = {name: place.file.name for name, place in places.items()}
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return places


def _reserve_file(path: pathlib.Path, tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, Place]:
    header, offset = {"__metadata__": {"format": "pt"}}, 0  # transformers asks for the key, whatever wrote the file
    for name, (shape, dtype) in tensors.items():
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    start = 8 + len(encoded)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.flush()
        os.posix_fallocate(file.fileno(), 0, start + offset)  # a full disk is found here, not while writing to memory
    return {
        name: Place(path, start + header[name]["data_offsets"][0], shape, dtype)
        for name, (shape, dtype) in tensors.items()
    }
