"""The page classifier: learning, folding, saving, fastText's traps."""

import random
import struct

import fasttext
import numpy as np
import pytest

from dsmath.runs.errors import InputError
from dsmath.web import classifier
from dsmath.web.classifier import Classifier

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
        unfolded["score"] = classifier._score_lines(model, [classifier._line(text) for text in texts])
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


@pytest.mark.parametrize("text", ["", "\n\n", "zzz qqq", "</s> theorem", "__label__other theorem", "a\0b", "\ud800"])
def test_any_text_scores_within_zero_and_one(trained, text):
    score = trained.score([text, text])
    assert score.shape == (2,) and score.dtype == np.float32
    assert score[0] == score[1] and 0 <= score[0] <= 1


def test_marks_of_fasttext_in_a_text_change_nothing(trained):
    plain, marked = trained.score(["theorem proof integral", "theorem </s> proof integral"])
    assert plain == marked


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
    with pytest.raises(InputError, match="no such classifier"):
        Classifier.load(tmp_path / "absent.bin")
