"""How much a Sharpe ratio can be trusted, by its length, its moments and the number of tries.

    SR Sharpe ratio *per period* (not annual)   T periods   g3 skewness   g4 kurtosis (3 for the normal, not excess)
    N trials   V variance of the trials' Sharpe ratios per period   Z standard normal quantile

Sources: Bailey & López de Prado, "The Sharpe Ratio Efficient Frontier" (2012; PSR, MinTRL), "The Deflated Sharpe
Ratio" (2014; DSR); Bailey, Borwein, López de Prado & Zhu, "Pseudo-Mathematics and Financial Charlatanism" (2014;
MinBTL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import e, isfinite, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from finseek.core.errors import InputError

NORMAL = NormalDist()
EULER = 0.5772156649015329


@dataclass(frozen=True)
class Moments:
    """What the Sharpe statistics need to know of a return series.

    Attributes:
        sharpe: mean / standard deviation (ddof 1), per period.
        skewness: third standardised moment (population).
        kurtosis: fourth standardised moment (population), 3 for the normal.
        periods: T.
    """

    sharpe: float
    skewness: float
    kurtosis: float
    periods: int


def moments(returns: ArrayLike) -> Moments:
    """Moments of a return series (T,).

    Raises:
        InputError: fewer than two periods, a value that is no number, or no variance.
    """
    r = np.asarray(returns, dtype=np.float64)
    if r.ndim != 1 or len(r) < 2 or not np.isfinite(r).all():
        raise InputError(f"a Sharpe ratio needs at least 2 finite returns in one series, not shape {r.shape}")
    d = r - r.mean()
    m2 = float((d**2).mean())
    if m2 <= 1e-24 * float((r**2).mean()):
        raise InputError("the returns do not vary: there is no Sharpe ratio")
    sharpe = float(r.mean() / r.std(ddof=1))
    return Moments(sharpe, float((d**3).mean()) / m2**1.5, float((d**4).mean()) / m2**2, len(r))


def sharpe_standard_error(sharpe: float, periods: int, skewness: float = 0.0, kurtosis: float = 3.0) -> float:
    """sqrt((1 - g3 SR + (g4 - 1)/4 SR²) / (T - 1)), the denominator of the PSR (2012, equation 4)."""
    if periods < 2:
        raise InputError(f"{periods} periods are too few for a Sharpe ratio: at least 2")
    spread = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if not spread > 0:
        raise InputError(
            f"skewness {skewness} and kurtosis {kurtosis} cannot be of one series (kurtosis is not excess)"
        )
    return sqrt(spread / (periods - 1))


def probabilistic_sharpe_ratio(
    sharpe: float, periods: int, benchmark: float = 0.0, skewness: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Probability that the true Sharpe ratio exceeds the benchmark: Phi((SR - SR*) / standard error)."""
    return NORMAL.cdf((sharpe - benchmark) / sharpe_standard_error(sharpe, periods, skewness, kurtosis))


def expected_maximum_sharpe(trials: float, variance: float) -> float:
    """E[max SR] of N independent trials without skill (2014, equation 1): 0 for one trial.

    sqrt(V) ((1 - gamma) Z(1 - 1/N) + gamma Z(1 - 1/(N e))), with gamma the Euler-Mascheroni constant.
    """
    if trials < 1 or variance < 0:
        raise InputError(f"{trials} trials with variance {variance}: at least 1 trial and a variance of at least 0")
    if trials == 1:
        return 0.0
    quantile = NORMAL.inv_cdf
    return sqrt(variance) * ((1 - EULER) * quantile(1 - 1 / trials) + EULER * quantile(1 - 1 / (trials * e)))


def deflated_sharpe_ratio(
    sharpe: float,
    periods: int,
    trials: float,
    variance: float,
    skewness: float = 0.0,
    kurtosis: float = 3.0,
) -> float:
    """PSR against the best Sharpe ratio that N trials without skill would have shown.

    Args:
        sharpe: of the chosen trial, per period.
        periods: T.
        trials: N, all tries at the same test data.
        variance: V of the trials' Sharpe ratios per period, taken as it is given (see `trial_variance`).
        skewness: of the chosen trial's returns.
        kurtosis: of the chosen trial's returns, 3 for the normal.
    """
    threshold = expected_maximum_sharpe(trials, variance)
    return probabilistic_sharpe_ratio(sharpe, periods, threshold, skewness, kurtosis)


def trial_variance(sharpes: Sequence[float | None], periods: int) -> float:
    """V = max(variance of the trials' Sharpe ratios (ddof 1), 1/(T - 1)).

    The floor is the variance of an estimate without skill: tries that are copies of each other must not look
    like proof. Trials without returns (None) count as tries and not in the variance.
    """
    if periods < 2:
        raise InputError(f"{periods} periods are too few for a Sharpe ratio: at least 2")
    known = [sharpe for sharpe in sharpes if sharpe is not None and isfinite(sharpe)]
    spread = float(np.var(known, ddof=1)) if len(known) > 1 else 0.0
    return max(spread, 1 / (periods - 1))


def minimum_track_record_length(
    sharpe: float, benchmark: float = 0.0, level: float = 0.95, skewness: float = 0.0, kurtosis: float = 3.0
) -> float | None:
    """Periods after which PSR(benchmark) reaches the level; None where the Sharpe ratio is not above it.

    1 + (1 - g3 SR + (g4 - 1)/4 SR²) (Z(level) / (SR - SR*))² (2012, equation 11).
    """
    if not 0 < level < 1:
        raise InputError(f"level {level} must lie between 0 and 1, like 0.95")
    if sharpe <= benchmark:
        return None
    one_period = sharpe_standard_error(sharpe, 2, skewness, kurtosis)
    return 1 + (one_period * NORMAL.inv_cdf(level) / (sharpe - benchmark)) ** 2


def minimum_backtest_length(trials: int, expected_maximum: float = 1.0) -> float:
    """Years below which the best of N trials without skill is expected to show this annual Sharpe ratio.

    (E[max of N standard normals] / expected_maximum)² (2014, theorem 2, before its upper bound 2 ln N / E²).
    """
    if expected_maximum <= 0:
        raise InputError(f"expected_maximum {expected_maximum} must be an annual Sharpe ratio above 0")
    return (expected_maximum_sharpe(trials, 1.0) / expected_maximum) ** 2
