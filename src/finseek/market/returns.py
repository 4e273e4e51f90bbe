"""Forward returns by the time convention: decided as of t, entered at the open of t+1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import Dates
from finseek.market.prices import Prices

Floats = NDArray[np.float64]
HORIZONS = (1, 5, 10, 30)


def forward_returns(
    prices: Prices,
    horizons: Sequence[int] = HORIZONS,
    *,
    entry: Literal["next_open", "next_close"] = "next_open",
    excess: bool = False,
) -> dict[int, Floats]:
    """Adjusted price(t+1+H) / adjusted price(t+1) - 1 for each horizon H in sessions; shape (S, N).

    NaN where t+1+H lies beyond the table or a bar of the entry or the exit is missing.

    Args:
        prices: the table; t+1 is its next session, not the ticker's.
        horizons: in sessions, 1 or more.
        entry: price at which is entered and left: ``next_open`` the open, ``next_close`` the close.
        excess: subtract the same return of the benchmark.

    Raises:
        InputError: a horizon below 1, or an excess over no benchmark.
    """
    if excess and prices.benchmark is None:
        raise InputError("excess returns need a benchmark: set prices.benchmark to its ticker")
    result = {}
    for horizon in horizons:
        if horizon < 1:
            raise InputError(f"horizon {horizon} is below 1 session: a return must run to a later session")
        result[horizon] = _forward(prices, horizon, entry)
        if excess and prices.benchmark is not None:
            result[horizon] = result[horizon] - _forward(prices.benchmark, horizon, entry)
    return result


def _forward(prices: Prices, horizon: int, entry: str) -> Floats:
    price = prices.adjusted_open if entry == "next_open" else prices.adjusted_close
    value = np.full(price.shape, np.nan)
    known = max(len(price) - 1 - horizon, 0)
    value[:known] = price[1 + horizon :] / price[1 : 1 + known] - 1
    return value


def label_end(prices: Prices, horizon: int) -> Dates:
    """Session t+1+H of every session t, NaT beyond the table; shape (S,)."""
    return prices.sessions.label_end(prices.sessions.dates, horizon)
