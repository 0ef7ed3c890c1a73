"""The benchmarks as TFDS datasets: one builder, a config a benchmark, ArrayRecord files, no TensorFlow.

builder = prepare("gsm8k", "data", folder="data/benchmarks")
builder.as_data_source("test")[0]["question"]
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from dsmath.data.benchmarks import catalog
from dsmath.data.benchmarks.download import download
from dsmath.data.benchmarks.item import Item
from dsmath.runs.errors import InputError

_FILES = "files"  # of the metadata: SHA-256 by the file's name


class Benchmarks(tfds.core.GeneratorBasedBuilder):
    """Reads the files of `manual_dir`, one folder a benchmark; without it, downloads them.

    The splits are those whose files are there.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 as TFDS has it
        tfds.core.BuilderConfig(name=benchmark.name, description=f"{benchmark.title}, {benchmark.source}")
        for benchmark in catalog.BENCHMARKS.values()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir holds one folder a benchmark with upstream's files in it."

    def _info(self) -> tfds.core.DatasetInfo:
        benchmark = catalog.find_benchmark(self.builder_config.name)
        text = tfds.features.Text()
        features = dict.fromkeys(("id", "question", "answer", "solution", "language", "subject", "level"), text)
        features |= {"choices": tfds.features.Sequence(text), "extra": text}  # a JSON object
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{benchmark.title}. Licence: {benchmark.licence}.",
            features=tfds.features.FeaturesDict(features),
            homepage=benchmark.source.split()[0],
            license=benchmark.licence,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict({_FILES: {}}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        name = self.builder_config.name
        try:
            folder = pathlib.Path(dl_manager.manual_dir)
        except AssertionError:  # none was given
            folder = pathlib.Path(dl_manager.download_dir)
            for split in catalog.BENCHMARKS[name].files:
                download(name, folder, split)
        splits = splits_here(name, folder)
        self.info.metadata[_FILES] = fingerprints(name, folder)
        return {split: self._generate_examples(folder, split) for split in splits}

    def _generate_examples(self, folder: pathlib.Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, item in enumerate(catalog.read(self.builder_config.name, folder, split)):
            fields = {name: getattr(item, name) for name in self.info.features if name != "extra"}
            yield number, {**fields, "choices": list(item.choices), "extra": json.dumps(dict(item.extra))}


def prepare(name: str, data_dir: str | os.PathLike, folder: str | os.PathLike | None = None) -> Benchmarks:
    """A builder whose dataset is there.

    Args:
      name: of the benchmark.
      data_dir: where TFDS keeps its datasets.
      folder: holds one folder a benchmark with upstream's files; None: they are downloaded into `data_dir`.
    Raises:
      InputError: as `catalog.read` and `download` do; or the dataset was made of other files than `folder` has now.
    """
    catalog.find_benchmark(name)
    builder = Benchmarks(config=name, data_dir=os.fspath(data_dir), file_format="array_record")
    if folder is not None:
        splits_here(name, folder)
        if builder.is_prepared() and builder.info.metadata[_FILES] != fingerprints(name, folder):
            raise InputError(
                f"{builder.data_path}: was made of other files than {folder} has; remove it to make it again"
            )
    manual = None if folder is None else os.path.abspath(folder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual))
    return builder


def to_item(name: str, example: Mapping[str, Any]) -> Item:
    """The item of an example, as a data source gives it."""
    fields = {key: value.decode() for key, value in example.items() if key != "choices"}
    extra = json.loads(fields.pop("extra"))
    return Item(benchmark=name, choices=tuple(choice.decode() for choice in example["choices"]), extra=extra, **fields)


def splits_here(name: str, folder: str | os.PathLike) -> list[str]:
    """The splits whose files are there.

    Raises:
      InputError: there is none; names the first that is missing.
    """
    found = []
    for split in catalog.find_benchmark(name).files:
        try:
            catalog.find_files(name, folder, split)
        except InputError as error:
            missing = error
        else:
            found.append(split)
    if not found:
        raise missing
    return found


def fingerprints(name: str, folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 by name of the files of all splits that are there."""
    here = pathlib.Path(folder) / name
    files = {path for split in splits_here(name, folder) for path in catalog.find_files(name, folder, split)}
    return {os.fspath(path.relative_to(here)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
