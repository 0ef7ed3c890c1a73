"""The page classifier: learning, folding, saving, fastText's traps."""

import errno
import random
import struct
import tempfile

import fasttext
import numpy as np
import pytest

from dsmath.runs.errors import InputError
from dsmath.web import classifier, tokens
from dsmath.web.classifier import Classifier, Settings, TrainingTexts, spool

MATH = ["theorem", "proof", "lemma", "integral", "matrix", "prime", "group", "\\frac", "\\int", "证", "明", "函", "数"]
OTHER = ["server", "install", "package", "user", "file", "music", "window", "button", "安", "装", "软", "件"]
SHARED = ["the", "and", "of", "in", "with", "for", "page", "which"]
SETTINGS = {"dim": 8, "lr": 0.5, "word_ngrams": 2, "min_count": 1, "epochs": 3, "buckets": 1_100_000}


def _texts(words: list[str], count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words + SHARED, k=60)) for _ in range(count)]


@pytest.fixture(scope="module")
def trained() -> Classifier:
    return Classifier.train(_texts(MATH, 150, 0), _texts(OTHER, 150, 1), **SETTINGS)


def test_separates_unseen_texts(trained):
    assert trained.score(_texts(MATH, 20, 2)).min() > 0.5 > trained.score(_texts(OTHER, 20, 3)).max()


def test_folded_model_scores_as_the_trained_one(monkeypatch):
    unfolded = {}

    def keep(model):
        unfolded["score"] = classifier._score_lines(model, [tokens.line(text) for text in texts])
        return fold(model)

    fold, texts = classifier._fold, _texts(MATH, 30, 4) + _texts(OTHER, 30, 5)
    monkeypatch.setattr(classifier, "_fold", keep)
    folded = Classifier.train(_texts(MATH, 50, 0), _texts(OTHER, 50, 1), **SETTINGS)
    np.testing.assert_allclose(folded.score(texts), unfolded["score"], atol=2e-5)


def test_wrong_fold_is_noticed(monkeypatch):
    def fold_wrongly(model):
        fold(model)
        model.set_matrices(model.get_input_matrix(), -model.get_output_matrix())
        return model

    fold = classifier._fold
    monkeypatch.setattr(classifier, "_fold", fold_wrongly)
    with pytest.raises(RuntimeError, match="folded classifier differs"):
        Classifier.train(_texts(MATH, 50, 0), _texts(OTHER, 50, 1), **SETTINGS)


def test_saved_model_is_small_and_scores_the_same(trained, tmp_path):
    path = tmp_path / "models" / "classifier-1.bin"
    trained.save(path)
    assert path.stat().st_size < 2 * 4 * SETTINGS["buckets"]  # one number a row
    assert fasttext.load_model(str(path)).get_dimension() == 1
    texts = _texts(MATH, 5, 6) + _texts(OTHER, 5, 7)
    np.testing.assert_array_equal(Classifier.load(path).score(texts), trained.score(texts))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_same_seed_gives_the_same_model(trained):
    again = Classifier.train(_texts(MATH, 150, 0), _texts(OTHER, 150, 1), **SETTINGS)
    texts = _texts(MATH, 20, 8) + _texts(OTHER, 20, 9)
    np.testing.assert_array_equal(again.score(texts), trained.score(texts))


def test_memory_that_was_used_before_does_not_reach_the_model(trained):
    """fastText leaves most of its matrix as it was allocated."""
    blocks = [np.full(2**14, np.nan, dtype=np.float32) for _ in range(4_000)]
    kept = blocks.pop()  # above the others: they stay in the process when they are freed
    del blocks
    again = Classifier.train(_texts(MATH, 150, 0), _texts(OTHER, 150, 1), **SETTINGS)
    texts = _texts(MATH, 20, 8) + _texts(OTHER, 20, 9)
    np.testing.assert_array_equal(again.score(texts), trained.score(texts))
    del kept


@pytest.mark.parametrize("text", ["", "\n\n", "zzz qqq", "</s> theorem", "__label__other theorem", "a\0b", "\ud800"])
def test_any_text_scores_within_zero_and_one(trained, text):
    score = trained.score([text, text])
    assert score.shape == (2,) and score.dtype == np.float32
    assert score[0] == score[1] and 0 <= score[0] <= 1


def test_marks_of_fasttext_in_a_text_change_nothing(trained):
    plain, marked = trained.score(["theorem proof integral", "theorem </s> proof integral"])
    assert plain == marked


@pytest.mark.parametrize("num_others", [50, 150, 450])
def test_half_is_the_threshold_whatever_the_share_of_either_label(num_others):
    model = Classifier.train(_texts(MATH, 150, 0), _texts(OTHER, num_others, 1), **SETTINGS)
    empty = model.score([""])[0]  # no word speaks for either label
    assert model.score(_texts(MATH, 20, 2)).min() > 0.5 > model.score(_texts(OTHER, 20, 3)).max()
    assert 0.1 < empty < 0.9


def test_papers_settings_hold_for_many_texts_and_are_raised_for_few():
    assert Settings().raised_for(1_000_000) == Settings().raised_for(67_000) == Settings()
    few = Settings().raised_for(5_000)
    assert (few.lr, few.epochs) == (1.0, 4)
    between = Settings().raised_for(20_000)
    assert between.epochs == 3 and between.lr == pytest.approx(1 / 3)
    assert Settings(lr=2.0).raised_for(100) == Settings(lr=2.0, epochs=100)


