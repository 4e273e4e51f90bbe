"""Whether the probabilities of the actions mean what they say.

Over the rows with five probabilities: Brier score = mean of sum_k (p_k - [action is k])² (0 best, 2 worst); log loss =
mean of -ln p(true action), p not below 1e-15. Over these and the rows with a confidence alone: expected calibration
error = sum over bins of the highest probability (equal width) of share x |mean probability - accuracy| (Guo et al.
2017), biased upwards by noise in small bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action
from finseek.evaluate.records import Prediction
from finseek.stats import bootstrap_interval, mean_of

Floats = NDArray[np.float64]
BINS = 10


def calibration_metrics(
    rows: Sequence[Prediction], session: NDArray[np.int64], counts: Floats, level: float
) -> dict[str, Any] | None:
    """The calibration part of metrics.json; None where no row has probabilities or a confidence."""
    sure = np.array([_confidence(row) for row in rows])
    known = np.flatnonzero(np.isfinite(sure))
    if not len(known):
        return None
    whole = np.array([i for i in known.tolist() if rows[i].p is not None], dtype=np.int64)
    where, n_sessions, top = session[known], counts.shape[1], sure[known]
    hit = np.array([float(_surest(rows[i]) == rows[i].gt_action) for i in known.tolist()])
    bins = np.minimum((top * BINS).astype(int), BINS - 1)

    def sums(values: Floats, at: NDArray[np.int64], groups: int = 1, group: NDArray[np.int64] | None = None) -> Floats:
        flat = at * groups + (0 if group is None else group)
        total: Floats = np.bincount(flat, weights=values, minlength=n_sessions * groups).astype(np.float64)
        return total.reshape(n_sessions, groups)

    ones = np.ones_like(top)
    parts = [sums(values, where, BINS, bins) for values in (ones, top, hit)]
    bin_sums = np.concatenate(parts, axis=1)

    def mean(values: Floats, at: NDArray[np.int64]) -> dict[str, float | None]:
        each = np.hstack([sums(values, at), sums(np.ones_like(values), at)])
        return bootstrap_interval(each, mean_of, counts, level).to_json()

    brier, log_loss = _proper_scores([rows[i] for i in whole.tolist()])
    n, confidence, right = bin_sums.sum(0).reshape(3, BINS)
    return {
        "rows": len(known),
        "rows_with_five_probabilities": len(whole),
        "brier": mean(brier, session[whole]),
        "log_loss": mean(log_loss, session[whole]),
        "expected_calibration_error": bootstrap_interval(bin_sums, calibration_error, counts, level).to_json(),
        "mean_confidence": mean(top, where),
        "reliability": [
            {
                "from": b / BINS,
                "to": (b + 1) / BINS,
                "rows": int(n[b]),
                "confidence": confidence[b] / n[b] if n[b] else None,
                "accuracy": right[b] / n[b] if n[b] else None,
            }
            for b in range(BINS)
        ],
    }


def _surest(row: Prediction) -> Action | None:
    """The most probable action where there are five probabilities, the answer where there is one confidence."""
    return max(row.p, key=row.p.__getitem__) if row.p else row.pred_action


def _confidence(row: Prediction) -> float:
    """Probability of that action; NaN where it is unknown."""
    return max(row.p.values()) if row.p else np.nan if row.confidence is None else row.confidence


def _proper_scores(rows: Sequence[Prediction]) -> tuple[Floats, Floats]:
    """Brier score and log loss of rows with five probabilities, (n,) each."""
    p = np.array([[row.p[action] for action in ACTIONS] for row in rows if row.p]).reshape(-1, len(ACTIONS))
    truth = np.array([ACTIONS.index(row.gt_action) for row in rows], dtype=np.int64)
    brier: Floats = ((p - np.eye(len(ACTIONS))[truth]) ** 2).sum(1)
    return brier, -np.log(np.maximum(p[np.arange(len(p)), truth], 1e-15))


def calibration_error(totals: Floats) -> Floats:
    """Expected calibration error from totals (..., 3 BINS): rows, summed confidence and hits of each bin."""
    n, confidence, right = np.split(totals, 3, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error: Floats = np.abs(confidence - right).sum(-1) / n.sum(-1)
    return error
