"""Validation of the classifier on unseen hosts: folds, figures, calibration, what is skipped."""

import json
import random

import numpy as np
import pytest

from dsmath.runs.errors import InputError
from dsmath.web import validation
from dsmath.web.classifier import Classifier
from dsmath.web.validation import fit_calibration, measure, split_domains, train_validated

MATH = ["theorem", "proof", "lemma", "integral", "matrix", "prime", "group", "\\frac", "\\int"]
OTHER = ["server", "install", "package", "user", "file", "music", "window", "button"]
SHARED = ["the", "and", "of", "in", "with", "for", "page", "which"]
SETTINGS = {"dim": 8, "lr": 0.5, "word_ngrams": 2, "min_count": 1, "epochs": 3, "buckets": 1_100_000}


def _site(words: list[str], host: str, count: int) -> list[tuple[str, str]]:
    """Pages of a host, a third of whose words no other host uses."""
    rng = random.Random(host)
    own = [host.split(".")[-2] + ending for ending in ("alpha", "beta", "gamma")]
    return [(" ".join(rng.choices(words + SHARED, k=40) + rng.choices(own, k=20)), host) for _ in range(count)]


def _crawl(math_hosts: list[str], other_hosts: list[str], count: int = 30) -> dict:
    math = [page for host in math_hosts for page in _site(MATH, host, count)]
    other = [page for host in other_hosts for page in _site(OTHER, host, count)]
    positives, positive_hosts = zip(*math, strict=True)
    negatives, negative_hosts = zip(*other, strict=True)
    return {
        "positives": iter(positives),
        "negatives": iter(negatives),
        "positive_hosts": iter(positive_hosts),
        "negative_hosts": iter(negative_hosts),
    }


MATH_HOSTS, OTHER_HOSTS = ["www.aa.org", "bb.org", "cc.org"], ["dd.com", "ee.com", "ff.co.uk", "docs.ff.co.uk"]


def test_figures_are_those_of_hosts_that_were_not_seen_and_fit_a_report():
    model, figures = train_validated(**_crawl(MATH_HOSTS, OTHER_HOSTS), folds=3, **SETTINGS)
    assert json.loads(json.dumps(figures)) == figures
    counts = {
        name: figures[name] for name in ("pages", "positives", "negatives", "hosts", "domains", "tested", "folds")
    }
    assert counts == {
        "pages": 210, "positives": 90, "negatives": 120, "hosts": 7, "domains": 6, "tested": 210, "folds": 3,
    }  # fmt: skip
    assert min(figures["precision"], figures["recall"], figures["f1"]) > 0.8 and figures["auc"] > 0.9
    new, other = (" ".join(words * 3) for words in (MATH, OTHER))
    assert model.score([new])[0] > 0.5 > model.score([other])[0]


def test_no_model_of_a_fold_has_seen_the_domain_that_it_scores(monkeypatch):
    trained_on = []
    fit = Classifier.fit.__func__

    def watch(cls, texts, rows, settings):
        trained_on.append({texts.hosts[host] for host in texts.host_N[rows]})
        return fit(cls, texts, rows, settings)

    monkeypatch.setattr(Classifier, "fit", classmethod(watch))
    train_validated(**_crawl(MATH_HOSTS, OTHER_HOSTS), folds=3, **SETTINGS)
    everything, *folds = trained_on
    assert everything == {*MATH_HOSTS, *OTHER_HOSTS}
    missed = [everything - fold for fold in folds]
    assert len(folds) == 3 and set.union(*missed) == everything and sum(map(len, missed)) == len(everything)
    assert all({"ff.co.uk", "docs.ff.co.uk"} <= hosts or not {"ff.co.uk", "docs.ff.co.uk"} & hosts for hosts in missed)


def test_hosts_give_no_more_than_their_limit():
    crawl = _crawl(MATH_HOSTS, OTHER_HOSTS)
    _, figures = train_validated(**crawl, folds=0, max_per_host=7, **SETTINGS)
    assert figures == {
        "pages": 49, "positives": 21, "negatives": 28, "hosts": 7, "without_host": 0, "lr": 1.0,
        "epochs": 409, "skipped": "folds=0",
    }  # fmt: skip


def test_same_seed_gives_the_same_figures_and_scores():
    runs = [train_validated(**_crawl(MATH_HOSTS, OTHER_HOSTS), folds=2, max_per_host=20, **SETTINGS) for _ in range(2)]
    assert runs[0][1] == runs[1][1]
    np.testing.assert_array_equal(*(model.score(["theorem server page"]) for model, _ in runs))


def test_texts_without_a_host_are_trained_on_and_not_tested():
    crawl = _crawl(MATH_HOSTS, OTHER_HOSTS)
    crawl["positive_hosts"] = ["" if host == "cc.org" else host for host in crawl["positive_hosts"]]
    _, figures = train_validated(**crawl, folds=2, **SETTINGS)
    assert (figures["pages"], figures["tested"], figures["without_host"]) == (210, 180, 30)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positive_hosts": None}, "no host of the positives is known"),
        ({"positive_hosts": None, "negative_hosts": None}, "no host of the positives is known"),
        ({"negative_hosts": None}, "no host of the negatives is known"),
        ({"positive_hosts": ["a.bb.org"] * 45 + ["c.bb.org"] * 45}, "the positives come from too few domains"),
    ],
)
def test_too_few_hosts_skip_the_validation_and_say_why(changes, reason):
    model, figures = train_validated(**_crawl(MATH_HOSTS, OTHER_HOSTS) | changes, folds=3, **SETTINGS)
    assert figures["skipped"].startswith(reason) and "f1" not in figures
    assert model.score([" ".join(MATH)])[0] > 0.5


