"""The snapshot: what the prompt shows of the market as of session t, from sessions <= t only.

Windows count the bars of the ticker itself: a day on which it did not trade is skipped, not filled. Where its history
has a hole so long that the window spans more than twice its length in sessions, there is no value.

Names of the default features in words: ret5 return over 5 sessions; day close against open; gap open against the
previous close; range of the day; pos place of the close in that range; sma20, ema20 close against its mean; rsi14;
vol20 volatility; money20 money volume against its mean; pos252 place in the range of 52 weeks. ``ret5=a`` is the lowest
of 16 bins, ``ret5=p`` the highest, ``ret5=na`` unknown. ``mkt_ret5`` is the same of the universe held in equal parts,
``bmk_ret5`` of the benchmark, where the context is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.market.context import PREFIX, context_prices
from finseek.market.features import Bars, Feature, Floats, find_feature, volatility
from finseek.market.options import SnapshotOptions
from finseek.market.prices import Prices
from finseek.market.rolling import shifted

MISSING = "na"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Rounded before it is cut: a value on an edge falls on the same side whatever the last bits of the prices say.
DECIMALS = 9
# Numbers are shown from -9.9 to 9.9.
LIMIT = 99
# Columns that are worked on together: few enough for their windows to stay in the processor's cache.
BLOCK = 64
ALL = slice(None)


@dataclass(frozen=True)
class Snapshots:
    """Features of all tickers on all sessions.

    Attributes:
        prices: the table that they were computed from.
        options: which, and how they are rendered.
        scaled: by name, shape (S, N): the number that is rendered; NaN where history is missing.
        scales: by name, ``normal`` or ``unit``.
    """

    prices: Prices
    options: SnapshotOptions
    scaled: dict[str, Floats]
    scales: dict[str, str]

    @cached_property
    def features(self) -> dict[str, Floats]:
        """By name, shape (S, N), in the feature's own unit; NaN where history is missing. Computed when first read."""
        return _compute(self.prices, self.options, OwnBars.value)

    def bins(self, name: str) -> NDArray[np.int8]:
        """Bin of a feature, 0 lowest, -1 unknown; shape (S, N)."""
        return bin_of(self.scaled[name], self.scales[name], self.options.bins)

    def text(self, ticker: str, as_of_date: date) -> str:
        """One line, one ``name=value`` word a feature.

        Raises:
            InputError: the day is no session, or the ticker is unknown or has no bar on it.
        """
        row, column = self.place(ticker, as_of_date)
        return " ".join(f"{name}={self._words[codes[row, column]]}" for name, codes in self._codes.items())

    @cached_property
    def _words(self) -> tuple[str, ...]:
        """The word of each code; the last is that of -1."""
        if self.options.rendering == "words":
            return (*LETTERS[: self.options.bins], MISSING)
        return (*(f"{'-' if n < 0 else '+'}{abs(n) // 10}.{abs(n) % 10}" for n in range(-LIMIT, LIMIT + 1)), MISSING)

    @cached_property
    def _codes(self) -> dict[str, NDArray[np.int16]]:
        """Place of each value's word in ``_words``, -1 where it is unknown; shape (S, N)."""
        if self.options.rendering == "words":
            return {name: self.bins(name).astype(np.int16) for name in self.scaled}
        return {name: tenths(array, self.scales[name]) for name, array in self.scaled.items()}

    def place(self, ticker: str, as_of_date: date) -> tuple[int, int]:
        """Row and column of a ticker and day.

        Raises:
            InputError: as ``text``.
        """
        column = self.prices.column(ticker)
        row = int(self.prices.sessions.index([as_of_date])[0])
        if row < 0:
            raise InputError(f"{as_of_date} is no session of the price table: {ticker} has no snapshot as of it")
        if not self.prices.has_bar[row, column]:
            raise InputError(f"{ticker} has no bar on {as_of_date}: there is no snapshot as of it")
        return row, column


def snapshots(prices: Prices, options: SnapshotOptions | None = None) -> Snapshots:
    """Compute the features of a table.

    Args:
        prices: the table.
        options: which features, and how they are rendered.

    Raises:
        ConfigError: the context wants a benchmark and there is none.
    """
    options = options or SnapshotOptions()
    scales: dict[str, str] = {feature.name: feature.scale for feature in options.resolve()}
    for source in options.context:
        scales |= {f"{PREFIX[source]}_{name}": find_feature(name).scale for name in options.context_features}
    return Snapshots(prices, options, _compute(prices, options, OwnBars.scaled), scales)


