"""What the predicted directions would have earned, before costs.

    n rows, S sessions, N tickers, H horizon in sessions. direction is -1, 0 or 1; an unscored answer is 0.
    r_H(t) = adjusted open(t+1+H) / adjusted open(t+1) - 1, the forward return of a decision as of t.

Hit rate: share of rows with sign(direction) = sign(r_H), over the rows with a direction and a return that is
not zero; HOLD, unscored and zero returns are excluded and counted.
Mean return: mean of direction x r_H over the rows with a direction and a return.
Directional Sharpe: per session the mean of direction x r_1 over the universe (all tickers of the predictions
with a return at that session; HOLD, unscored and missing rows count as zero), annualised by sqrt(252), ddof 1.
For H > 1 the book of a session is the mean of the last H sessions' directions (1/H staggered books), held
until the last of them runs off; never the overlapping r_H itself, which would count each day H times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.sessions import YEAR
from finseek.evaluate.information import information_metrics
from finseek.evaluate.options import EvaluateOptions
from finseek.stats import block_within, bootstrap_interval, mean_of, resample_counts, sharpe_of, stationary_bootstrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finseek.evaluate.records import Prediction
    from finseek.market import Prices

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RowReturns:
    """Forward returns of rows, and where the rows lie in the price table.

    Attributes:
        session: (n,) index into the price sessions, -1 where the as-of date is none.
        column: (n,) index into the price tickers, -1 where the ticker has no prices.
        table: per horizon the forward returns (S, N) of the price table.
        rows: per horizon the forward returns (n,), NaN where there is none.
    """

    session: Ints
    column: Ints
    table: dict[int, Floats]
    rows: dict[int, Floats]


def row_returns(rows: Sequence[Prediction], prices: Prices, horizons: Sequence[int]) -> RowReturns:
    """Forward returns of each row at each horizon; horizon 1 is always there."""
    from finseek.market import forward_returns

    columns = {ticker: column for column, ticker in enumerate(prices.tickers)}
    session = prices.sessions.index([row.as_of_date for row in rows])
    column = np.array([columns.get(row.ticker, -1) for row in rows], dtype=np.int64)
    table = forward_returns(prices, sorted({1, *horizons}))
    placed = (session >= 0) & (column >= 0)
    found = {h: np.where(placed, values[session, column], np.nan) for h, values in table.items()}
    return RowReturns(session, column, table, found)


def directional_series(direction: Ints, returns: RowReturns, horizon: int) -> Floats:
    """Return of the staggered books per session (T,), from the first decision until the last book runs off.

    NaN at sessions where no ticker of the universe has a return.
    """
    placed = (returns.session >= 0) & (returns.column >= 0)
    if not placed.any():
        return np.empty(0)
    session, column = returns.session[placed], returns.column[placed]
    one_day = returns.table[1]
    first, last = int(session.min()), int(session.max())
    universe = np.unique(column)
    book = np.zeros((last - first + horizon, one_day.shape[1]))
    for lag in range(horizon):
        np.add.at(book, (session - first + lag, column), direction[placed] / horizon)
    days = one_day[first : first + len(book), universe]
    earned = book[: len(days), universe] * days
    traded = np.isfinite(days).sum(axis=1)
    total = np.nansum(earned, axis=1)
    return np.where(traded > 0, total / np.maximum(traded, 1), np.nan)


def direction_sums(direction: Ints, returns: Floats | None, session: Ints, n_sessions: int) -> tuple[Floats, Floats]:
    """Hits and moved rows, earned return and directional rows of each session: (S, 2) each; zeros without returns."""
    if returns is None:
        return np.zeros((n_sessions, 2)), np.zeros((n_sessions, 2))
    traded = np.isfinite(returns) & (direction != 0)
    moved = traded & (returns != 0)
    hits = session_sums((np.sign(returns) == direction).astype(float), moved, session, n_sessions)
    return hits, session_sums(direction * returns, traded, session, n_sessions)


def session_sums(values: Floats, use: NDArray[np.bool_], session: Ints, n_sessions: int) -> Floats:
    """(S, 2) sum and count of the used values of each session."""
    total = np.bincount(session[use], weights=values[use], minlength=n_sessions)
    return np.stack([total, np.bincount(session[use], minlength=n_sessions)], axis=1).astype(np.float64)


def financial_metrics(
    direction: Ints,
    rank: Floats,
    expected: Floats | None,
    returns: RowReturns,
    session: Ints,
    counts: Floats,
    options: EvaluateOptions,
    seed: int,
) -> dict[str, Any]:
    """The financial part of metrics.json, by horizon.

    Args:
        direction: (n,) of -1, 0, 1; 0 for HOLD and unscored.
        rank: (n,) -2 to 2, NaN where the answer is unscored.
        expected: (n,) mean rank under the probabilities; None without them.
        returns: of the same rows.
        session: (n,) session of each row on the axis that ``counts`` resamples.
        counts: (R, S) from `stats.resample_counts`.
        options: horizons, resamples, mean block and level.
        seed: of the resamples of the staggered books, whose axis is longer.
    """
    level, found, scored = options.level, {}, np.isfinite(rank)
    for horizon in sorted({1, *options.forward_windows}):
        r = returns.rows[horizon]
        known = np.isfinite(r)
        traded = known & (direction != 0)
        hits, earned = direction_sums(direction, r, session, counts.shape[1])
        series = directional_series(direction, returns, horizon)
        whole = series[np.isfinite(series)]
        found[str(horizon)] = {
            "rows": {
                "with_return": int(known.sum()),
                "without_return": int((~known).sum()),
                "directional": int(traded.sum()),
                "hold": int((known & scored & (direction == 0)).sum()),
                "unscored": int((known & ~scored).sum()),
                "zero_return": int((traded & (r == 0)).sum()),
            },
            "hit_rate": bootstrap_interval(hits, mean_of, counts, level).to_json(),
            "mean_return": bootstrap_interval(earned, mean_of, counts, level).to_json(),
            "directional": _sharpe(whole, len(series) - len(whole), horizon, options, seed),
            **information_metrics(rank, expected, r, session, horizon),
        }
    return found


def _sharpe(series: Floats, missing: int, horizon: int, options: EvaluateOptions, seed: int) -> dict[str, Any]:
    """Mean per session and annual Sharpe ratio of a return series, with intervals."""
    about: dict[str, Any] = {"sessions": len(series), "sessions_without_return": missing}
    if len(series) < 2:
        nothing = {"value": None, "low": None, "high": None}
        return about | {"mean_per_session": nothing, "sharpe": nothing}
    rng = np.random.default_rng([seed, horizon])
    mean_block = block_within(max(options.mean_block, horizon), len(series))
    counts = resample_counts(stationary_bootstrap(len(series), mean_block, options.bootstrap_resamples, rng))
    sums = np.stack([np.ones_like(series), series, series**2], axis=1)
    return about | {
        "mean_per_session": bootstrap_interval(sums[:, [1, 0]], mean_of, counts, options.level).to_json(),
        "sharpe": bootstrap_interval(sums, lambda t: sharpe_of(t) * np.sqrt(YEAR), counts, options.level).to_json(),
    }
