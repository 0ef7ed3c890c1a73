"""Exports: ranked exactly, cut by tokens, readable by TFDS, the same bytes after a kill, refused by name."""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from configs import export as configs
from dsmath.data import arrays, export
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs import driver
from dsmath.runs.errors import InputError
from dsmath.runs.workdir import read_json, write_json
from experiments.export import run

TEXTS = [f"Theorem {i}: {i}+{i}={2 * i}. " * (1 + i % 7) for i in range(700)]
LANGUAGES = ("en", "zh", "fr")


def _write_corpus(folder: pathlib.Path, *, files: int = 3) -> list[dict]:
    """A mined corpus; one page in five has the highest score, one text is empty."""
    rows = [
        {
            "url": f"https://host{i % 11}.org/{i}",
            "host": f"host{i % 11}.org",
            "text": text if i != 5 else "",
            "score": 1.0 if i % 5 == 0 else (i * 37 % 700) / 700,
            "language": LANGUAGES[i % 3],
            "round": 1 + i % 2,
        }
        for i, text in enumerate(TEXTS)
    ]
    types = {"url": pa.string(), "host": pa.string(), "text": pa.string(), "score": pa.float32()}
    schema = pa.schema([*types.items(), ("language", pa.string()), ("round", pa.int32())])
    (folder / "corpus").mkdir(parents=True)
    for number in range(files):
        table = pa.Table.from_pylist(rows[number::files], schema)
        pq.write_table(table, folder / "corpus" / f"{number}.parquet")
    return rows


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mined")
    _write_corpus(folder / "mine")
    Tokenizer.train(TEXTS, vocab_size=290).save(folder / "tokenizer")
    return folder


@pytest.fixture
def config(mined):
    c = configs.get_config("nano")
    c.corpus, c.tokenizer = str(mined / "mine"), str(mined / "tokenizer")
    return c


def _files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _decode(source, tokenizer) -> list[str]:
    return [tokenizer.decode(source[index]["tokens"]) for index in range(len(source))]


def test_record_n_is_page_n_of_an_exact_ranking(tmp_path, mined, config):
    result = run(config, tmp_path)
    pages = pq.read_table(tmp_path / "pages.parquet").to_pylist()
    assert len(pages) == result["pages"] == 699  # but for the empty one
    assert [page["score"] for page in pages] == sorted((page["score"] for page in pages), reverse=True)
    text_by_url = {f"https://host{i % 11}.org/{i}": text for i, text in enumerate(TEXTS)}
    tokenizer = Tokenizer.load(mined / "tokenizer")
    source = export.Export(tmp_path).source()
    assert _decode(source, tokenizer) == [text_by_url[page["url"]] for page in pages]
    for index in (0, 350, 698):
        tokens = source[index]["tokens"]
        assert (tokens[0], tokens[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        assert len(tokens) == pages[index]["tokens"]
        assert len(text_by_url[pages[index]["url"]]) == pages[index]["characters"]
    assert sum(page["tokens"] for page in pages) == result["tokens"]


def test_equal_scores_are_a_sample_of_all_hosts_wherever_the_pages_lie(tmp_path, config):
    run(config, tmp_path / "three")
    _write_corpus(tmp_path / "mine", files=1)
    config.corpus = str(tmp_path / "mine")
    run(config, tmp_path / "one")
    three, one = (pq.read_table(tmp_path / name / "pages.parquet").to_pylist() for name in ("three", "one"))
    assert three == one
    assert len({page["host"] for page in three[:40] if page["score"] == 1.0}) == 11


def test_cuts_are_the_fewest_best_pages_that_reach_their_tokens(tmp_path, mined, config):
    config.max_tokens = "3e3, 12000"
    result = run(config, tmp_path)
    pages = pq.read_table(tmp_path / "pages.parquet").to_pylist()
    total = np.cumsum([page["tokens"] for page in pages])
    for name, tokens in (("top-3e3", 3000), ("top-12e3", 12_000)):
        cut = read_json(tmp_path / name / "cut.json")
        assert total[cut["pages"] - 1] == cut["tokens"] >= tokens > total[cut["pages"] - 2]
        source = export.open_export(tmp_path / name, "config.corpora.mined").source()
        assert len(source) == cut["pages"]
        np.testing.assert_array_equal(source[7]["tokens"], export.Export(tmp_path).source()[7]["tokens"])
    assert len(pages) == result["pages"] == cut["pages"]  # nothing beyond the largest is stored


def test_a_cut_that_the_corpus_cannot_fill_holds_all_and_says_so(tmp_path, config, caplog):
    config.max_tokens = "40e9"
    assert run(config, tmp_path)["pages"] == 699
    assert "top-40e9" in caplog.text


def test_tfds_reads_it_without_this_project(tmp_path, config):
    run(config, tmp_path)
    builder = tfds.builder_from_directory(tmp_path / "mined_pages" / "1.0.0")
    assert builder.info.splits["train"].num_examples == 699
    assert len(tfds.data_source("mined_pages", data_dir=tmp_path, split="train[:10]")) == 10


def test_pages_below_the_score_and_of_other_languages_are_left_out_and_counted(tmp_path, config):
    config.min_score, config.languages = 0.5, "en,zh"
    run(config, tmp_path)
    pages = pq.read_table(tmp_path / "pages.parquet").to_pylist()
    assert {page["language"] for page in pages} == {"en", "zh"}
    assert min(page["score"] for page in pages) >= 0.5
    left_out = read_json(tmp_path / "card.json")["left_out"]
    assert left_out.keys() == {"no text", "below the least score", "another language"}
    assert sum(left_out.values()) + len(pages) == 700


@pytest.mark.parametrize(
    ("module", "killed_at"),
    [(export, "_tokenize_batch"), (export, "write_pages"), (arrays, "_write_shard"), (export, "write_cuts")],
)
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, config, monkeypatch, module, killed_at):
    monkeypatch.setattr(export, "_PART_FILES", 1)
    monkeypatch.setattr(export, "_SHARD_TOKENS", 4000)
    config.max_tokens = "3e3,2e4"
    run(config, tmp_path / "whole")
    assert len(list((tmp_path / "whole").rglob("*.array_record-*"))) > 3

    original, calls = getattr(module, killed_at), []

    def killed(*args):
        calls.append(args)
        if len(calls) == (3 if killed_at.startswith("_") else 1):
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, killed_at, killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "killed")
    assert not (tmp_path / "killed" / "card.json").exists()
    run(config, tmp_path / "killed")
    whole, again = (_files(tmp_path / name) for name in ("whole", "killed"))
    assert whole.keys() == again.keys()
    different = [name for name in whole if whole[name] != again[name]]
    assert all(b"killed" in again[name] for name in different)  # the card's title is the folder's name


