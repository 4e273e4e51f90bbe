"""How the order of the opinions of a session matches the order of the returns that followed.

Score of a row: the rank of its action (-2 to 2); ``expected`` scores use the mean rank under the row's
probabilities. Per session the correlation across tickers with the forward return at horizon H (Pearson: ic, Spearman:
rank_ic), over the scored rows that have a return; sessions in which one side is constant have none. Long-short spread:
per session the mean return of the buys minus that of the sells, where a session has both. Means over sessions,
standard errors by Newey & West with lag max(H - 1, 4 (n/100)^(2/9)): returns over H sessions overlap.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.stats import correlation_by_session, newey_west

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def lag_of(horizon: int, n: int) -> int:
    """Lag of the Newey-West window for overlapping returns over ``horizon`` sessions, from n sessions."""
    return max(horizon - 1, int(4 * (n / 100) ** (2 / 9)))


def by_session(values: Floats, session: Ints, column: Ints, shape: tuple[int, int]) -> Floats:
    """Values (n,) of rows as a table (S, N), NaN where there is no row."""
    table = np.full(shape, np.nan)
    table[session, column] = values
    return table


def information_metrics(
    rank: Floats, expected: Floats | None, returns: Floats, session: Ints, horizon: int
) -> dict[str, Any]:
    """Information coefficients and long-short spread at one horizon.

    Args:
        rank: (n,) -2 to 2, NaN where unscored.
        expected: (n,) mean rank under the probabilities, NaN where there are none; None if no row has any.
        returns: (n,) forward returns, NaN where there is none.
        session: (n,) session of each row, from 0.
        horizon: H.
    """
    n_sessions = int(session.max()) + 1 if len(session) else 0
    order = np.argsort(session, kind="stable")
    column = np.empty(len(session), dtype=np.int64)
    column[order] = np.arange(len(session)) - np.searchsorted(session[order], session[order])
    shape = (n_sessions, int(column.max()) + 1 if len(column) else 0)
    outcome = by_session(returns, session, column, shape)
    scores = {"": by_session(rank, session, column, shape)}
    if expected is not None:
        scores["expected_"] = by_session(expected, session, column, shape)
    found: dict[str, Any] = {}
    for prefix, score in scores.items():
        for name, ranks in (("ic", False), ("rank_ic", True)):
            found[prefix + name] = _mean(correlation_by_session(score, outcome, ranks=ranks), horizon)
    score = scores[""]
    longs, shorts = (np.where((side * score > 0) & np.isfinite(outcome), outcome, np.nan) for side in (1, -1))
    both = np.isfinite(longs).any(1) & np.isfinite(shorts).any(1)
    spread = np.full(n_sessions, np.nan)
    spread[both] = np.nanmean(longs[both], axis=1) - np.nanmean(shorts[both], axis=1)
    found["long_short_spread"] = _mean(spread, horizon)
    return found


def _mean(series: Floats, horizon: int) -> dict[str, Any]:
    return asdict(newey_west(series, lag_of(horizon, int(np.isfinite(series).sum()))))
