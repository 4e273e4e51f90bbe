"""From signals to orders: what HOLD, a missing signal and the right to short mean.

Legend: T decision sessions, N tickers. A target of NaN means *no order*: the shares stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.backtest.signals import NO_SIGNAL, SignalGrid
from finseek.core.errors import InputError

Floats = NDArray[np.float64]
NO_ORDER = np.nan
NEVER = -(10**9)


def signal_age(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sessions since the last signal, 0 where there is one; a billion before the first. Shape (T, N)."""
    sessions = np.arange(len(present))[:, None]
    latest = np.maximum.accumulate(np.where(present, sessions, NEVER), axis=0)
    age: NDArray[np.int64] = sessions - latest
    return age


def directions(grid: SignalGrid, options: BacktestOptions) -> Floats:
    """Direction of the target of each session: -1, 0 or 1, or NaN for no order. Shape (T, N).

    HOLD is 0 (``hold: flat``) or no order (``keep``). A session without a signal is no order while the last signal
    is at most ``signal_expiry`` sessions old, then 0. Without ``shorts`` SELL is 0.
    """
    rank = grid.rank.astype(np.float64)
    wanted = np.sign(rank)
    if not options.shorts:
        wanted = np.maximum(wanted, 0.0)
    if options.hold == "keep":
        wanted[grid.rank == 0] = NO_ORDER
    return expire(np.where(grid.rank == NO_SIGNAL, NO_ORDER, wanted), grid.present, options.signal_expiry)


def given_weights(grid: SignalGrid, options: BacktestOptions) -> Floats:
    """Target weights that the signals themselves give, expired like actions. Shape (T, N)."""
    if not options.shorts and (grid.weight < 0).any():
        lowest = float(np.nanmin(grid.weight))
        raise InputError(f"a signal asks for weight {lowest:g}, which is a short position: set backtest.shorts to true")
    return expire(grid.weight.copy(), grid.present, options.signal_expiry)


def expire(target: Floats, present: NDArray[np.bool_], expiry: int) -> Floats:
    """Set to zero what has been without a signal for more than ``expiry`` sessions."""
    return np.where(signal_age(present) > expiry, 0.0, target)
