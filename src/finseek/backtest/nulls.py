"""Books without skill but with the same turnover and exposure, and how often they do as well.

Legend: R null books, T decision sessions, N tickers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.backtest.performance import returns_of
from finseek.backtest.simulate import simulate_equity
from finseek.backtest.tape import Tape
from finseek.core.progress import Progress, silent
from finseek.core.sessions import YEAR

Floats = NDArray[np.float64]
_CELLS = 2_000_000  # cells of weights simulated at once: 16 MB


def shifted(weights: Floats, steps: int, columns: NDArray[np.int64]) -> Floats:
    """The weights moved circularly by ``steps`` sessions, their ticker columns in another order. Shape (T, N)."""
    return np.roll(weights, steps, axis=0)[:, columns]


def null_sharpes(
    weights: Floats,
    tape: Tape,
    options: BacktestOptions,
    count: int,
    rng: np.random.Generator,
    progress: Progress = silent,
) -> Floats:
    """Annual Sharpe ratio of each of ``count`` null books, shape (R,); NaN where it has none.

    A null book is the weight matrix shifted circularly in time by a uniform number of sessions and with its ticker
    columns permuted: when and in which name it trades is chance, how much and how often stays.
    """
    steps, names = weights.shape
    shifts = rng.integers(0, steps, size=count)
    columns = np.array([rng.permutation(names) for _ in range(count)]).reshape(count, names)
    chunk = max(1, _CELLS // weights.size)
    found = []
    for start in range(0, count, chunk):
        part = range(start, min(start + chunk, count))
        books = np.stack([shifted(weights, int(shifts[r]), columns[r]) for r in part])
        found.append(_sharpes(simulate_equity(books, tape, options), options.risk_free))
        progress("nulls", part.stop, count, "books")
    return np.concatenate(found) if found else np.empty(0)


def _sharpes(equity: Floats, risk_free: float) -> Floats:
    """Sharpe ratio of each row of (R, T+1); NaN without variance."""
    returns = np.stack([returns_of(curve) for curve in equity])
    if returns.shape[1] < 2:
        return np.full(len(returns), np.nan)
    deviation = returns.std(axis=1, ddof=1)
    flat = np.ptp(returns, axis=1) <= 1e-14 * (1.0 + np.abs(returns).max(axis=1))
    scale = np.where(flat, np.nan, deviation)
    sharpes: Floats = (returns.mean(axis=1) - risk_free / YEAR) / scale * np.sqrt(YEAR)
    return sharpes


def p_value(observed: float | None, nulls: Floats) -> float | None:
    """(1 + #{nulls >= observed}) / (1 + n) over the nulls that have a value; None where there is nothing to compare."""
    known = nulls[~np.isnan(nulls)]
    if observed is None or not len(known):
        return None
    return (1 + int((known >= observed).sum())) / (1 + len(known))


def summary(observed: float | None, nulls: Floats) -> dict[str, Any]:
    """What metrics.json says of the nulls."""
    known = nulls[~np.isnan(nulls)]
    levels = (0.05, 0.5, 0.95)
    return {
        "statistic": "sharpe",
        "books": len(nulls),
        "without_value": len(nulls) - len(known),
        "observed": observed,
        "p_value": p_value(observed, nulls),
        "values": [None if np.isnan(value) else round(float(value), 6) for value in nulls],
        "quantiles": {f"{level:g}": float(np.quantile(known, level)) if len(known) else None for level in levels},
    }
