"""What a result is compared with, at the level of weights: same window, same costs, same account.

Legend: T decision sessions, N tickers. Limits and whole shares of the options apply as to the strategy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.simulate import Account
from finseek.backtest.tape import Tape
from finseek.market import Prices

Floats = NDArray[np.float64]


def cash_only(steps: int, names: int) -> Floats:
    """Nothing. Shape (T, N)."""
    return np.zeros((steps, names))


def buy_and_hold(steps: int, names: int) -> Floats:
    """1/N of every name at the first fill, then no order. Shape (T, N)."""
    weights = np.full((steps, names), np.nan)
    weights[0] = 1.0 / names
    return weights


def all_buy(steps: int, names: int) -> Floats:
    """1/N of every name, rebalanced at every session. Shape (T, N)."""
    return np.full((steps, names), 1.0 / names)


def momentum(prices: Prices, first: int, steps: int, window: int) -> Floats:
    """The half of the universe with the highest adjusted return over the ``window`` sessions up to the decision.

    Equal weights that sum to 1, rebalanced daily; names without that return are left out, ties go to the earlier
    ticker. Shape (T, N).
    """
    return _best_half(_past_return(prices, first, steps, window))


def reversal(prices: Prices, first: int, steps: int, window: int) -> Floats:
    """The half of the universe with the lowest adjusted return, as ``momentum``. Shape (T, N)."""
    return _best_half(-_past_return(prices, first, steps, window))


def _past_return(prices: Prices, first: int, steps: int, window: int) -> Floats:
    """Adjusted close over that of ``window`` sessions earlier, less 1; NaN where either is missing. Shape (T, N)."""
    close = prices.adjusted_close
    past = np.full(close.shape, np.nan)
    past[window:] = close[window:] / close[: max(len(close) - window, 0)] - 1.0
    return past[first : first + steps]


def _best_half(score: Floats) -> Floats:
    known = ~np.isnan(score)
    place = np.argsort(np.argsort(np.where(known, -score, np.inf), axis=1, kind="stable"), axis=1, kind="stable")
    chosen = np.maximum(known.sum(axis=1, keepdims=True) // 2, np.minimum(known.sum(axis=1, keepdims=True), 1))
    return np.where(known & (place < chosen), 1.0 / np.maximum(chosen, 1), 0.0)


def exposure_matched_excess(account: Account, tape: Tape) -> Floats:
    """Return of each session beyond what its net exposure earned in the equal-weight universe. Shape (T,).

    excess(k) = r(k) - [net(k-1 at the close) · u_overnight(k) + net(k after its fills) · u_intraday(k)] / equity(k-1)

    with net the sum of the holdings in money and u the return of the universe, 1/N a name at each fill, up to and
    from the fill of row k. An equal-weight account without costs has an excess of zero, whatever its exposure.
    """
    carried = tape.after[:-1]
    paid = 0.0 if tape.dividend is None else tape.dividend[1:]
    up_to = (carried * (tape.before[1:] + paid)).mean(axis=1) / carried.mean(axis=1) - 1.0
    since = tape.after[1:].mean(axis=1) - 1.0
    net_close = account.held.sum(axis=-1)[:-1]
    net_filled = (account.before + account.traded).sum(axis=-1)[1:]
    base = np.where(account.equity[:-1] > 0, account.equity[:-1], np.inf)
    excess: Floats = (np.diff(account.equity) - net_close * up_to - net_filled * since) / base
    return excess
