"""Scores of labels, as functions of a confusion matrix, so that one product resamples them all.

C = 5 actions. Cells (..., C, C + 1): true action by predicted action; the last column counts the
unscored answers. Over all rows an unscored answer is a wrong one; over the scored rows it is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS
from finseek.stats import interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
C = len(ACTIONS)


def session_cells(truth: Ints, predicted: Ints, session: Ints, n_sessions: int) -> Floats:
    """Confusion cells of each session: (S, C * (C + 1)); ``predicted`` is -1 where unscored."""
    column = np.where(predicted < 0, C, predicted)
    flat = (session * C + truth) * (C + 1) + column
    return np.bincount(flat, minlength=n_sessions * C * (C + 1)).reshape(n_sessions, -1).astype(np.float64)


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _mean_where(values: Floats, use: NDArray[np.bool_]) -> Floats:
    return _ratio(np.where(use, np.nan_to_num(values), 0).sum(-1), use.sum(-1).astype(np.float64))


def accuracy(cells: Floats) -> Floats:
    """Share of rows whose action is right."""
    return _ratio(np.trace(cells[..., :C], axis1=-2, axis2=-1), cells.sum((-2, -1)))


def coverage(cells: Floats) -> Floats:
    """Share of rows that were scored."""
    return _ratio(cells[..., :C].sum((-2, -1)), cells.sum((-2, -1)))


def precision(cells: Floats) -> Floats:
    """(..., C): of the rows answered with a class, the share that is right; 0 for a true class never answered."""
    hits, answered, support = _margins(cells)
    return np.where((answered == 0) & (support > 0), 0, _ratio(hits, answered))


def recall(cells: Floats) -> Floats:
    """(..., C): of the rows of a class, the share answered right; 0 for an answered class without rows."""
    hits, answered, support = _margins(cells)
    return np.where((support == 0) & (answered > 0), 0, _ratio(hits, support))


def f1(cells: Floats) -> Floats:
    """(..., C): 2 hits / (answered + support); NaN for a class that is neither true nor answered."""
    hits, answered, support = _margins(cells)
    return _ratio(2 * hits, answered + support)


def _margins(cells: Floats) -> tuple[Floats, Floats, Floats]:
    hits = np.diagonal(cells[..., :C], axis1=-2, axis2=-1)
    return hits, cells[..., :C].sum(-2), cells.sum(-1)


def _macro(score: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    def averaged(cells: Floats) -> Floats:
        _, answered, support = _margins(cells)
        return _mean_where(score(cells), answered + support > 0)

    return averaged


def _weighted(score: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    def averaged(cells: Floats) -> Floats:
        support = cells.sum(-1)
        return _ratio((np.nan_to_num(score(cells)) * support).sum(-1), support.sum(-1))

    return averaged


macro_precision, macro_recall, macro_f1 = _macro(precision), _macro(recall), _macro(f1)


def balanced_accuracy(cells: Floats) -> Floats:
    """Mean recall over the classes that have rows."""
    return _mean_where(recall(cells), cells.sum(-1) > 0)


def matthews(cells: Floats) -> Floats:
    """Multi-class Matthews correlation (Gorodkin 2004); an unscored answer is a sixth answer, never true."""
    n = cells.sum((-2, -1))
    hits = np.trace(cells[..., :C], axis1=-2, axis2=-1)
    truth, answered = cells.sum(-1), cells.sum(-2)
    covariance = hits * n - (truth * answered[..., :C]).sum(-1)
    spread = (n**2 - (truth**2).sum(-1)) * (n**2 - (answered**2).sum(-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def quadratic_kappa(cells: Floats) -> Floats:
    """Cohen's kappa over the scored rows, disagreement weighted by the squared distance of the ranks."""
    scored = cells[..., :C]
    n = scored.sum((-2, -1))
    distance = np.subtract.outer(np.arange(C), np.arange(C)) ** 2
    expected = scored.sum(-1)[..., :, None] * scored.sum(-2)[..., None, :]
    return 1 - _ratio((distance * scored).sum((-2, -1)) * n, (distance * expected).sum((-2, -1)))


SUMMARIES: dict[str, Callable[[Floats], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_precision": macro_precision,
    "macro_recall": macro_recall,
    "macro_f1": macro_f1,
    "weighted_precision": _weighted(precision),
    "weighted_recall": _weighted(recall),
    "weighted_f1": _weighted(f1),
    "mcc": matthews,
    "quadratic_kappa": quadratic_kappa,
}
BY_CLASS = {"precision": precision, "recall": recall, "f1": f1}


def shape_cells(flat: Floats) -> Floats:
    """Cells (..., C, C + 1) of totals (..., C * (C + 1))."""
    return flat.reshape(*flat.shape[:-1], C, C + 1)


def only_scored(cells: Floats) -> Floats:
    """The same cells without the unscored answers."""
    kept = cells.copy()
    kept[..., C] = 0
    return kept


def classification_metrics(flat: Floats, counts: Floats, level: float) -> dict[str, Any]:
    """The classification part of metrics.json.

    Args:
        flat: (S, C * (C + 1)) from `session_cells`.
        counts: (R, S) how often each resample drew each session.
        level: nominal coverage of the intervals.
    """
    sample, draws = shape_cells(flat.sum(0)), shape_cells(counts @ flat)

    def summaries(cells: Floats, resampled: Floats) -> dict[str, Any]:
        return {
            name: interval(float(score(cells)), score(resampled), level).to_json() for name, score in SUMMARIES.items()
        }

    by_class: dict[str, Any] = {
        action: {"support": int(sample[c].sum()), "answered": int(sample[:, c].sum())}
        for c, action in enumerate(ACTIONS)
    }
    for name, score in BY_CLASS.items():
        values, resampled = score(sample), score(draws)
        for c, action in enumerate(ACTIONS):
            by_class[action][name] = interval(float(values[c]), resampled[:, c], level).to_json()
    return {
        "coverage": interval(float(coverage(sample)), coverage(draws), level).to_json(),
        "all": summaries(sample, draws),
        "scored": summaries(only_scored(sample), only_scored(draws)),
        "by_class": by_class,
        "confusion": {
            "truth": [*ACTIONS],
            "answer": [*ACTIONS, "UNSCORED"],
            "counts": sample.astype(int).tolist(),
        },
    }
