"""Whether the probabilities of the actions mean what they say.

Over the rows with probabilities: Brier score = mean of sum_k (p_k - [action is k])² (0 best, 2 worst); log loss =
mean of -ln p(true action), p not below 1e-15; expected calibration error = sum over bins of the highest probability
(equal width) of share x |mean probability - accuracy| (Guo et al. 2017), biased upwards by noise in small bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS
from finseek.evaluate.classification import as_json
from finseek.evaluate.records import Prediction
from finseek.stats import bootstrap_interval, mean_of

Floats = NDArray[np.float64]
BINS = 10


def calibration_metrics(
    rows: Sequence[Prediction], session: NDArray[np.int64], counts: Floats, level: float
) -> dict[str, Any] | None:
    """The calibration part of metrics.json; None where no row has probabilities."""
    known = [i for i, row in enumerate(rows) if row.p is not None]
    if not known:
        return None
    p = np.array([[rows[i].p[action] for action in ACTIONS] for i in known])  # type: ignore[index]
    truth = np.array([ACTIONS.index(rows[i].gt_action) for i in known])
    where, n_sessions = session[known], counts.shape[1]
    hit = (p.argmax(1) == truth).astype(float)
    top = p.max(1)
    brier = ((p - np.eye(len(ACTIONS))[truth]) ** 2).sum(1)
    log_loss = -np.log(np.maximum(p[np.arange(len(p)), truth], 1e-15))
    bins = np.minimum((top * BINS).astype(int), BINS - 1)

    def sums(values: Floats, groups: int = 1, group: NDArray[np.int64] | None = None) -> Floats:
        flat = where * groups + (0 if group is None else group)
        total: Floats = np.bincount(flat, weights=values, minlength=n_sessions * groups).astype(np.float64)
        return total.reshape(n_sessions, groups)

    ones = np.ones_like(top)
    bin_sums = np.concatenate([sums(ones, BINS, bins), sums(top, BINS, bins), sums(hit, BINS, bins)], axis=1)

    def mean(values: Floats) -> dict[str, float | None]:
        return as_json(bootstrap_interval(np.hstack([sums(values), sums(ones)]), mean_of, counts, level))

    n, confidence, right = bin_sums.sum(0).reshape(3, BINS)
    return {
        "rows": len(known),
        "brier": mean(brier),
        "log_loss": mean(log_loss),
        "expected_calibration_error": as_json(bootstrap_interval(bin_sums, calibration_error, counts, level)),
        "mean_confidence": mean(top),
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


def calibration_error(totals: Floats) -> Floats:
    """Expected calibration error from totals (..., 3 BINS): rows, summed confidence and hits of each bin."""
    n, confidence, right = np.split(totals, 3, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error: Floats = np.abs(confidence - right).sum(-1) / n.sum(-1)
    return error