def test_learning_rate_and_epochs_of_the_paper_learn_from_few_texts():
    model = Classifier.train(_texts(MATH, 40, 0), _texts(OTHER, 60, 1), dim=32, buckets=300_000)
    assert model.score(_texts(MATH, 20, 2)).min() > 0.9 and model.score(_texts(OTHER, 20, 3)).max() < 0.1


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"lr": float("nan")}, {"epochs": 0}])
def test_settings_that_train_nothing_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Settings(**settings)


def test_texts_come_from_iterators_and_are_gone_through_once(trained):
    again = Classifier.train(iter(_texts(MATH, 150, 0)), iter(_texts(OTHER, 150, 1)), **SETTINGS)
    texts = _texts(MATH, 20, 8) + _texts(OTHER, 20, 9)
    np.testing.assert_array_equal(again.score(iter(texts)), trained.score(texts))


def test_spooled_texts_come_back_as_they_were():
    with spool(["Ein \ud800 Satz\0 und\n\\frac ", ""], ["安装 a b 12 <b>"], None, ["a.org"]) as texts:
        assert list(texts.lines(np.array([2, 0, 1]))) == ["安 装", "ein satz und \\frac", ""]
        assert texts.is_math_N.tolist() == [True, True, False]
        assert texts.host_N.tolist() == [-1, -1, 0] and texts.hosts == ["a.org"]


def test_a_host_gives_a_random_choice_of_its_texts_and_no_more():
    hosts = ["a.org"] * 50 + ["b.org"] * 3 + [""] * 10
    with spool(["x"] * len(hosts), ["y"] * 20, hosts, ["a.org"] * 20) as texts:
        chosen = texts.choose(8, seed=0)
        counts = np.bincount(texts.host_N[chosen] + 1)
        assert counts.tolist() == [10, 8, 3]
        np.testing.assert_array_equal(chosen, texts.choose(8, seed=0))
        assert chosen.tolist() != texts.choose(8, seed=1).tolist()
        np.testing.assert_array_equal(texts.choose(0, seed=0), np.arange(83))


def test_limit_of_a_host_reaches_the_model():
    hosts = {"positive_hosts": ["a.org"] * 100 + ["b.org"] * 2, "negative_hosts": [""] * 20}
    positives = _texts(MATH, 100, 0) + ["zeppelin zeppelin"] * 2
    models = [
        Classifier.train(positives, _texts(OTHER, 20, 1), **hosts, max_per_host=limit, **SETTINGS) for limit in (0, 2)
    ]
    free, limited = (model.score(["zeppelin zeppelin"])[0] for model in models)
    assert limited > free


def test_full_disk_names_the_folder_and_the_remedy(monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TrainingTexts, "write", fill)
    with pytest.raises(InputError, match=r"no space left in .*; set TMPDIR"):
        Classifier.train(_texts(MATH, 3, 0), _texts(OTHER, 3, 0), **SETTINGS)


def test_nothing_is_left_in_the_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match="0 negatives"):
        Classifier.train(_texts(MATH, 3, 0), [], **SETTINGS)
    Classifier.train(_texts(MATH, 30, 0), _texts(OTHER, 30, 0), **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_training_that_diverges_is_refused():
    with pytest.raises(InputError, match=r"failed at a learning rate of 1e\+20: .*Lower config\.classifier\.lr"):
        Classifier.train(_texts(MATH, 30, 0), _texts(OTHER, 30, 0), **{**SETTINGS, "lr": 1e20})


def test_one_side_alone_is_refused():
    with pytest.raises(InputError, match="0 positives and 3 negatives"):
        Classifier.train([], _texts(OTHER, 3, 0), **SETTINGS)


def test_model_that_fasttext_would_not_initialise_is_refused():
    with pytest.raises(InputError, match="buckets=1000 above"):
        Classifier.train(_texts(MATH, 3, 0), _texts(OTHER, 3, 0), **{**SETTINGS, "buckets": 1000})


@pytest.mark.parametrize("size", [0, 3, 8, 60, 92, 120, 200, -4, -1])
def test_cut_model_is_refused(trained, tmp_path, size):
    whole, path = tmp_path / "whole.bin", tmp_path / "classifier-1.bin"
    trained.save(whole)
    path.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(InputError, match=r"classifier-1\.bin: not a whole fastText model"):
        Classifier.load(path)


@pytest.mark.parametrize("content", [b"nothing", bytes(500), struct.pack("<2i", 793712314, 12) + b"\xff" * 500])
def test_file_that_is_no_model_is_named(tmp_path, content):
    path = tmp_path / "classifier-1.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"classifier-1\.bin"):
        Classifier.load(path)
    for absent in (tmp_path / "absent.bin", tmp_path):
        with pytest.raises(InputError, match="no such classifier file"):
            Classifier.load(absent)


def test_model_of_other_labels_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("__label__ham theorem\n__label__spam server\n" * 20)
    fasttext.train_supervised(
        str(tmp_path / "train.txt"), dim=16, wordNgrams=2, bucket=600_000, thread=1, verbose=0
    ).save_model(str(tmp_path / "other.bin"))
    with pytest.raises(InputError, match=r"its labels are .*ham"):
        Classifier.load(tmp_path / "other.bin")