def _compute(
    prices: Prices, options: SnapshotOptions, evaluate: Callable[[OwnBars, Feature], Floats]
) -> dict[str, Floats]:
    """One array (S, N) a feature, the context's last."""
    chosen, shape = options.resolve(), prices.close.shape
    arrays = {feature.name: np.empty(shape) for feature in chosen}
    for first in range(0, shape[1], BLOCK):
        columns = slice(first, first + BLOCK)
        own = OwnBars(prices, columns)
        for feature in chosen:
            arrays[feature.name][:, columns] = evaluate(own, feature)
    for source in options.context:
        around = OwnBars(context_prices(prices, source))
        for feature in map(find_feature, options.context_features):
            arrays[f"{PREFIX[source]}_{feature.name}"] = np.broadcast_to(evaluate(around, feature), shape)
    return arrays


class OwnBars:
    """The bars of each ticker moved together, so that windows count bars; and back."""

    def __init__(self, prices: Prices, columns: slice = ALL) -> None:
        has_bar = ~np.isnan(prices.close[:, columns])
        self.order: NDArray[np.int64] | None = None
        if not has_bar.all():
            self.order = np.argsort(~has_bar, axis=0, kind="stable")
        self.absent = np.arange(len(has_bar))[:, None] >= has_bar.sum(axis=0)
        raw, close = self._together(prices.close[:, columns]), self._together(prices.adjusted_close[:, columns])
        factor = close / raw
        growth = np.log(close / shifted(close, 1))
        self.bars = Bars(
            open=self._together(prices.open[:, columns]) * factor,
            high=self._together(prices.high[:, columns]) * factor,
            low=self._together(prices.low[:, columns]) * factor,
            close=close,
            money=raw * self._together(prices.volume[:, columns]),
            growth=growth,
            volatility=volatility(growth),
        )
        # Nothing can be measured in volatilities of zero: what is scaled by them is missing.
        self.volatility = np.where(self.bars.volatility > 0, self.bars.volatility, np.nan)

    def value(self, feature: Feature) -> Floats:
        """A feature in its own unit, shape (S, N)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._known(feature.formula(self.bars).copy(), feature.window)

    def scaled(self, feature: Feature) -> Floats:
        """The number that is rendered, shape (S, N)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            standard = feature.scaling(feature.formula(self.bars), self.volatility)
            return self._known(np.round(standard, DECIMALS), feature.scaled_window)

    def _together(self, values: Floats) -> Floats:
        return np.ascontiguousarray(values) if self.order is None else np.take_along_axis(values, self.order, axis=0)

    def _back(self, values: Floats) -> Floats:
        if self.order is None:
            return values
        result = np.full_like(values, np.nan)
        np.put_along_axis(result, self.order, values, axis=0)
        return result

    def _known(self, values: Floats, window: int) -> Floats:
        """Values back on their sessions; NaN where fewer than ``window`` earlier bars exist or they lie too far apart.

        Overwrites ``values``.
        """
        values[:window] = np.nan
        if self.order is not None and window:
            span = self.order[window:] - self.order[: len(self.order) - window]
            values[window:][span > 2 * window + 2] = np.nan
        values[self.absent] = np.nan
        return self._back(values)


def edges(scale: str, bins: int) -> Floats:
    """The inner edges of the bins, shape (bins - 1,): constants, never fitted."""
    parts = np.arange(1, bins) / bins
    if scale == "unit":
        return parts
    return np.array([NormalDist().inv_cdf(part) for part in parts])


def bin_of(scaled: Floats, scale: str, bins: int) -> NDArray[np.int8]:
    """Number of edges at or below each value; -1 for NaN."""
    found = np.searchsorted(edges(scale, bins), scaled, side="right")
    return np.where(np.isnan(scaled), -1, found).astype(np.int8)


def tenths(scaled: Floats, scale: str) -> NDArray[np.int16]:
    """Tenths of the number that is shown, counted from -9.9; -1 for NaN."""
    # A known range becomes -5..5, so that one decimal keeps a hundredth of it.
    number = 10 * (scaled - 0.5) if scale == "unit" else scaled
    count = np.rint(np.clip(10 * number, -LIMIT, LIMIT)) + LIMIT
    return np.where(np.isnan(count), -1, count).astype(np.int16)
