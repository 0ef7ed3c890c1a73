"""Checkpoints from Hugging Face's files to Orbax and back.

Neither side is ever held whole. A tensor is read, cast, and written into its layer's chunks of the Orbax array; a chunk
of an Orbax array is read, and written through to its layers' places in the files. So the memory needed is a few times
that of the largest tensor, or of the largest chunk, however large the model and the files are.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from dsmath.data.tokenizer import FILE as SENTENCEPIECE
from dsmath.data.tokenizer import Tokenizer
from dsmath.huggingface import arrays, files, layout
from dsmath.huggingface import config as configs
from dsmath.huggingface import tokenizer as tokenizers
from dsmath.huggingface.layout import Leaf
from dsmath.model.config import ModelConfig
from dsmath.runs.errors import InputError
from dsmath.runs.progress import Progress
from dsmath.runs.workdir import LINEAGE, read_json, write_atomically, write_json
from dsmath.train.checkpoint import read_model

KEEP = "keep"
DTYPES = {KEEP: None, "float32": files.DTYPES["F32"], "bfloat16": files.DTYPES["BF16"]}
_GENERATION = "generation_config.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face checkpoint that has been checked, and what is to be made of it.

    Attributes:
      config: our config of the model.
      length: tokens of its longest context, where its config.json says it.
      tensors: the headers of its tensors by name.
      dtypes: of our arrays.
      tokenizer: its tokenizer.
      folder: where it lies.
    """

    config: ModelConfig
    length: int | None
    tensors: dict[str, files.Tensor]
    dtypes: dict[Leaf, np.dtype]
    tokenizer: Tokenizer
    folder: pathlib.Path

    def sources(self) -> list[pathlib.Path]:
        """The files that it was read from."""
        names = (configs.FILE, files.INDEX, *self.tokenizer.files)
        return [path for path in (self.folder / name for name in names) if path.is_file()] + self.shards()

    def shards(self) -> list[pathlib.Path]:
        """The files that hold the tensors."""
        return sorted({tensor.file for tensor in self.tensors.values()})


def open_checkpoint(folder: pathlib.Path, dtype: str, numerics: Mapping[str, Any]) -> Checkpoint:
    """Reads everything but the tensors' values, and checks it.

    Args:
      folder: of a Hugging Face checkpoint.
      dtype: of our arrays, a key of `DTYPES`; "keep" takes each tensor's own.
      numerics: the fields of our model's config that are ours to choose: remat, attention.
    Raises:
      InputError: names the first thing that is wrong, or that we would not compute the same.
    """
    fields = configs.read(folder)
    headers = files.read_headers(folder)
    path = folder / configs.FILE
    numerics = {"param_dtype": "float32", "dtype": "float32", **numerics}
    config = configs.from_huggingface(fields, path, numerics)
    expected = layout.tensors(config)
    _check_tensors(headers, expected, folder)
    wanted = DTYPES[dtype]
    dtypes: dict[Leaf, np.dtype] = {}
    for name, (leaf, _) in expected.items():
        found = files.DTYPES[headers[name].dtype] if wanted is None else wanted
        if dtypes.setdefault(leaf, found) != found:
            raise InputError(
                f"{headers[name].file}: {name} is {found}, and that of another layer {dtypes[leaf]}; "
                "give --dtype=float32 or --dtype=bfloat16"
            )
    if dtypes[expected[layout.EMBEDDING][0]] == DTYPES["bfloat16"]:
        config = dataclasses.replace(config, dtype="bfloat16")  # as it was trained
    tokenizer = _load_tokenizer(folder, fields)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{path}: vocab_size is {config.vocab_size}, and the tokenizer has {tokenizer.vocab_size} ids; take the "
            "tokenizer that the model was trained with"
        )
    return Checkpoint(config, fields.get("max_position_embeddings"), headers, dtypes, tokenizer, folder)


def to_orbax(checkpoint: Checkpoint, workdir: pathlib.Path) -> int:
    """Writes a checkpoint of step 0 into a workdir that has its lineage, unless it is there.

    A kill leaves a folder that Orbax does not take for a checkpoint, and that the next run removes.

    Returns:
      the number of parameters.
    """
    handlers = {
        "params": arrays.ArraysHandler(),
        "model": ocp.JsonCheckpointHandler(),
        "lineage": ocp.JsonCheckpointHandler(),
    }
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False, cleanup_tmp_directories=True)
    folder = (workdir / "checkpoints").absolute()
    with ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
        if manager.latest_step() is None:
            items = {
                "params": arrays.SaveArrays(lambda folder: _write_arrays(checkpoint, folder)),
                "model": ocp.args.JsonSave(checkpoint.config.to_dict()),
                "lineage": ocp.args.JsonSave(read_json(workdir / LINEAGE)),
            }
            manager.save(0, args=ocp.args.Composite(**items))
    return sum(math.prod(leaf.stacked_shape) for leaf in checkpoint.dtypes)


