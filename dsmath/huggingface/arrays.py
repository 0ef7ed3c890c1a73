"""The arrays of an Orbax checkpoint, read and written piece by piece with TensorStore.

Orbax itself reads and writes whole arrays, and ours hold all layers: the largest of a 7B model has 5 GB. Its files are
Zarr arrays, one a parameter, with a JSON file that names them (its "Checkpoint Format Guide"), and TensorStore, which
is what Orbax works with too, reads and writes any part of them. What is written here Orbax reads like its own: a
checkpoint without OCDBT, each chunk a file.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from dsmath.runs.workdir import read_json, write_json

_METADATA = "_METADATA"
_CHUNK_BYTES = 2**26
_DICT_KEY = 2  # Orbax's number for a key of a mapping

Path = tuple[str, ...]


def create(folder: pathlib.Path, path: Path, shape: tuple[int, ...], dtype: np.dtype, stacked: bool) -> Any:
    """Makes an array that is written chunk by chunk; of a stacked one, every layer has chunks of its own."""
    chunks = [1, *shape[1:]] if stacked else list(shape)
    while math.prod(chunks) * dtype.itemsize > _CHUNK_BYTES:
        largest = chunks.index(max(chunks))
        chunks[largest] = -(-chunks[largest] // 2)
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": f"{folder / '.'.join(path)}/"},
        "metadata": {"chunks": chunks, "compressor": {"id": "zstd", "level": 1}},
        "dtype": dtype.name,
        "store_data_equal_to_fill_value": True,  # Orbax takes an absent chunk for a lost one
    }
    return tensorstore.open(spec, create=True, shape=shape).result()


def write_metadata(folder: pathlib.Path, paths: Iterable[Path]) -> None:
    """Writes the file in which Orbax finds the names of the arrays."""
    entries = {
        str(path): {
            "key_metadata": [{"key": key, "key_type": _DICT_KEY} for key in path],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
        for path in paths
    }
    metadata = {"tree_metadata": entries, "use_ocdbt": False, "use_zarr3": False}
    write_json(folder / _METADATA, metadata | {"store_array_data_equal_to_fill_value": True})


def open_all(folder: pathlib.Path) -> dict[Path, Any]:
    """Every array of a checkpoint's item, however Orbax wrote it.

    Args:
      folder: of the item, such as "checkpoints/100/params".
    """
    metadata = read_json(folder / _METADATA)
    base = {"driver": "file", "path": f"{folder.absolute()}/"}
    found = {}
    for entry in metadata["tree_metadata"].values():
        path = tuple(key["key"] for key in entry["key_metadata"])
        kvstore = {**base, "path": f"{base['path']}{'.'.join(path)}/"}
        if metadata["use_ocdbt"]:
            kvstore = {"driver": "ocdbt", "base": base, "path": f"{'.'.join(path)}/"}
        spec = {"driver": "zarr3" if metadata["use_zarr3"] else "zarr", "kvstore": kvstore}
        found[path] = tensorstore.open(spec, read=True).result()
    return found


def chunks(array: Any) -> Iterator[tuple[slice, ...]]:
    """The parts in which an array was stored; read so, nothing is decoded twice."""
    sizes = array.chunk_layout.read_chunk.shape
    starts = (range(0, length, size) for length, size in zip(array.shape, sizes, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(
            slice(start, min(start + size, length))
            for start, size, length in zip(corner, sizes, array.shape, strict=True)
        )


class ArraysHandler(ocp.CheckpointHandler):
    """An item of a checkpoint that a function writes into the item's folder; Orbax does the rest."""

    def save(self, directory: Any, args: "SaveArrays") -> None:
        args.write(pathlib.Path(directory))

    def restore(self, directory: Any, args: Any = None) -> Any:
        raise NotImplementedError("the item is read by Orbax's StandardCheckpointHandler")


@ocp.args.register_with_handler(ArraysHandler, for_save=True, for_restore=True)  # a manager wants both
@dataclasses.dataclass
class SaveArrays(ocp.args.CheckpointArgs):
    """What `ArraysHandler` takes: a function of the item's folder."""

    write: Callable[[pathlib.Path], None]
