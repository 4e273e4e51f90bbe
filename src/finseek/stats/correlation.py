"""Information coefficients and their errors under overlap.

S sessions   N tickers   L lag of the Newey-West window
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finseek.core.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its Newey-West standard error; ``None`` where it is undefined.

    Attributes:
        mean: of the finite values.
        standard_error: sqrt(long-run variance / n).
        t: mean / standard error.
        p_value: two-sided, normal.
        n: finite values.
        lag: L.
    """

    mean: float | None
    standard_error: float | None
    t: float | None
    p_value: float | None
    n: int
    lag: int


def newey_west(series: ArrayLike, lag: int) -> MeanEstimate:
    """Mean of a serially dependent series (Newey & West 1987, Bartlett weights 1 - k/(L + 1)).

    Args:
        series: (S,), NaN where there is no value; the rest is taken as consecutive.
        lag: L; for overlapping returns over H sessions at least H - 1.
    """
    if lag < 0:
        raise InputError(f"lag {lag} must be at least 0")
    x = np.asarray(series, dtype=np.float64)
    x = x[np.isfinite(x)]
    n = len(x)
    if not n:
        return MeanEstimate(None, None, None, None, 0, lag)
    mean = float(x.mean())
    d = x - mean
    variance = float(d @ d) / n
    for k in range(1, min(lag, n - 1) + 1):
        variance += 2 * (1 - k / (lag + 1)) * float(d[k:] @ d[:-k]) / n
    if n < 2 or not variance > 0:
        return MeanEstimate(mean, None, None, None, n, lag)
    error = sqrt(variance / n)
    t = mean / error
    return MeanEstimate(mean, error, t, 2 * NormalDist().cdf(-abs(t)) if isfinite(t) else None, n, lag)


def correlation_by_session(score: ArrayLike, outcome: ArrayLike, *, ranks: bool = True) -> Floats:
    """Correlation across tickers of each session: Spearman's, or Pearson's without ranks.

    Args:
        score: (S, N), NaN where a ticker has none.
        outcome: (S, N), likewise; a ticker enters a session only with both.
        ranks: equal values share their mean rank.

    Returns:
        (S,), NaN where fewer than two tickers remain or one side is constant.
    """
    a, b = np.asarray(score, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise InputError(f"score {a.shape} and outcome {b.shape} must have the same shape (sessions, tickers)")
    both = np.isfinite(a) & np.isfinite(b)
    result = np.full(len(a), np.nan)
    for s in np.flatnonzero(both.sum(axis=1) > 1):
        x, y = a[s, both[s]], b[s, both[s]]
        if ranks:
            x, y = mean_ranks(x), mean_ranks(y)
        x, y = x - x.mean(), y - y.mean()
        spread = sqrt(float(x @ x) * float(y @ y))
        if np.ptp(x) > 0 and np.ptp(y) > 0 and spread > 0:
            result[s] = float(x @ y) / spread
    return result


def mean_ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Floats = (last - (count - 1) / 2)[place]
    return ranks