def from_orbax(
    workdir: pathlib.Path, folder: pathlib.Path, *, dtype: str, length: int, max_shard_size: int
) -> dict[str, int]:
    """Writes the newest checkpoint of a workdir as a Hugging Face checkpoint.

    Args:
      workdir: of a stage, with its tokenizer.
      folder: that is there; it is no checkpoint before this returns.
      dtype: of the files, a key of `DTYPES`.
      length: tokens of the longest context, for those who read config.json.
      max_shard_size: bytes of a file at most.
    Returns:
      numbers of parameters and of files.
    """
    config = read_model(workdir, "--from")
    tokenizer = Tokenizer.load(workdir, "--from")
    if config.attention_bias and tokenizer.file == SENTENCEPIECE:
        logging.warning(
            "%s: AutoTokenizer of transformers 5 takes every tokenizer of a Qwen2 model for Qwen2's own and would give "
            "other ids; load this one by PreTrainedTokenizerFast",
            workdir,
        )
    stored = _open_arrays(workdir, config)
    dtypes = {leaf: DTYPES[dtype] or array.dtype.numpy_dtype for leaf, array in stored.items()}
    tensors = {name: (leaf.their_shape, dtypes[leaf]) for name, (leaf, _) in layout.tensors(config).items()}
    places = files.reserve(folder, tensors, max_shard_size)
    parameters = sum(array.size for array in stored.values())
    with Progress(parameters, "convert", "parameter") as progress:
        for leaf, array in stored.items():
            for part in arrays.chunks(array):
                block = array[part].read().result()
                _write_block(leaf, part, block, [places[name] for name in leaf.names()])
                progress.advance(block.size)
    embedding = next(iter(dtypes.values()))
    model = configs.to_huggingface(config, dtype=embedding.name, length=length)
    write_json(folder / configs.FILE, model | tokenizers.special_ids(tokenizer))
    for name, content in tokenizers.to_huggingface(tokenizer).items():
        write_atomically(folder / name, content)
    return {"parameters": parameters, "files": len({place.file for place in places.values()})}


def _check_tensors(
    found: Mapping[str, files.Tensor], expected: Mapping[str, tuple[Leaf, int]], folder: pathlib.Path
) -> None:
    """Refuses a checkpoint that lacks a tensor, has one too many, or one of another shape or kind of number."""
    for name, (leaf, _) in expected.items():
        if name not in found:
            raise InputError(f"{folder}: no tensor {name} in any file; correct {configs.FILE}, or download all files")
        tensor = found[name]
        if tensor.shape != leaf.their_shape:
            raise InputError(
                f"{tensor.file}: {name} is {tensor.shape}, and {configs.FILE} asks for {leaf.their_shape}; correct it"
            )
        if tensor.dtype not in files.DTYPES:
            known = ", ".join(files.DTYPES)
            raise InputError(f"{tensor.file}: {name} is {tensor.dtype}, and only {known} are read; dequantize it first")
    for name in _extra(found, expected):
        if name != layout.OUTPUT or not files.equal(found[name], name, found[layout.EMBEDDING], layout.EMBEDDING):
            raise InputError(
                f"{found[name].file}: tensor {name} has no place in the model that {configs.FILE} describes; correct it"
            )


def _extra(found: Iterable[str], expected: Mapping[str, Any]) -> list[str]:
    """Tensors that are not the model's; the rotary frequencies that old checkpoints store follow from the config."""
    return [name for name in found if name not in expected and not name.endswith(".rotary_emb.inv_freq")]


def _load_tokenizer(folder: pathlib.Path, fields: Mapping[str, Any]) -> Tokenizer:
    """The checkpoint's tokenizer; where only config.json knows the special ids, they go with it."""
    tokenizer = Tokenizer.load(folder, f"--from=hf:{folder}")
    stated = tokenizers.generation_settings(fields)
    if _GENERATION in tokenizer.files or stated is None:
        return tokenizer
    return type(tokenizer)({**tokenizer.files, _GENERATION: stated})


def _write_arrays(checkpoint: Checkpoint, folder: pathlib.Path) -> None:
    """Writes the parameters as an item of an Orbax checkpoint."""
    stacked = {
        leaf: arrays.create(folder, leaf.path, leaf.stacked_shape, dtype, stacked=leaf.layers is not None)
        for leaf, dtype in checkpoint.dtypes.items()
    }
    expected = layout.tensors(checkpoint.config)
    with Progress(sum(array.size for array in stacked.values()), "convert", "parameter") as progress:
        for path, names in itertools.groupby(checkpoint.tensors, lambda name: checkpoint.tensors[name].file):
            with files.open_file(path) as file:
                for name in filter(expected.__contains__, names):
                    leaf, layer = expected[name]
                    array = stacked[leaf] if leaf.layers is None else stacked[leaf][layer]
                    tensor = file.get_tensor(name).astype(checkpoint.dtypes[leaf], copy=False)
                    array.write(leaf.from_theirs(tensor)).result()
                    progress.advance(tensor.size)
    arrays.write_metadata(folder, [leaf.path for leaf in stacked])


def _open_arrays(workdir: pathlib.Path, config: ModelConfig) -> dict[Leaf, Any]:
    """The parameters of the newest checkpoint, unread, in the order of their files."""
    folder = (workdir / "checkpoints").absolute()
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(create=False)) as manager:
        item = folder / str(manager.latest_step()) / "params"
    found = arrays.open_all(item)
    stored = {}
    for leaf in layout.leaves(config):
        array = found.pop(leaf.path, None)
        if array is None or array.shape != leaf.stacked_shape or array.dtype.numpy_dtype not in files.DTYPES.values():
            there = "absent" if array is None else f"{array.dtype.name}{list(array.shape)}"
            name, wanted = ".".join(leaf.path), list(leaf.stacked_shape)
            raise InputError(f"--from: {item}: {name} is {there}, not floats{wanted}; take another checkpoint")
        stored[leaf] = array
    for path in found:
        name = ".".join(path)
        raise InputError(f"--from: {item}: {name} has no place in a Hugging Face checkpoint; take another checkpoint")
    return stored


def _write_block(leaf: Leaf, part: tuple[slice, ...], block: np.ndarray, places: list[files.Place]) -> None:
    """Writes a part of our array through to the tensors of its layers."""
    first, inner = (0, part) if leaf.layers is None else (part[0].start, part[1:])
    for layer, values in enumerate(block[None] if leaf.layers is None else block, first):
        leaf.from_theirs(places[layer].open())[inner] = values
