"""Corpora: found, read, tokenized once, and refused by name where they are no corpora."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from configs import export as configs
from dsmath.data import documents, problems
from dsmath.data.documents import find_corpus, find_data, prepare, read_texts
from dsmath.data.packing import document_batches
from dsmath.data.tokenizer import Tokenizer
from dsmath.runs.driver import run_stage
from dsmath.runs.errors import InputError
from experiments import export as experiments_export

TEXTS = [f"Document {i}: {i}+{i}={2 * i}.\n中文{i}。" for i in range(700)]


def _write(path, texts, column="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({column: pyarrow.array(texts, pyarrow.string())}), path)


def _prepare(corpora, folder, tokenizer):
    return prepare(corpora, folder, tokenizer, num_embedded=6, seed=0)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, vocab_size=300)


def test_a_mining_workdir_and_a_folder_of_files_are_both_corpora(tmp_path):
    _write(tmp_path / "mine" / "corpus" / "b.parquet", ["b"])
    _write(tmp_path / "mine" / "corpus" / "a.parquet", ["a"])
    _write(tmp_path / "mine" / "scores.parquet", ["no text"], "url")
    _write(tmp_path / "plain" / "c.parquet", ["c"])
    assert [file.name for file in find_corpus(tmp_path / "mine", "config.corpus")] == ["a.parquet", "b.parquet"]
    assert [file.name for file in find_corpus(tmp_path / "plain", "config.corpus")] == ["c.parquet"]
    assert list(read_texts(find_corpus(tmp_path / "mine", "config.corpus"))) == ["a", "b"]


def test_bad_corpora_are_named(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"config\.corpus=.*absent.*: there is no such folder; give"):
        find_corpus(tmp_path / "absent", "config.corpus")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"config\.corpus=.*bare.*: no Parquet files there; give"):
        find_corpus(tmp_path / "bare", "config.corpus")
    _write(tmp_path / "other" / "a.parquet", ["x"], "content")
    with pytest.raises(
        InputError, match=r"config\.corpora\.arxiv: .*a\.parquet has no column 'text' but \['content'\]"
    ):
        find_corpus(tmp_path / "other", "config.corpora.arxiv")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"config\.corpus: .*a\.parquet is no Parquet file"):
        find_corpus(tmp_path / "damaged", "config.corpus")
    _write(tmp_path / "empty" / "a.parquet", [])
    with pytest.raises(InputError, match=r"config\.corpora\.mined=.*: the corpus holds no text"):
        _prepare({"mined": str(tmp_path / "empty")}, tmp_path / "data", tokenizer)
    _write(tmp_path / "silent" / "a.parquet", [None, ""])
    with pytest.raises(InputError, match=r"config\.corpora\.mined=.*: the corpus holds no text"):
        _prepare({"mined": str(tmp_path / "silent")}, tmp_path / "data", tokenizer)


def test_a_bad_corpus_is_refused_before_any_is_tokenized(tmp_path, tokenizer):
    _write(tmp_path / "good" / "a.parquet", ["fine"])
    with pytest.raises(InputError, match=r"config\.corpora\.bad"):
        _prepare({"good": str(tmp_path / "good"), "bad": str(tmp_path / "absent")}, tmp_path / "data", tokenizer)
    assert not (tmp_path / "data").exists()


def test_documents_become_bos_text_eos_in_any_order_of_reading(tmp_path, tokenizer):
    _write(tmp_path / "corpus" / "a.parquet", TEXTS[:300])
    _write(tmp_path / "corpus" / "b.parquet", TEXTS[300:])
    source = _prepare({"mined": str(tmp_path)}, tmp_path / "data", tokenizer)["mined"]
    assert len(source) == 700
    for index in (699, 0, 300, 299):
        tokens = source[index]["tokens"]
        assert tokens.dtype == np.int32
        assert (tokens[0], tokens[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert sorted(tokenizer.decode(source[index]["tokens"]) for index in range(700)) == sorted(TEXTS)


def test_the_embedded_workbook_is_a_corpus_of_training_problems(tmp_path, tokenizer):
    source = _prepare({"workbook": problems.EMBEDDED}, tmp_path, tokenizer)["workbook"]
    assert len(source) == 6
    pages = sorted(tokenizer.decode(source[index]["tokens"]) for index in range(6))
    assert pages == sorted(problems.documents(6, seed=0))
    held_out = {record.question for record in problems.generate("test", 200, seed=0)}
    assert not [question for page in pages for question in held_out if question in page]


def test_a_second_preparation_does_not_tokenize_again(tmp_path, tokenizer):
    _write(tmp_path / "a.parquet", TEXTS[:20])
    first = _prepare({"mined": str(tmp_path)}, tmp_path / "data", tokenizer)["mined"]
    calls = []

    class Counting:
        bos_id, eos_id = tokenizer.bos_id, tokenizer.eos_id

        def encode_all(self, texts):
            calls.append(len(texts))
            return tokenizer.encode_all(texts)

    second = _prepare({"mined": str(tmp_path)}, tmp_path / "data", Counting())["mined"]
    assert calls == []
    for index in range(20):
        np.testing.assert_array_equal(first[index]["tokens"], second[index]["tokens"])
    _prepare({"mined": str(tmp_path)}, tmp_path / "elsewhere", Counting())
    assert calls == [20]


def test_a_large_corpus_becomes_several_shards_in_its_order(tmp_path, tokenizer, monkeypatch):
    table = pyarrow.table({"text": pyarrow.array([None, *TEXTS[:349], ""], pyarrow.string())})
    (tmp_path / "corpus").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "corpus" / "a.parquet", row_group_size=50)
    _write(tmp_path / "corpus" / "b.parquet", TEXTS[349:])
    monkeypatch.setattr(documents, "_SHARD_BYTES", 2000)
    source = _prepare({"mined": str(tmp_path)}, tmp_path / "data", tokenizer)["mined"]
    assert len(list((tmp_path / "data").rglob("*.array_record-*"))) > 3
    assert [tokenizer.decode(source[index]["tokens"]) for index in range(len(source))] == TEXTS


@pytest.fixture
def exported(tmp_path, tokenizer):
    """A finished export of 20 pages, with a cut."""
    columns = {
        "url": [f"https://a.org/{i}" for i in range(20)],
        "host": ["a.org"] * 20,
        "text": TEXTS[:20],
        "score": [i / 20 for i in range(20)],
        "language": ["en"] * 20,
        "round": [1] * 20,
    }
    (tmp_path / "mine").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "mine" / "a.parquet")
    tokenizer.save(tmp_path / "tokenizer")
    config = configs.get_config()
    config.corpus, config.tokenizer, config.max_tokens = str(tmp_path / "mine"), str(tmp_path / "tokenizer"), "50,1e9"
    run_stage("export", experiments_export.run, config, str(tmp_path / "export"))
    return tmp_path / "export"


def test_an_export_is_read_without_tokenizing_again(tmp_path, tokenizer, exported):
    sources = _prepare({"mined": str(exported), "best": str(exported / "top-50")}, tmp_path / "data", tokenizer)
    pages = [tokenizer.decode(sources["mined"][index]["tokens"]) for index in range(20)]
    assert pages == TEXTS[19::-1]
    assert 0 < len(sources["best"]) < 20
    np.testing.assert_array_equal(sources["best"][0]["tokens"], sources["mined"][0]["tokens"])
    assert not (tmp_path / "data").exists()
    batches = document_batches(sources, {"mined": 0.5, "best": 0.5}, length=16, batch_size=2, seed=0)
    assert next(batches)["tokens"].shape == (2, 16)
    names = {file.name for file in find_data(exported / "top-50", "config.corpora.best")}
    assert names == {"pages.parquet", "dataset_info.json", "cut.json"}  # what the lineage records


def test_an_export_with_another_tokenizers_ids_is_refused(tmp_path, exported):
    other = Tokenizer.train(TEXTS, vocab_size=290)
    with pytest.raises(InputError, match=r"config\.corpora\.mined=.*holds ids of the tokenizer .*; name that"):
        _prepare({"mined": str(exported)}, tmp_path / "data", other)


def test_an_export_is_no_corpus_of_texts_and_an_unfinished_one_is_none_at_all(exported):
    with pytest.raises(InputError, match=r"config\.corpus=.*token ids, not texts; give what it was made of"):
        find_corpus(exported, "config.corpus")
    (exported / "result.json").unlink()
    for folder in (exported, exported / "top-50"):
        with pytest.raises(InputError, match=r"config\.corpora\.mined=.*has not finished"):
            find_data(folder, "config.corpora.mined")
