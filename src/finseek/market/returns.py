"""Forward returns by the time convention: decided as of t, entered at the open of t+1, left at the open of t+1+H."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import Dates
from finseek.market.prices import Prices

Floats = NDArray[np.float64]
Entry = Literal["next_open", "next_close"]
Delisted = Literal["missing", "last_close"]
HORIZONS = (1, 5, 10, 30)


def forward_returns(
    prices: Prices,
    horizons: Sequence[int] = HORIZONS,
    *,
    entry: Entry = "next_open",
    delisted: Delisted = "missing",
    excess: bool = False,
) -> dict[int, Floats]:
    """Adjusted price(t+1+H) / adjusted price(t+1) - 1 for each horizon H in sessions; shape (S, N).

    NaN where t+1+H lies beyond the table or a bar of the entry or the exit is missing: a hole is not bridged.

    Args:
        prices: the table; t+1 is its next session, not the ticker's.
        horizons: in sessions, 1 or more.
        entry: price at which is entered and left: ``next_open`` the open, ``next_close`` the close.
        delisted: of a ticker whose bars end between entry and exit: ``missing`` gives NaN, which flatters a universe
            that loses its failures; ``last_close`` leaves at the last adjusted close.
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
        result[horizon] = _forward(prices, horizon, entry, delisted)
        if excess and prices.benchmark is not None:
            result[horizon] = result[horizon] - _forward(prices.benchmark, horizon, entry, "missing")
    return result


def _forward(prices: Prices, horizon: int, entry: Entry, delisted: Delisted) -> Floats:
    price = prices.adjusted_open if entry == "next_open" else prices.adjusted_close
    value = np.full(price.shape, np.nan)
    known = max(len(price) - 1 - horizon, 0)
    bought, sold = price[1 : 1 + known], price[1 + horizon :]
    if delisted == "last_close" and known:
        gone = _last_bar(prices)[None, :] < np.arange(1 + horizon, len(price))[:, None]
        last = prices.adjusted_close[_last_bar(prices), np.arange(price.shape[1])]
        sold = np.where(gone, last, sold)
    value[:known] = sold / bought - 1
    return value


def _last_bar(prices: Prices) -> NDArray[np.int64]:
    """Row of the last bar of each ticker, shape (N,)."""
    last: NDArray[np.int64] = len(prices.sessions) - 1 - np.argmax(prices.has_bar[::-1], axis=0)
    return last


def label_end(prices: Prices, horizon: int) -> Dates:
    """Session t+1+H of every session t, NaT beyond the table; shape (S,)."""
    return prices.sessions.label_end(prices.sessions.dates, horizon)


@dataclass(frozen=True)
class ReturnCounts:
    """What became of the bars of a table when their forward returns were asked for; the reasons add up to ``bars``.

    Attributes:
        bars: (ticker, session) pairs with a bar.
        known: with a return.
        beyond_table: t+1+H is later than the last session.
        no_entry: the ticker has no bar on t+1 (a hole).
        delisted: its bars end before t+1+H.
        no_exit: it has no bar on t+1+H but later ones (a hole).
    """

    bars: int
    known: int
    beyond_table: int
    no_entry: int
    delisted: int
    no_exit: int

    def to_json(self) -> dict[str, int]:
        """As plain data."""
        return asdict(self)


def count_returns(prices: Prices, horizon: int) -> ReturnCounts:
    """Count why forward returns of a horizon are missing (with ``delisted="missing"``)."""
    bars = prices.has_bar
    rows = np.arange(len(bars))[:, None]
    beyond = bars & (rows + 1 + horizon >= len(bars))
    entry, leave = _ahead(bars, 1), _ahead(bars, 1 + horizon)
    delisted = bars & ~beyond & (_last_bar(prices)[None, :] < rows + 1 + horizon)
    no_entry = bars & ~beyond & ~delisted & ~entry
    no_exit = bars & ~beyond & ~delisted & entry & ~leave
    known = bars & ~beyond & entry & leave
    counts = (int(mask.sum()) for mask in (bars, known, beyond, no_entry, delisted, no_exit))
    return ReturnCounts(*counts)


def _ahead(mask: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    result = np.zeros_like(mask)
    result[: max(len(mask) - rows, 0)] = mask[rows:]
    return result
