"""How good the classifier is on hosts that it has not seen, and its calibration there.

A random split of pages would flatter: pages of one site share their words, and a model that knows the site passes.
Whole registered domains are held out, in turn; what the models of the folds say of them is scored, and two numbers that
are fitted to it make the final model's score a probability on new hosts.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from dsmath.runs.errors import InputError
from dsmath.web.classifier import Classifier, Settings, TrainingTexts, spool
from dsmath.web.domains import registered_domain

THRESHOLD = 0.5
# Pages of one domain err together, so a few domains say little: the calibration is drawn to none at all with the weight
# of four domains. Fitted on half of 36 domains it changed nothing on the other half (F1 0.84, log loss 0.34); without
# the weight it did harm (F1 down by 0.01, log loss 0.35). It is for trainings on many domains.
_PRIOR_DOMAINS = 4
_MIN_PROBABILITY = 1e-6


def train_validated(
    positives: Iterable[str],
    negatives: Iterable[str],
    *,
    positive_hosts: Iterable[str] | None = None,
    negative_hosts: Iterable[str] | None = None,
    folds: int = 3,
    max_per_host: int = 0,
    **settings: Any,
) -> tuple[Classifier, dict[str, Any]]:
    """Trains on all texts; validates and calibrates by models that miss a fold of the domains each.

    Costs `folds` times the training: one on everything, and folds on (folds - 1) / folds of it.

    Args:
      positives, negatives: texts of mathematics and others; each is gone through once.
      positive_hosts, negative_hosts: beside each text its host, "" where nobody knows; None: no host is known. Texts
        without a host are in every training and in no test.
      folds: parts of the domains; 0 trains only.
      max_per_host: most texts of a host; 0: any number.
      **settings: fields of `classifier.Settings`.
    Returns:
      the classifier, and figures for the report: counts of what it was trained on, and `validate`'s.
    Raises:
      InputError: as `Classifier.train`.
    """
    check_folds(folds)
    chosen = Settings(**settings)
    with spool(positives, negatives, positive_hosts, negative_hosts) as texts:
        rows = texts.choose(max_per_host, chosen.seed)
        model = Classifier.fit(texts, rows, chosen)
        host_N = texts.host_N[rows]
        figures = {
            "pages": len(rows),
            "positives": int(texts.is_math_N[rows].sum()),
            "negatives": int((~texts.is_math_N[rows]).sum()),
            "hosts": len(np.unique(host_N[host_N >= 0])),
            "without_host": int((host_N < 0).sum()),
            "lr": chosen.raised_for(len(rows)).lr,
            "epochs": chosen.raised_for(len(rows)).epochs,
        }
        if not folds:
            return model, {**figures, "skipped": "folds=0"}
        figures |= validate(texts, rows, chosen, folds)
    if "calibration" in figures:
        model.calibrate(figures["calibration"]["factor"], figures["calibration"]["shift"])
    return model, figures


def check_folds(folds: int) -> None:
    """Refuses a number of folds that holds nothing out.

    Raises:
      InputError: below 0, or 1.
    """
    if folds < 0 or folds == 1:
        raise InputError(f"config.validation_folds={folds}: give 0 for no validation, or at least 2")


def validate(texts: TrainingTexts, rows: np.ndarray, settings: Settings, folds: int) -> dict[str, Any]:
    """Figures of models on the domains that they miss; the scores of all folds are pooled.

    Returns:
      {"folds", "domains", "tested", "threshold", "precision", "recall", "f1", "auc", "calibration": {"factor",
      "shift"}}, at the calibrated score; or {"skipped": why}, where too few domains are known.
    """
    is_math_N = texts.is_math_N[rows]
    domain_N = _domains(texts, rows)
    fold_N = split_domains(domain_N, is_math_N, folds)
    for label, name in ((True, "positives"), (False, "negatives")):
        parts = len(np.unique(fold_N[(is_math_N == label) & (domain_N >= 0)]))
        if parts < 2:
            known = (
                f"the {name} come from too few domains to hold some out" if parts else f"no host of the {name} is known"
            )
            return {"skipped": f"{known}; a random split of pages would flatter"}
    logit_N = np.full(len(rows), np.nan)
    for fold in np.unique(fold_N[fold_N >= 0]):
        model = Classifier.fit(texts, rows[fold_N != fold], settings)
        logit_N[fold_N == fold] = _logit(model.score_lines(texts.lines(rows[fold_N == fold])))
    tested_N = fold_N >= 0
    logit_N, is_math_N = logit_N[tested_N], is_math_N[tested_N]
    num_domains = len(np.unique(domain_N[tested_N]))
    factor, shift = fit_calibration(logit_N, is_math_N, num_domains)
    return {
        "folds": len(np.unique(fold_N[tested_N])),
        "domains": num_domains,
        "tested": len(is_math_N),
        "threshold": THRESHOLD,
        **measure(special.expit(factor * logit_N + shift), is_math_N),
        "calibration": {"factor": factor, "shift": shift},
    }


def split_domains(domain_N: np.ndarray, is_math_N: np.ndarray, folds: int) -> np.ndarray:
    """Shares domains out so that each fold gets about as many pages of either label.

    The largest come first, each to the fold that holds the least of what the domain brings.

    Args:
      domain_N: int [N], each page's domain; below 0: none.
      is_math_N: bool [N].
      folds: number of folds; some stay empty where there are fewer domains.
    Returns:
      int [N]: each page's fold, -1 where it has no domain.
    """
    fold_N = np.full(len(domain_N), -1)
    known_N = domain_N >= 0
    name_D, place_N = np.unique(domain_N[known_N], return_inverse=True)
    pages_D2 = np.stack(
        [np.bincount(place_N[is_math_N[known_N] == label], minlength=len(name_D)) for label in (0, 1)], 1
    )
    share_D2 = pages_D2 / np.maximum(pages_D2.sum(0), 1)
    load_F2, fold_D = np.zeros((folds, 2)), np.zeros(len(name_D), dtype=int)
    for domain in np.argsort(-share_D2.sum(1), kind="stable").tolist():
        fold_D[domain] = np.argmin(load_F2 @ share_D2[domain])
        load_F2[fold_D[domain]] += share_D2[domain]
    fold_N[known_N] = fold_D[place_N]
    return fold_N


def fit_calibration(logit_N: np.ndarray, is_math_N: np.ndarray, num_domains: int) -> tuple[float, float]:
    """Platt's scaling, P(math) = sigmoid(factor · logit + shift), either label weighing one half.

    Args:
      logit_N: of pages whose domain the model has not seen.
      is_math_N: bool [N]; both labels occur.
      num_domains: that the pages come from; the fewer, the nearer to factor 1, shift 0.
    Returns:
      factor, above 0, so that no order changes, and shift.
    Source: Platt 1999.
    """
    weight_N = 0.5 / np.where(is_math_N, is_math_N.sum(), (~is_math_N).sum())
    penalty = _PRIOR_DOMAINS / num_domains

    def loss(parameters: np.ndarray) -> float:
        log_factor, shift = parameters
        calibrated_N = np.exp(log_factor) * logit_N + shift
        return (weight_N * np.logaddexp(0, np.where(is_math_N, -calibrated_N, calibrated_N))).sum() + penalty * (
            log_factor**2 + shift**2
        )

    log_factor, shift = optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-3, 3), (-10, 10)]).x
    return float(np.exp(log_factor)), float(shift)


def measure(score_N: np.ndarray, is_math_N: np.ndarray, threshold: float = THRESHOLD) -> dict[str, float | None]:
    """Precision, recall and F1 of the pages from a score on, and the area under the ROC curve.

    The area is the chance that a page of mathematics scores above another page, ties counting one half; None where
    one label is absent.
    """
    found_N = score_N >= threshold
    num_right, num_found, num_math = int((found_N & is_math_N).sum()), int(found_N.sum()), int(is_math_N.sum())
    num_pairs = num_math * (len(is_math_N) - num_math)
    rank_sum = stats.rankdata(score_N)[is_math_N].sum()
    return {
        "precision": num_right / max(num_found, 1),
        "recall": num_right / max(num_math, 1),
        "f1": 2 * num_right / max(num_found + num_math, 1),
        "auc": float(rank_sum - num_math * (num_math + 1) / 2) / num_pairs if num_pairs else None,
    }


def _domains(texts: TrainingTexts, rows: np.ndarray) -> np.ndarray:
    """int [rows]: the number of each text's registered domain; -1 where its host is unknown."""
    numbers: dict[str, int] = {}
    domain_H = [numbers.setdefault(registered_domain(host), len(numbers)) for host in texts.hosts]
    return np.array([*domain_H, -1])[texts.host_N[rows]]


def _logit(score_N: np.ndarray) -> np.ndarray:
    return special.logit(np.clip(score_N.astype(np.float64), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY))
