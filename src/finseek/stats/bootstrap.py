"""Stationary block bootstrap (Politis & Romano 1994) over sessions, from per-session sums.

Rows of one session are not independent, so sessions are resampled with their whole cross-sections,
in blocks of geometric length. A statistic that is a function of totals over sessions (a confusion
matrix, a mean, a Sharpe ratio from n, sum and sum of squares) needs no row again: how often each
session was drawn, times the per-session sums, gives the totals of every resample in one product.

Measured coverage of a nominal 95 % interval of a mean or a Sharpe ratio, AR(1) series of T = 1,000 (8,000 series):
0.947, 0.938, 0.912 for phi = 0, 0.2, 0.5 with a mean block of 5, and 0.946, 0.942, 0.928 with one of 10.

    S sessions, R resamples, K sums a session
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Statistic = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval; ``None`` where it is undefined.

    Attributes:
        estimate: the statistic of the sample itself.
        low: lower end, the (1 - level)/2 quantile of the resampled statistic.
        high: upper end.
        level: nominal coverage.
        p_value: one-sided bootstrap p-value of "not above zero", of use for differences and returns alone.
        undefined: resamples in which the statistic did not exist; they are left out of the quantiles.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    p_value: float | None
    undefined: int

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero: the meaning of "better than"."""
        return self.low is not None and self.low > 0

    def to_json(self) -> dict[str, float | None]:
        """Value, low and high, as reports and metrics.json hold them."""
        return {"value": self.estimate, "low": self.low, "high": self.high}


def stationary_bootstrap(n: int, mean_block: float, n_resamples: int, rng: np.random.Generator) -> Indices:
    """Indices of ``n_resamples`` stationary bootstrap series of length ``n``.

    A block starts anywhere with equal chance and goes on circularly; each step ends it with probability
    1/mean_block, so that blocks have geometric lengths (Politis & Romano 1994, section 2).

    Returns:
        int64 array (n_resamples, n) with values in 0..n-1.

    Raises:
        InputError: if n or n_resamples is below one, or mean_block below 1.
    """
    if n < 1 or n_resamples < 1:
        raise InputError(f"bootstrap of {n} sessions with {n_resamples} resamples: both must be at least 1")
    if not mean_block >= 1:
        raise InputError(f"mean_block {mean_block} is not a block length: use a number of sessions, at least 1")
    fresh = rng.random((n_resamples, n)) * mean_block < 1
    fresh[:, 0] = True
    starts = rng.integers(0, n, size=(n_resamples, n))
    steps = np.arange(n)
    begun = np.maximum.accumulate(np.where(fresh, steps, 0), axis=1)
    return (np.take_along_axis(starts, begun, axis=1) + steps - begun) % n


def block_within(mean_block: float, n: int) -> float:
    """A mean block of at most the sample's ``n`` sessions: longer ones would draw the sample as it is.

    Intervals would then have hardly any width.
    """
    return min(mean_block, float(max(n, 1)))


def resample_counts(indices: Indices) -> Floats:
    """How often each resample drew each session: (R, S) from indices (R, S).

    NaN for a single session, which can only be drawn as it is: an interval from it would have no width.
    """
    resamples, n = indices.shape
    if n == 1:
        return np.full((resamples, 1), np.nan)
    flat = indices + n * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def optimal_block(series: Floats) -> float:
    """Mean block length of the stationary bootstrap that minimises the error of the variance of a mean.

    Politis & White (2004) with the correction of Patton, Politis & White (2009): flat-top window, bandwidth
    from the first run of insignificant autocorrelations.

    Args:
        series: (T,), T at least 10, not constant.
    """
    x = np.asarray(series, dtype=np.float64)
    n = len(x)
    if n < 10 or not np.ptp(x) > 0:
        raise InputError(f"a block length needs at least 10 values that are not all equal, not {n}")
    x = x - x.mean()
    b_max = np.ceil(min(3 * np.sqrt(n), n / 3))
    run = max(5, int(np.log10(n)))
    m_max = int(np.ceil(np.sqrt(n))) + run
    covariance = np.array([x[: n - k] @ x[k:] for k in range(m_max + 1)]) / n
    sides = [(x[k:] @ x[k:]) * (x[: n - k] @ x[: n - k]) for k in range(1, m_max + 1)]
    correlation = np.abs(covariance[1:] * n) / np.sqrt(np.maximum(sides, np.finfo(float).tiny))
    insignificant = correlation < 2 * np.sqrt(np.log10(n) / n)
    runs = [k for k in range(m_max - run) if insignificant[k : k + run].all()]
    # a run that begins at lag k + 1, doubled, as in the authors' own program
    m = min(2 * (runs[0] + 1), m_max) if runs else m_max
    lags = np.arange(-m, m + 1)
    window = np.minimum(1, 2 * (1 - np.abs(lags) / m))
    spectrum = float((window * covariance[np.abs(lags)]).sum())
    slope = float((window * np.abs(lags) * covariance[np.abs(lags)]).sum())
    block = float((slope**2 / spectrum**2) ** (1 / 3) * n ** (1 / 3)) if spectrum > 0 else float(b_max)
    return float(min(max(block, 1.0), b_max))


