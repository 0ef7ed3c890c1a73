"""Tokenized examples on disk: ArrayRecord shards with TFDS's metadata, read by Grain at random.

TFDS's own writer would sort all examples in memory or, above 1 GB, through TensorFlow. Here a shard is what one part of
the input gives, in its order: memory holds an example at a time, and what a killed run has finished stays.
"""

import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module

from dsmath.runs.progress import Progress
from dsmath.runs.workdir import replacing, write_atomically

Example = Mapping[str, np.ndarray]
VERSION, SPLIT = "1.0.0", "train"
_INFO, _FEATURES = "dataset_info.json", "features.json"


class Part(NamedTuple):
    """What one shard holds.

    Attributes:
      size: number of examples, or of what they are made from; the progress counts it.
      read: gives the examples, the same each time.
    """

    size: int
    read: Callable[[], Iterable[Example]]


def store(
    folder: str | os.PathLike,
    name: str,
    parts: Sequence[Part],
    fields: Sequence[str],
    *,
    progress: tuple[str, str],
    description: str = "",
) -> None:
    """Writes a dataset, a shard for each part; shards that are there stay as they are.

    Args:
      folder: the dataset lies in `folder/NAME/VERSION`, where TFDS looks for it.
      name: of the dataset.
      parts: the same at each call for a folder.
      fields: the examples' fields, each int32 [length].
      progress: label and unit of the progress.
      description: for TFDS's reader.
    """
    if is_stored(folder, name):
        return
    import tensorflow_datasets as tfds  # half a second, which most stages can do without

    folder = _dataset(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    for rest in folder.glob(".*.tmp"):  # of a run that was killed
        rest.unlink()
    features = tfds.features.FeaturesDict(
        {field: tfds.features.Tensor(shape=(None,), dtype=np.int32) for field in fields}
    )
    template = tfds.core.ShardedFileTemplate(
        dataset_name=name, data_dir=folder, split=SPLIT, filetype_suffix="array_record"
    )
    shards = [
        pathlib.Path(template.sharded_filepath(shard_index=shard, num_shards=len(parts))) for shard in range(len(parts))
    ]
    done = sum(part.size for part, path in zip(parts, shards, strict=True) if path.exists())
    label, unit = progress
    with Progress(sum(part.size for part in parts), label, unit, done=done) as shown:
        for part, path in zip(parts, shards, strict=True):
            if not path.exists():
                with replacing(path) as temporary:
                    _write_shard(temporary, features, part, shown)
    _write_metadata(folder, template, features, shards, description)


def is_stored(folder: str | os.PathLike, name: str) -> bool:
    """Whether the dataset is there whole."""
    return info_file(folder, name).exists()


def info_file(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """The file that says how many examples each shard holds; it is written last."""
    return _dataset(folder, name) / _INFO


def open_source(folder: str | os.PathLike, name: str, *, count: int | None = None) -> Any:
    """A random-access source of the examples, of the first `count` where given, as Grain takes it."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(_dataset(folder, name))
    if not builder.info.splits[SPLIT].num_examples:
        return ()  # which TFDS cannot open
    return builder.as_data_source(split=SPLIT if count is None else f"{SPLIT}[:{count}]")


def _dataset(folder: str | os.PathLike, name: str) -> pathlib.Path:
    return pathlib.Path(folder) / name / VERSION


def _write_shard(path: pathlib.Path, features: Any, part: Part, progress: Progress) -> None:
    writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")  # as TFDS writes them
    left = part.size
    for example in part.read():
        writer.write(features.serialize_example(features.encode_example(example)))
        progress.advance()
        left -= 1
    writer.close()
    if left:
        progress.advance(left)


def _count(path: pathlib.Path) -> int:
    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


def _write_metadata(
    folder: pathlib.Path, template: Any, features: Any, shards: list[pathlib.Path], description: str
) -> None:
    """Writes TFDS's two files, last the one that says that the dataset is whole."""
    import tensorflow_datasets as tfds

    identity = tfds.core.DatasetIdentity(
        name=template.dataset_name, version=tfds.core.Version(VERSION), data_dir=os.fspath(folder), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features, description=description)
    info.set_file_format(template.filetype_suffix)
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=[_count(path) for path in shards],
        num_bytes=sum(path.stat().st_size for path in shards),
        filename_template=template,
    )
    info.set_splits(tfds.core.SplitDict([split]))
    with tempfile.TemporaryDirectory() as temporary:
        info.write_to_directory(temporary)
        for name in (_FEATURES, _INFO):
            write_atomically(folder / name, (pathlib.Path(temporary) / name).read_bytes())
