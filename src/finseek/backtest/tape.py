"""The prices of a backtest's window, turned into the factors by which money grows.

Legend: T decision sessions, T+1 rows, N tickers. Row 0 is the first decision session, row k fills the orders that
were decided at row k-1. A price that is missing leaves a position marked at its last close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import Dates
from finseek.market import Prices

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tape:
    """Growth factors of adjusted prices over a window.

    Attributes:
        dates: datetime64[D] (T+1,).
        tickers: the N names.
        before: (T+1, N) fill(k) / close(k-1): what a holding is multiplied with before orders fill at row k; 1 where
            the name has no fill price. Row 0 is 1.
        after: (T+1, N) close(k) / fill(k): from the fill to the close. Row 0 is 1.
        tradable: bool (T+1, N): whether the name can be traded at row k.
        fill: (T+1, N) adjusted fill price, NaN where there is none.
        close: (T+1, N) adjusted close that a holding is marked at: the last known one.
    """

    dates: Dates
    tickers: tuple[str, ...]
    before: Floats
    after: Floats
    tradable: NDArray[np.bool_]
    fill: Floats
    close: Floats


def forward_fill(values: Floats) -> Floats:
    """Replace NaN by the last number above it in the same column; NaN before the first. Shape (S, N)."""
    rows = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    latest = np.maximum.accumulate(rows, axis=0)
    filled: Floats = np.where(latest < 0, np.nan, np.take_along_axis(values, np.maximum(latest, 0), axis=0))
    return filled


def check_prices(prices: Prices) -> None:
    """Refuse prices that no market quotes.

    Raises:
        InputError: an open, close or adjusted close that is not positive.
    """
    for name in ("open", "close", "adjusted_close"):
        bad = np.argwhere(~(getattr(prices, name) > 0) & ~np.isnan(getattr(prices, name)))
        if len(bad):
            row, column = bad[0]
            value = getattr(prices, name)[row, column]
            raise InputError(
                f"{name} of {prices.tickers[column]} on {prices.sessions.dates[row]} is {value:g}: "
                "a price must be above 0; correct or remove the bar"
            )


def build_tape(prices: Prices, first: int, sessions: int) -> Tape:
    """The window of ``sessions`` decision sessions from row ``first`` of the price table, and the session after it.

    Args:
        prices: the price table; adjusted prices are used, so dividends are reinvested.
        first: index of the first decision session.
        sessions: T, how many decision sessions.
    """
    check_prices(prices)
    rows = slice(first, first + sessions + 1)
    fill = prices.adjusted_open
    tradable = ~np.isnan(fill)
    close = np.where(np.isnan(prices.adjusted_close), fill, prices.adjusted_close)
    mark = forward_fill(close)
    previous = np.vstack([np.full((1, len(prices.tickers)), np.nan), mark[:-1]])
    known = ~np.isnan(previous)
    entry = np.where(tradable, fill, previous)
    before = np.where(known & tradable, entry / np.where(known, previous, 1.0), 1.0)
    after = np.where(np.isnan(entry), 1.0, mark / np.where(np.isnan(entry), 1.0, entry))
    before, after = before[rows].copy(), after[rows].copy()
    before[0], after[0] = 1.0, 1.0
    return Tape(prices.sessions.dates[rows], prices.tickers, before, after, tradable[rows], fill[rows], mark[rows])
