"""The price table of a run: dense arrays of bars by session and ticker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import Sessions

Floats = NDArray[np.float64]
BAR = ("open", "high", "low", "close", "volume", "adjusted_close")


@dataclass(frozen=True)
class Prices:
    """Bars of N tickers on S sessions; float64 (S, N), NaN where a ticker has no bar.

    Attributes:
        sessions: the union of the days on which a ticker of the universe has a bar.
        tickers: sorted; without the benchmark.
        open: raw, as quoted on the day.
        high: raw.
        low: raw.
        close: raw.
        volume: shares, as quoted on the day.
        adjusted_close: close with later splits and dividends taken out.
        benchmark: one column on the same sessions, NaN where it has no bar; None where there is none.

    Raises:
        InputError: an array has another shape than (sessions, tickers), or tickers are unsorted or repeat.
    """

    sessions: Sessions
    tickers: tuple[str, ...]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    adjusted_close: Floats
    benchmark: Prices | None = None

    def __post_init__(self) -> None:
        shape = (len(self.sessions), len(self.tickers))
        for name in BAR:
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"prices: {name} has shape {getattr(self, name).shape}, not (sessions, tickers) {shape}"
                )
        if list(self.tickers) != sorted(set(self.tickers)):
            raise InputError("prices: tickers must be sorted and unique")
        if self.benchmark is not None and not np.array_equal(self.benchmark.sessions.dates, self.sessions.dates):
            raise InputError("prices: the benchmark must have the sessions of the universe")

    @cached_property
    def _factor(self) -> Floats:
        return self.adjusted_close / self.close

    @cached_property
    def adjusted_open(self) -> Floats:
        """Open x adjusted_close / close, shape (S, N)."""
        return self.open * self._factor

    @cached_property
    def adjusted_high(self) -> Floats:
        """High x adjusted_close / close, shape (S, N)."""
        return self.high * self._factor

    @cached_property
    def adjusted_low(self) -> Floats:
        """Low x adjusted_close / close, shape (S, N)."""
        return self.low * self._factor

    @cached_property
    def money(self) -> Floats:
        """Money volume, raw close x volume, shape (S, N): no split or dividend changes it."""
        return self.close * self.volume

    @cached_property
    def has_bar(self) -> NDArray[np.bool_]:
        """Where a ticker has a bar, shape (S, N)."""
        return ~np.isnan(self.close)

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {ticker: column for column, ticker in enumerate(self.tickers)}

    def column(self, ticker: str) -> int:
        """Column of a ticker.

        Raises:
            InputError: the table has no such ticker.
        """
        try:
            return self._columns[ticker]
        except KeyError:
            raise InputError(
                f"ticker {ticker!r} is not in the price table of {len(self.tickers)} tickers: add its prices"
            ) from None

    def of(self, tickers: Sequence[str]) -> Prices:
        """The same table with these tickers alone; its sessions are the union of what remains.

        Raises:
            InputError: a ticker is not in the table, or none is asked for.
        """
        names = tuple(sorted(set(tickers)))
        if not names:
            raise InputError("prices of no ticker were asked for: name at least one")
        columns = np.array([self.column(name) for name in names])
        rows = np.flatnonzero(self.has_bar[:, columns].any(axis=1))
        o, h, l, c, v, a = (getattr(self, name)[np.ix_(rows, columns)] for name in BAR)  # noqa: E741
        return Prices(Sessions(self.sessions.dates[rows]), names, o, h, l, c, v, a, _rows(self.benchmark, rows))


def _rows(prices: Prices | None, rows: NDArray[np.int64]) -> Prices | None:
    if prices is None:
        return None
    o, h, l, c, v, a = (getattr(prices, name)[rows] for name in BAR)  # noqa: E741
    return Prices(Sessions(prices.sessions.dates[rows]), prices.tickers, o, h, l, c, v, a)


def describe_prices(prices: Prices) -> dict[str, Any]:
    """Counts of a table, JSON-able: sessions, tickers, bars, missing bars, who ends early, and a warning."""
    dates, bars = prices.sessions.dates, prices.has_bar
    early = [ticker for ticker, last in zip(prices.tickers, bars[-1] if len(dates) else (), strict=False) if not last]
    return {
        "tickers": len(prices.tickers),
        "sessions": len(dates),
        "first_session": str(dates[0]) if len(dates) else None,
        "last_session": str(dates[-1]) if len(dates) else None,
        "bars": int(bars.sum()),
        "missing_bars": int((~bars).sum()),
        "tickers_without_last_session": early,
        "benchmark": prices.benchmark.tickers[0] if prices.benchmark else None,
        "survivorship_warning": survivorship_warning(prices),
    }


def survivorship_warning(prices: Prices) -> str:
    """Why results on this universe may flatter; empty where nothing speaks for it.

    A universe all of whose tickers trade to the last session was chosen by somebody who knew who would survive.
    """
    if len(prices.sessions) < 60 or not prices.has_bar[-1].all():
        return ""
    who = "the one ticker trades" if len(prices.tickers) == 1 else f"all {len(prices.tickers)} tickers trade"
    return (
        f"{who} to the last session, {prices.sessions.dates[-1]}: none was delisted, "
        "so the universe was picked with hindsight and absolute returns flatter (survivorship bias)"
    )
