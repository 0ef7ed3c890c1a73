"""Writes a corpus to set beside the mined one: pages that mining rejected, an early round's, or source code.

python -m experiments.corpus --config=configs/corpus.py:nano --workdir=runs/general --config.mine=runs/mine \\
    --config.source=rejected
"""

import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow
import pyarrow.parquet

from dsmath.data.code import read_code
from dsmath.runs import driver
from dsmath.runs.checks import check_positive
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import RESULT, replacing, require_finished, write_lineage
from dsmath.web.rejected import read_pages

SOURCES = ("rejected", "collected", "code")
PARTS = ("train", "held_out")
_HELD_OUT = 10  # one document of so many


def run(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Writes the documents to `corpus/part.parquet`, with columns `url` and `text`."""
    check_positive(config, "max_documents")
    for field, values in (("source", SOURCES), ("part", PARTS)):
        if config[field] not in values:
            raise InputError(f"config.{field}: {config[field]!r} is none of {', '.join(values)}")
    parents = {} if config.source == "code" else {"mine": config.mine}
    for role, parent in parents.items():
        require_finished(parent, f"config.{role}")
    if config.source == "code":
        found = read_code(config.seed)
    else:
        found = read_pages(config.mine, config.round, collected=config.source == "collected")
    documents = list(itertools.islice(choose(found, config.part), config.max_documents))
    if not documents:
        raise InputError(f"config.source={config.source!r}: there is no document; choose another source or round")
    write_lineage(workdir, parents=parents, data=[pathlib.Path(folder) / RESULT for folder in parents.values()])
    names, texts = zip(*documents, strict=True)
    with replacing(workdir / "corpus" / "part.parquet") as temporary:
        pyarrow.parquet.write_table(pyarrow.table({"url": names, "text": texts}), temporary)
    return {"documents": len(texts), "characters": sum(map(len, texts))}


def choose(documents: Iterable[tuple[str, str]], part: str) -> Iterator[tuple[str, str]]:
    """The documents of a part: a hash of the text holds every tenth back, wherever it stands."""
    for name, text in documents:
        held_out = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % _HELD_OUT == 0
        if held_out == (part == "held_out"):
            yield name, text


if __name__ == "__main__":
    driver.main("corpus", run)
