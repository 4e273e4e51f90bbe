from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from finseek.core.actions import ACTIONS
from finseek.evaluate import classification as ours
from finseek.stats import resample_counts, stationary_bootstrap

LABELS = [*range(5)]


def rows(seed: int, n: int = 300, unscored: float = 0.0, classes: int = 5):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    predicted = np.where(rng.random(n) < 0.5, truth, rng.integers(0, classes, n))
    predicted = np.where(rng.random(n) < unscored, -1, predicted)
    return truth, predicted, rng.integers(0, 40, n)


def cells_of(truth, predicted):
    return ours.shape_cells(ours.session_cells(truth, predicted, np.zeros(len(truth), dtype=int), 1)[0])


@pytest.mark.parametrize("classes", [2, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_scored_rows_agree_with_scikit_learn(seed, classes):
    truth, predicted, _ = rows(seed, classes=classes)
    cells = cells_of(truth, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p, r, f, _ = sk.precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)
        wp, wr, wf, _ = sk.precision_recall_fscore_support(truth, predicted, average="weighted", zero_division=0)
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "macro_precision": p,
        "macro_recall": r,
        "macro_f1": f,
        "weighted_precision": wp,
        "weighted_recall": wr,
        "weighted_f1": wf,
        "mcc": sk.matthews_corrcoef(truth, predicted),
        "quadratic_kappa": sk.cohen_kappa_score(truth, predicted, labels=LABELS, weights="quadratic"),
    }
    assert {name: float(score(cells)) for name, score in ours.SUMMARIES.items()} == pytest.approx(expected, abs=1e-12)


def test_by_class_agrees_with_scikit_learn():
    truth, predicted, _ = rows(9)
    cells = cells_of(truth, predicted)
    p, r, f, _ = sk.precision_recall_fscore_support(truth, predicted, labels=LABELS)
    np.testing.assert_allclose([ours.precision(cells), ours.recall(cells), ours.f1(cells)], [p, r, f], atol=1e-12)


def test_an_unscored_answer_is_wrong_over_all_rows_and_absent_over_the_scored():
    truth, predicted, _ = rows(3, unscored=0.3)
    cells = cells_of(truth, predicted)
    answered = predicted >= 0
    assert float(ours.accuracy(cells)) == pytest.approx(sk.accuracy_score(truth, predicted))
    assert float(ours.matthews(cells)) == pytest.approx(sk.matthews_corrcoef(truth, predicted))
    assert float(ours.accuracy(ours.only_scored(cells))) == pytest.approx(
        sk.accuracy_score(truth[answered], predicted[answered])
    )
    assert float(ours.coverage(cells)) == pytest.approx(answered.mean())
    recall = sk.recall_score(truth, predicted, labels=LABELS, average=None)
    np.testing.assert_allclose(ours.recall(cells), recall, atol=1e-12)


def test_nothing_scored_gives_null_not_a_number():
    cells = ours.session_cells(np.array([0, 1]), np.array([-1, -1]), np.array([0, 1]), 2)
    found = ours.classification_metrics(cells, np.ones((100, 2)), 0.95)
    assert found["all"]["accuracy"]["value"] == 0
    assert found["scored"]["accuracy"] == {"value": None, "low": None, "high": None}
    assert found["scored"]["quadratic_kappa"]["value"] is None
    assert found["coverage"]["value"] == 0


def test_intervals_equal_those_of_resampled_rows():
    truth, predicted, session = rows(5, unscored=0.1)
    indices = stationary_bootstrap(40, 4, 200, np.random.default_rng(0))
    cells = ours.session_cells(truth, predicted, session, 40)
    found = ours.classification_metrics(cells, resample_counts(indices), 0.9)
    draws = []
    for chosen in indices:
        picked = np.concatenate([np.flatnonzero(session == s) for s in chosen])
        draws.append(sk.f1_score(truth[picked], predicted[picked], labels=LABELS, average="macro"))
    assert [found["all"]["macro_f1"]["low"], found["all"]["macro_f1"]["high"]] == pytest.approx(
        np.quantile(draws, [0.05, 0.95])
    )


def test_confusion_counts_every_row():
    truth, predicted, session = rows(6, unscored=0.2)
    found = ours.classification_metrics(ours.session_cells(truth, predicted, session, 40), np.ones((100, 40)), 0.95)
    assert np.sum(found["confusion"]["counts"]) == len(truth)
    assert sum(row[-1] for row in found["confusion"]["counts"]) == (predicted < 0).sum()
    assert [found["by_class"][a]["support"] for a in ACTIONS] == np.bincount(truth, minlength=5).tolist()
