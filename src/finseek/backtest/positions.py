"""From signals to orders: what HOLD, a missing signal, a holding period and the right to short mean.

Legend: T decision sessions, N tickers, H the holding period. A target of NaN means *no order*: the shares stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.backtest.signals import NO_SIGNAL, SignalGrid
from finseek.core.actions import ACTIONS
from finseek.core.errors import InputError
from finseek.core.sessions import Dates

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
NO_ORDER = np.nan
NEVER = -(10**9)


def signal_age(present: Bools) -> NDArray[np.int64]:
    """Sessions since the last signal, 0 where there is one; a billion before the first. Shape (T, N)."""
    sessions = np.arange(len(present))[:, None]
    latest = np.maximum.accumulate(np.where(present, sessions, NEVER), axis=0)
    age: NDArray[np.int64] = sessions - latest
    return age


def directions(grid: SignalGrid, options: BacktestOptions) -> Floats:
    """Direction that the signal of each session asks for: -1, 0 or 1; NaN without a signal. Shape (T, N).

    HOLD is 0 whatever ``hold``; without ``shorts`` -1 is 0.
    """
    by_rank = np.array([options.action_map[action] for action in ACTIONS], dtype=np.float64)
    wanted = by_rank[np.clip(grid.rank, -2, 2) + 2]
    if not options.shorts:
        wanted = np.maximum(wanted, 0.0)
    return np.where(grid.rank == NO_SIGNAL, np.nan, wanted)


def given_weights(grid: SignalGrid, options: BacktestOptions) -> Floats:
    """Target weights that the signals themselves give; NaN without a signal. Shape (T, N)."""
    if not options.shorts and (grid.weight < 0).any():
        lowest = float(np.nanmin(grid.weight))
        raise InputError(f"a signal asks for weight {lowest:g}, which is a short position: set backtest.shorts to true")
    return grid.weight.copy()


def place(target: Floats, grid: SignalGrid, options: BacktestOptions) -> Floats:
    """Turn the sized targets of the signals into orders: (T, N) weights, NaN for no order.

    Until the next signal (``holding_period`` None): HOLD under ``keep`` is no order; a session without a signal is
    no order while the last signal is at most ``signal_expiry`` sessions old, and 0 after that. With a holding period
    see ``staggered``.
    """
    hold = grid.rank == 0
    if options.holding_period is not None:
        return staggered(target, grid.present, hold if options.hold == "keep" else None, options.holding_period)
    if options.hold == "keep":
        target = np.where(hold, NO_ORDER, target)
    expired = signal_age(grid.present) > options.signal_expiry
    return np.where(grid.present, target, np.where(expired, 0.0, NO_ORDER))


def staggered(target: Floats, present: Bools, repeated: Bools | None, period: int) -> Floats:
    """Mean of the targets of the last H sessions: each session opens a book of 1/H that lives for H sessions.

    A session without a signal opens an empty book; where ``repeated`` (HOLD under ``keep``) the book repeats the
    ticker's book before.
    """
    books = np.where(present, target, 0.0)
    if repeated is not None:
        for t in range(len(books)):
            books[t] = np.where(repeated[t], books[t - 1] if t else 0.0, books[t])
    total = np.zeros(books.shape)
    for lag in range(min(period, len(books))):
        total[lag:] += books[: len(books) - lag]
    mean: Floats = total / period
    return mean


def thin_out(weights: Floats, dates: Dates, options: BacktestOptions) -> Floats:
    """Drop orders by ``rebalance``: on_change keeps what differs from the ticker's last, weekly the first of a week.

    Args:
        weights: (T, N), NaN for no order.
        dates: datetime64[D] (T,), the decision sessions; weeks begin on Monday.
        options: the options.
    """
    if options.rebalance == "on_change":
        out, latest = weights.copy(), np.zeros(weights.shape[1])
        for t, row in enumerate(weights):
            out[t] = np.where(row == latest, NO_ORDER, row)
            latest = np.where(np.isnan(row), latest, row)
        return out
    if options.rebalance == "weekly":
        week = (dates.astype(np.int64) + 3) // 7  # day 0, 1970-01-01, was a Thursday
        first = np.concatenate([[True], week[1:] != week[:-1]])
        return np.where(first[:, None], weights, NO_ORDER)
    return weights
