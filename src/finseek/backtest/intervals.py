"""Bootstrap intervals of what an account earned: sessions are resampled, in stationary blocks.

Legend: T sessions, R resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.core.sessions import YEAR
from finseek.stats import (
    Interval,
    block_within,
    bootstrap_interval,
    mean_of,
    resample_counts,
    sharpe_of,
    stationary_bootstrap,
)

Floats = NDArray[np.float64]


def draw_sessions(sessions: int, options: BacktestOptions) -> Floats:
    """How often each resample draws each session: (R, T), the same for every interval of a backtest."""
    rng = np.random.default_rng(options.null_seed)
    block = block_within(options.mean_block, sessions)
    return resample_counts(stationary_bootstrap(sessions, block, options.bootstrap_resamples, rng))


def annual_mean(returns: Floats, counts: Floats) -> dict[str, float | None]:
    """252 times the mean of per-session returns (T,) with its 95 % interval: value, low, high, p_value.

    A series that never varies has no interval: nothing was observed that could have come out otherwise.
    """
    if not np.ptp(returns):
        return {"value": float(returns.mean()) * YEAR, "low": None, "high": None, "p_value": None}
    sums = np.column_stack([returns, np.ones(len(returns))])
    return _plain(bootstrap_interval(sums, lambda totals: YEAR * mean_of(totals), counts))


def annual_sharpe(returns: Floats, counts: Floats, risk_free: float = 0.0) -> dict[str, float | None]:
    """Annual Sharpe ratio of per-session returns (T,) with its interval, as ``annual_mean``."""
    excess = returns - risk_free / YEAR
    sums = np.column_stack([np.ones(len(excess)), excess, excess**2])
    return _plain(bootstrap_interval(sums, lambda totals: np.sqrt(YEAR) * sharpe_of(totals), counts))


def _plain(found: Interval) -> dict[str, float | None]:
    return found.to_json() | {"p_value": found.p_value}
