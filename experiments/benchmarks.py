"""Tells what is here of the benchmarks, downloads what is not, and prepares TFDS datasets.

python -m experiments.benchmarks --folder=data/benchmarks [--names=gsm8k,math] [--download] [--data_dir=DIR]

The folder holds one folder a benchmark with upstream's files in it. --data_dir makes ArrayRecord datasets of them,
which tfds.builder_from_directory opens without TensorFlow.
"""

import collections
import pathlib

from absl import flags

from dsmath.data.benchmarks import catalog
from dsmath.data.benchmarks.download import ORIGINS, check_content, download
from dsmath.runs.driver import run_program
from dsmath.runs.errors import InputError


def define_flags() -> None:
    """The flags of the command line."""
    flags.DEFINE_string("folder", None, "holds one folder a benchmark with upstream's files", required=True)
    flags.DEFINE_list("names", list(catalog.BENCHMARKS), "the benchmarks")
    flags.DEFINE_bool("download", False, "fetch the files that are missing")
    flags.DEFINE_string("data_dir", "", "where TFDS datasets are made; nothing: none")


def start() -> None:
    """Goes through the benchmarks; what cannot be downloaded does not keep the others from it."""
    folder, value = pathlib.Path(flags.FLAGS["folder"].value), flags.FLAGS
    rows = [("benchmark", "split", "SHA-256", "records")]
    for name in value["names"].value:
        splits = {
            split: describe(name, folder, split, value["download"].value)
            for split in catalog.find_benchmark(name).files
        }
        rows += [(name, split, *texts) for split, texts in splits.items()]
        if value["data_dir"].value and any(contents for contents, _ in splits.values()):
            from dsmath.data.benchmarks.tfds_builder import prepare  # takes a second to import

            prepare(name, value["data_dir"].value, folder)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]))


def describe(name: str, folder: pathlib.Path, split: str, fetch: bool) -> tuple[str, str]:
    """What is known of a split's files, and how much of upstream they hold; or "" and why there are none."""
    refusal = None
    if fetch:
        try:
            download(name, folder, split)
        except InputError as error:
            refusal = error
    try:
        files = catalog.find_files(name, folder, split)
    except InputError as error:
        return "", f"none: {refusal or error}"
    items = catalog.read(name, folder, split)
    known = collections.Counter(check_content(name, file) for file in files)
    contents = ", ".join(f"{count} {what}" if len(files) > 1 else what for what, count in known.items())
    return contents, catalog.coverage(name, split, items) + (f" ({refusal})" if refusal and name in ORIGINS else "")


if __name__ == "__main__":
    define_flags()
    run_program("benchmarks", start, writes="--data_dir")