def test_a_resumed_run_does_not_tokenize_again(tmp_path, config, monkeypatch):
    monkeypatch.setattr(export, "write_cuts", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(export, "_tokenize_batch", None)
    monkeypatch.setattr(arrays, "_write_shard", None)
    run(config, tmp_path)
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"corpus": "nowhere"}, r"config\.corpus='nowhere': there is no such folder"),
        ({"tokenizer": "nowhere"}, r"config\.tokenizer='nowhere'"),
        ({"max_tokens": "-5"}, r"config\.max_tokens='-5': '-5' is no number of tokens; write 40e9"),
        ({"max_tokens": "1e6,many"}, r"config\.max_tokens='1e6,many': 'many'"),
        ({"max_tokens": "0,1e6"}, r"config\.max_tokens='0,1e6': '0'"),
        ({"max_tokens": "nan"}, r"config\.max_tokens='nan'"),
        ({"max_tokens": "1.5"}, r"config\.max_tokens='1.5'"),
        ({"max_tokens": ""}, r"config\.max_tokens=''"),
        ({"min_score": 1.5}, r"config\.min_score=1.5 must lie"),
    ],
)
def test_bad_fields_are_named_before_any_work(tmp_path, config, overrides, named):
    config.update(overrides)
    with pytest.raises(InputError, match=named):
        run(config, tmp_path)
    assert not (tmp_path / "lineage.json").exists()


def test_a_corpus_that_was_not_mined_is_refused(tmp_path, config):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    config.corpus = str(tmp_path)
    with pytest.raises(InputError, match=r"config\.corpus: .*a\.parquet has no column 'url'; give the workdir"):
        run(config, tmp_path / "out")


def test_an_unfinished_stage_is_refused(tmp_path, config):
    _write_corpus(tmp_path / "mine")
    write_json(tmp_path / "mine" / "config.json", {"stage": "mine"})
    config.corpus = str(tmp_path / "mine")
    with pytest.raises(InputError, match=r"config\.corpus=.*has not finished"):
        run(config, tmp_path / "out")


def test_no_page_left_is_refused_with_the_reasons(tmp_path, config):
    config.languages = "de"
    with pytest.raises(InputError, match=r"no page is left .*'another language': 699.*; lower config\.min_score"):
        run(config, tmp_path)


def test_a_finished_export_names_its_parents(tmp_path, mined, config):
    driver.run_stage("export", run, config, str(tmp_path / "out"))
    parents = read_json(tmp_path / "out" / "lineage.json")["parents"]
    assert {role: parent["workdir"] for role, parent in parents.items()} == {
        "corpus": str(mined / "mine"),
        "tokenizer": str(mined / "tokenizer"),
    }