@pytest.mark.parametrize("folds", [-1, 1])
def test_one_fold_is_refused(folds):
    with pytest.raises(InputError, match=f"validation_folds={folds}"):
        train_validated(["a"], ["b"], folds=folds)


def test_hosts_must_stand_beside_all_texts():
    with pytest.raises(ValueError, match="shorter"):
        train_validated(["theorem", "proof"], ["server"], positive_hosts=["aa.org"], folds=0, **SETTINGS)


def test_folds_hold_whole_domains_and_balance_both_labels():
    rng = np.random.default_rng(0)
    domain_N = rng.integers(0, 200, 6000)
    is_math_N = rng.random(6000) < (domain_N % 4 == 0)
    fold_N = split_domains(domain_N, is_math_N, 4)
    assert all(len(np.unique(fold_N[domain_N == domain])) == 1 for domain in range(200))
    for label in (True, False):
        counts = np.bincount(fold_N[is_math_N == label], minlength=4)
        assert counts.min() > 0.9 * counts.max()


def test_one_large_domain_leaves_the_others_to_the_other_folds():
    domain_N = np.repeat(np.arange(5), [100, 10, 10, 10, 10])
    fold_N = split_domains(domain_N, np.ones(140, dtype=bool), 3)
    assert (fold_N[domain_N != 0] != fold_N[0]).all()


def test_pages_without_a_domain_are_in_no_fold():
    fold_N = split_domains(np.array([-1, 0, 1, -1]), np.array([True, True, False, False]), 2)
    assert (fold_N < 0).tolist() == [True, False, False, True]


def test_measure_agrees_with_counting():
    rng = np.random.default_rng(1)
    is_math_N = rng.random(60) < 0.4
    score_N = np.round(rng.random(60) * 0.6 + 0.3 * is_math_N, 1)
    math, other = score_N[is_math_N], score_N[~is_math_N]
    wins = (math[:, None] > other).sum() + 0.5 * (math[:, None] == other).sum()
    right, found = (math >= 0.5).sum(), (score_N >= 0.5).sum()
    figures = measure(score_N, is_math_N)
    assert figures["auc"] == pytest.approx(wins / (len(math) * len(other)))
    assert figures["precision"] == pytest.approx(right / found)
    assert figures["recall"] == pytest.approx(right / len(math))
    assert figures["f1"] == pytest.approx(2 * right / (found + len(math)))


def test_measure_of_nothing_found_and_of_one_label():
    assert measure(np.array([0.1, 0.2]), np.array([True, False]))["f1"] == 0
    assert measure(np.array([0.1, 0.2]), np.array([True, True]))["auc"] is None


def test_calibration_finds_the_true_scale_where_many_domains_speak():
    rng = np.random.default_rng(2)
    true_N = rng.normal(0, 2, 40_000)
    is_math_N = rng.random(40_000) < 1 / (1 + np.exp(-true_N))
    factor, shift = fit_calibration((true_N - 1.5) / 2, is_math_N, num_domains=1_000_000)
    assert factor == pytest.approx(2, rel=0.05) and shift == pytest.approx(1.5, abs=0.1)


def test_calibration_by_few_domains_stays_near_none():
    logit_N, is_math_N = np.repeat([-3.0, -2.0], 50), np.repeat([False, True], 50)
    few, many = (fit_calibration(logit_N, is_math_N, number) for number in (2, 2_000))
    assert 0 < few[1] < many[1] and 0 < few[0] < many[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_calibration_keeps_the_order_and_stays_finite(sign):
    """Even where the folds tell the labels apart wholly, or the wrong way round."""
    logit_N, is_math_N = sign * np.repeat([-8.0, 8.0], 50), np.repeat([False, True], 50)
    factor, shift = fit_calibration(logit_N, is_math_N, num_domains=1_000_000)
    assert 0.01 < factor < 100 and abs(shift) < 100


def test_the_calibration_is_in_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "fit_calibration", lambda *_: (1.0, 0.0))
    plain, _ = train_validated(**_crawl(MATH_HOSTS, OTHER_HOSTS), folds=2, **SETTINGS)
    monkeypatch.setattr(validation, "fit_calibration", lambda *_: (0.5, -1.0))
    moved, _ = train_validated(**_crawl(MATH_HOSTS, OTHER_HOSTS), folds=2, **SETTINGS)
    moved.save(tmp_path / "moved.bin")
    texts = ["theorem server", "", "zzz unknown words", "the and of matrix"]
    logit = np.log(plain.score(texts) / (1 - plain.score(texts)))
    expected = 1 / (1 + np.exp(-(0.5 * logit - 1.0)))
    np.testing.assert_allclose(Classifier.load(tmp_path / "moved.bin").score(texts), expected, atol=1e-3)
