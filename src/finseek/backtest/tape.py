"""The prices of a backtest's window, turned into the factors by which money grows.

Legend: S sessions of the price table, T decision sessions, T+1 rows, N tickers. Row 0 is the first decision session,
row k fills the orders that were decided at row k-1. A price that is missing leaves a position marked at its last
close. What a decision may know (volatility, mean money volume) ends at row k-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.corporate import CorporateActions
from finseek.backtest.options import BacktestOptions
from finseek.core.errors import InputError
from finseek.core.sessions import Dates
from finseek.market import Prices

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tape:
    """Growth factors over a window, and what orders need to know.

    Attributes:
        dates: datetime64[D] (T+1,).
        tickers: the N names.
        before: (T+1, N) fill(k) / close(k-1): what a holding is multiplied with before orders fill at row k; 1 where
            the name has no fill price. Row 0 is 1.
        after: (T+1, N) close(k) / fill(k): from the fill to the close. Row 0 is 1.
        tradable: bool (T+1, N): whether the name can be traded at row k.
        settled: bool (T+1, N): rows at which a delisted name is closed at ``before``; None where that is not wanted.
        fill: (T+1, N) fill price, NaN where there is none.
        close: (T+1, N) price that a holding is marked at: the last known close.
        raw_fill: (T+1, N) unadjusted fill price: what a share costs.
        dividend: (T+1, N) cash dividend at row k as a fraction of the holding at the close of k-1; None without any.
        returns: (R, N) close-to-close returns of all sessions of the table up to decision session T-1.
        money: (R, N) raw close · volume of the same sessions.
        volatility_window: sessions of ``volatility``.
        volume_window: sessions of ``money_volume``.
    """

    dates: Dates
    tickers: tuple[str, ...]
    before: Floats
    after: Floats
    tradable: Bools
    settled: Bools | None
    fill: Floats
    close: Floats
    raw_fill: Floats
    dividend: Floats | None
    returns: Floats
    money: Floats
    volatility_window: int
    volume_window: int

    def _decided(self, known: Floats) -> Floats:
        """What was known at the decision of each row, (T+1, N), from a table of sessions; row 0 decides nothing."""
        steps = len(self.dates) - 1
        return np.vstack([np.full((1, known.shape[1]), np.nan), known[len(known) - steps :]])

    @cached_property
    def money_volume(self) -> Floats:
        """(T+1, N) mean of raw close · volume over the sessions up to row k-1; NaN where unknown."""
        return self._decided(trailing_mean(self.money, self.volume_window))

    @cached_property
    def volatility(self) -> Floats:
        """(T+1, N) standard deviation of the daily returns up to row k-1; NaN where not all are known."""
        return self._decided(trailing_deviation(self.returns, self.volatility_window))

    @cached_property
    def daily_returns(self) -> Floats:
        """(W + T - 1, N) daily returns up to decision session T-1, W the volatility window; NaN where unknown."""
        padding = np.full((self.volatility_window, self.returns.shape[1]), np.nan)
        rows = self.volatility_window + len(self.dates) - 2
        return np.vstack([padding, self.returns])[-rows:]


def forward_fill(values: Floats) -> Floats:
    """Replace NaN by the last number above it in the same column; NaN before the first. Shape (S, N)."""
    if not np.isnan(values).any():
        return values
    rows = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    latest = np.maximum.accumulate(rows, axis=0)
    filled: Floats = np.where(latest < 0, np.nan, np.take_along_axis(values, np.maximum(latest, 0), axis=0))
    return filled


def _lagged(values: Floats, steps: int, blank: float) -> Floats:
    """The rows ``steps`` earlier; ``blank`` where there is none."""
    out = np.full(values.shape, blank)
    out[steps:] = values[: len(values) - steps]
    return out


def trailing_mean(values: Floats, window: int) -> Floats:
    """Mean of the numbers among the last ``window`` rows, the row itself included; NaN where there is none."""
    known = ~np.isnan(values)
    number, one = np.where(known, values, 0.0), known.astype(np.float64)
    total, count = np.zeros(values.shape), np.zeros(values.shape)
    for lag in range(min(window, len(values))):
        total += _lagged(number, lag, 0.0)
        count += _lagged(one, lag, 0.0)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def trailing_deviation(values: Floats, window: int) -> Floats:
    """Standard deviation (ddof 1) of the last ``window`` rows; NaN unless all of them are known. Shape (S, N)."""
    if len(values) < window:
        return np.full(values.shape, np.nan)
    lags = [_lagged(values, lag, np.nan) for lag in range(window)]
    mean = sum(lags[1:], start=lags[0]) / window
    squares = np.zeros(values.shape)
    for lagged in lags:
        squares += (lagged - mean) ** 2
    deviation: Floats = np.sqrt(squares / (window - 1))
    return deviation


def check_prices(prices: Prices) -> None:
    """Refuse prices that no market quotes.

    Raises:
        InputError: an open, close or adjusted close that is not positive and finite, or a negative volume.
    """
    for name, lowest in (
        ("open", "above 0"),
        ("close", "above 0"),
        ("adjusted_close", "above 0"),
        ("volume", "0 or more"),
    ):
        values = getattr(prices, name)
        sound = ((values > 0) if lowest == "above 0" else (values >= 0)) & (values < np.inf)
        bad = np.argwhere(~sound & ~np.isnan(values))
        if len(bad):
            row, column = bad[0]
            raise InputError(
                f"{name} of {prices.tickers[column]} on {prices.sessions.dates[row]} is {values[row, column]:g}: "
                f"it must be {lowest} and finite; correct or remove the bar"
            )


def _fill_prices(prices: Prices, options: BacktestOptions, adjust: Floats) -> tuple[Floats, Floats]:
    """Raw and adjusted price of a fill, by ``options.execution``."""
    quotes = {
        "next_open": (prices.open,),
        "next_close": (prices.close,),
        "vwap_proxy": (prices.open, prices.high, prices.low, prices.close),
    }[options.execution]
    raw: Floats = sum(quotes[1:], start=quotes[0]) / len(quotes)
    return raw, raw * adjust


def returns_to(close: Floats) -> Floats:
    """Close-to-close returns, NaN in row 0 and where a close is missing. Shape (S, N)."""
    out = np.full(close.shape, np.nan)
    out[1:] = close[1:] / close[:-1] - 1.0
    return out


def build_tape(
    prices: Prices, first: int, sessions: int, options: BacktestOptions, actions: CorporateActions | None = None
) -> Tape:
    """The window of ``sessions`` decision sessions from row ``first`` of the price table, and the session after it.

    Args:
        prices: the price table. Adjusted prices are used, so that dividends are reinvested, unless ``actions``.
        first: index of the first decision session.
        sessions: T, how many decision sessions.
        options: execution, delisting, and the windows of volatility and volume.
        actions: dividends in cash and splits; prices are then adjusted for these splits alone.
    """
    check_prices(prices)
    rows, unknown = slice(first, first + sessions + 1), np.full((1, len(prices.tickers)), np.nan)
    adjust = prices.adjusted_close / prices.close if actions is None else actions.split_factor
    raw_fill, fill = _fill_prices(prices, options, adjust)
    tradable = ~np.isnan(fill)
    close = np.where(np.isnan(prices.close), fill, prices.close * adjust)
    mark = forward_fill(close)
    previous = np.vstack([unknown, mark[:-1]])
    known = ~np.isnan(previous)
    entry = np.where(tradable, fill, previous)
    before = np.where(known & tradable, entry / np.where(known, previous, 1.0), 1.0)
    after = np.where(np.isnan(entry), 1.0, mark / np.where(np.isnan(entry), 1.0, entry))
    dividend = None if actions is None else _dividend_yield(actions, adjust, previous)
    settled = None
    if options.delisting_loss is not None:
        settled = _settlements(~np.isnan(close))
        before = np.where(settled, 1.0 - options.delisting_loss, before)
        fill = np.where(settled, previous * (1.0 - options.delisting_loss), fill)
    before, after = before[rows].copy(), after[rows].copy()
    before[0], after[0] = 1.0, 1.0
    decided = slice(0, first + sessions)
    return Tape(
        prices.sessions.dates[rows],
        prices.tickers,
        before,
        after,
        tradable[rows],
        None if settled is None else settled[rows],
        fill[rows],
        mark[rows],
        raw_fill[rows],
        None if dividend is None else dividend[rows],
        returns_to(close)[decided],
        (prices.close * prices.volume)[decided],
        options.volatility_window,
        options.limits.volume_window,
    )


def _dividend_yield(actions: CorporateActions, adjust: Floats, previous: Floats) -> Floats:
    """Dividend of a share over the close before it, both in split-adjusted money; 0 where there is none."""
    paid = actions.dividend * adjust
    return np.where(paid > 0, paid / np.where(np.isnan(previous), np.inf, previous), 0.0)


def _settlements(has_bar: Bools) -> Bools:
    """True at the session after a ticker's last bar, unless that is the end of the table. Shape (S, N)."""
    settled = np.zeros(has_bar.shape, dtype=bool)
    last = len(has_bar) - 1 - np.argmax(has_bar[::-1], axis=0)
    gone = np.flatnonzero(has_bar.any(axis=0) & (last < len(has_bar) - 1))
    settled[last[gone] + 1, gone] = True
    return settled