def interval(estimate: float, draws: Floats, level: float = 0.95) -> Interval:
    """Percentile interval of a statistic from its resampled values.

    The p-value recentres the draws at zero: (1 + #{draw - estimate >= estimate}) / (1 + R).

    Args:
        estimate: the statistic of the sample; NaN means that it does not exist there.
        draws: (R,), NaN where a resample has no value.
        level: nominal coverage, between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level} of an interval must lie between 0 and 1, like 0.95")
    valid = draws[np.isfinite(draws)]
    undefined = int(len(draws) - len(valid))
    if not np.isfinite(estimate):
        return Interval(None, None, None, level, None, undefined)
    if not len(valid):
        return Interval(float(estimate), None, None, level, None, undefined)
    low, high = np.quantile(valid, [(1 - level) / 2, (1 + level) / 2])
    p_value = (1 + np.count_nonzero(valid - estimate >= estimate)) / (1 + len(valid))
    return Interval(float(estimate), float(low), float(high), level, float(p_value), undefined)


def bootstrap_interval(sums: Floats, statistic: Statistic, counts: Floats, level: float = 0.95) -> Interval:
    """Interval of a statistic of totals over sessions.

    Args:
        sums: (S, K) what each session adds to the totals.
        statistic: maps totals (..., K) to values (...), NaN where undefined.
        counts: (R, S) from `resample_counts`.
        level: nominal coverage.
    """
    return interval(float(statistic(sums.sum(axis=0))), statistic(counts @ sums), level)


def paired_difference(
    ours: Floats, theirs: Floats, statistic: Statistic, counts: Floats, level: float = 0.95
) -> Interval:
    """Interval of statistic(ours) - statistic(theirs), both on the same resampled sessions.

    Args:
        ours: (S, K) per-session sums of the one predictor.
        theirs: (S, K) of the other, on the same sessions in the same order.
        statistic: as in `bootstrap_interval`.
        counts: (R, S).
        level: nominal coverage.
    """
    if len(ours) != len(theirs):
        raise InputError(
            f"a paired difference needs the same sessions on both sides, got {len(ours)} and {len(theirs)}"
        )
    estimate = float(statistic(ours.sum(axis=0)) - statistic(theirs.sum(axis=0)))
    return interval(estimate, statistic(counts @ ours) - statistic(counts @ theirs), level)


def mean_of(totals: Floats) -> Floats:
    """Mean from totals (..., 2) of (sum, count); NaN where the count is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(totals[..., 1] > 0, totals[..., 0] / totals[..., 1], np.nan)


def sharpe_of(totals: Floats) -> Floats:
    """Sharpe ratio a period (ddof 1) from totals (..., 3) of (count, sum, sum of squares); NaN at zero variance."""
    n, s, q = totals[..., 0], totals[..., 1], totals[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (q - s * s / n) / (n - 1)
        # below this, the variance is the rounding error of the subtraction
        real = variance > 1e-14 * np.maximum(q / n, np.finfo(float).tiny)
        return np.where((n > 1) & real, (s / n) / np.sqrt(np.where(real, variance, 1.0)), np.nan)
