"""Corpora beside the mined one, and losses on what was held out of them."""

import math
import pathlib

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from configs import corpus as corpus_configs
from configs import loss as loss_configs
from dsmath.data.code import read_code
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import write_json
from experiments import corpus, loss


@pytest.fixture
def mined(tmp_path) -> pathlib.Path:
    """What a mining stage leaves of its rounds: 400 pages, every fourth a duplicate; two rounds collect some."""
    folder = tmp_path / "mine"
    for name in ("pages", "unique", "selection"):
        (folder / name).mkdir(parents=True)
    unique = [row for row in range(400) if row % 4]
    pages = {"url": [f"u{row}" for row in range(400)], "text": [f"text of page {row}" for row in range(400)]}
    pyarrow.parquet.write_table(pyarrow.table(pages), folder / "pages" / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"row": unique}), folder / "unique" / "a.parquet")
    for number, share in ((1, 100), (2, 200)):
        selection = pyarrow.table({"collected": [row < share for row in unique]})
        pyarrow.parquet.write_table(selection, folder / "selection" / f"round-{number}-a.parquet")
    write_json(folder / "report.json", {"rounds": [{"round": 1}, {"round": 2}]})
    write_json(folder / "result.json", {})
    return folder


def _write(workdir: pathlib.Path, **fields) -> list[str]:
    config = corpus_configs.get_config()
    config.update(fields)
    corpus.run(config, workdir)
    return pyarrow.parquet.read_table(workdir / "corpus")["url"].to_pylist()


def test_the_pages_of_a_round_and_those_that_it_rejected_are_the_unique_ones(mined, tmp_path):
    def written(**fields) -> set[str]:
        name = "-".join(map(str, fields.values()))
        parts = [
            _write(tmp_path / f"{name}-{part}", mine=str(mined), part=part, **fields) for part in ("train", "held_out")
        ]
        assert parts[1] and not set(parts[0]) & set(parts[1])
        return set(parts[0]) | set(parts[1])

    unique = {f"u{row}" for row in range(400) if row % 4}
    collected = {f"u{row}" for row in range(200) if row % 4}
    assert written(source="rejected") == unique - collected
    assert set(_write(tmp_path / "first", mine=str(mined), source="collected", round=1)) < {
        f"u{row}" for row in range(100)
    }
    assert set(_write(tmp_path / "last", mine=str(mined), source="collected")) < collected


def test_code_is_that_of_pythons_library_in_one_order(tmp_path):
    names = _write(tmp_path / "code", source="code", max_documents=5)
    assert len(names) == 5 and all(name.endswith(".py") for name in names)
    first = next(iter(read_code(0)))
    assert first == next(iter(read_code(0))) != next(iter(read_code(1)))
    assert 0 < len(first[1]) <= 20_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "papers"}, r"config\.source: 'papers' is none of rejected"),
        ({"part": "test"}, r"config\.part: 'test' is none of train"),
        ({"round": 7}, r"config\.round: 7 is none of the rounds of .*, 1 to 2"),
    ],
)
def test_what_cannot_be_written_is_named(fields, message, mined, tmp_path):
    with pytest.raises(InputError, match=message):
        _write(tmp_path / "no", mine=str(mined), **fields)


def test_the_loss_of_an_untrained_model_is_that_of_guessing(checkpoint, tmp_path):
    (tmp_path / "corpus").mkdir()
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 99, 30))) for _ in range(20)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "corpus" / "a.parquet")
    config = loss_configs.get_config()
    config.init_from, config.num_cpu_devices = str(checkpoint), jax.device_count()
    config.update(num_batches=2, batch_size=8, length=32, num_embedded=20)
    config.corpora = {"numbers": str(tmp_path / "corpus"), "workbook": "embedded"}
    found = loss.run(config, tmp_path / "loss")["loss"]
    assert set(found) == {"numbers", "workbook"}
    assert all(abs(value - math.log(448)) < 0.6 for value in found.values())  # of the vocabulary
    config.corpora = {}
    with pytest.raises(InputError, match=r"config\.corpora: empty"):
        loss.run(config, tmp_path / "none")
