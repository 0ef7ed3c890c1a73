"""Tokenized examples on disk: ArrayRecord files through a TFDS builder, read by Grain at random."""

import contextlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Example = Mapping[str, np.ndarray]


class TokenizedExamples(tfds.core.GeneratorBasedBuilder):
    """A dataset of examples whose fields are int32 [length], such as tokens and their loss mask.

    Args:
      examples: the examples; they are read only where the dataset does not lie in the folder yet.
      fields: the names of the fields.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, examples: Iterable[Example], fields: tuple[str, ...], **kwargs: Any):
        self._examples, self._fields = examples, fields
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {field: tfds.features.Tensor(shape=(None,), dtype=np.int32) for field in self._fields}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, Example]]:
        yield from enumerate(self._examples)


def store(folder: str | os.PathLike, examples: Iterable[Example], fields: tuple[str, ...]) -> Any:
    """Writes the examples once; a folder that holds them whole is read as it is.

    Args:
      folder: where the dataset lies.
      examples: read only when they must be written.
      fields: the examples' fields, each int32 [length].
    Returns:
      a random-access source of examples, as Grain takes it.
    """
    tfds.disable_progress_bar()
    for rest in pathlib.Path(folder).glob("*/*incomplete*"):  # of a run that was killed
        shutil.rmtree(rest, ignore_errors=True)
    builder = TokenizedExamples(examples, fields, data_dir=os.fspath(folder))
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS tells of downloads that there are none of
        builder.download_and_prepare()
    return builder.as_data_source(split="train")
